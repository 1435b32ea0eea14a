"""The listeners of a plane: their addresses, whether they serve, and the messages about them.

Rule 1: sockets listen or refuse at once; workers learn which to accept from, and which not to,
before they learn of endpoints that went, and after those that came.
Rule 2: a UDP port that refuses is held by a socket that gets nothing (``port_hold``). The sockets
that served it stay until no worker holds a copy, so that it may serve again meanwhile.
Rule 3: a listener has a socket for each worker as long as descriptors are plenty, else one.
Rule 4: a worker in the caller's loop answers while a message is sent: what its answer is about is
noted before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping

from ..dataplane import Serving
from ..dataplane.sockets import cannot_listen
from ..errors import ListenError, ShortageError, UserspaceProxyError
from ..model import Protocol, SocketAddress
from .group import Group
from .listener import Answer, Listener, Wanted
from .messages import (
    CloseListener,
    MoveListener,
    PauseListener,
    ResumeListener,
    ToWorker,
)
from .sockets import ListeningSockets

# Kept for what isn't a listener's: log files, API connections, status requests.
RESERVE = 512

Send = Callable[..., bool]
"""Takes a worker's number, a message and its socket; False while there is no such worker."""


class Listeners:
    """The listeners of one plane.

    Args:
        count: How many workers there are.
        limit: How many descriptors this process may have, and each worker.
        send: Sends a message to a worker.
    """

    def __init__(self, count: int, limit: int, send: Send) -> None:
        self._limit = limit
        self._send = send
        self._numbers = 0
        self._open: dict[int, Listener] = {}
        self._by_key: dict[Hashable, Listener] = {}
        self._by_group: dict[Group, dict[Hashable, Listener]] = {}
        self._unwanted: dict[Listener, None] = {}
        self._leaving: dict[int, Listener] = {}
        """UDP listeners whose sockets some worker still holds under this number: closed ones, or
        those that have taken over their port."""
        self._counts = [0] * count
        """Listeners of each worker."""

    def prepare(self, group: Group, serving: Serving, wanted: Mapping[Hashable, Wanted]) -> None:
        """Have listeners refuse or drop already what they will; workers don't know of it yet.

        Args:
            group: Still has its old serving.
            serving: The one that it will have.
            wanted: The listeners that it is to have; some may be another group's yet.
        """
        others = (self._by_key.get(key) for key in wanted)
        moving = [x for x in others if x is not None and x.group is not group]
        for listener in (*self._by_group.get(group, {}).values(), *moving):
            if serving.is_refusing:
                # First: a worker that has no endpoint must not accept.
                self._refuse(listener)
            elif listener.group.serving.admits is None or not serving.endpoints:
                # Likewise: a client that is to be dropped must not be reset.
                with contextlib.suppress(ListenError):
                    listener.sockets.admit(serving.admits)

    def follow(self, group: Group, wanted: Mapping[Hashable, Wanted]) -> Answer:
        """Open what is missing, take over what another group has, and serve as the group says.

        Call it after :meth:`prepare`, when workers have the group. A listener that can't serve
        refuses. What isn't wanted any more follows, too, until :meth:`close_unwanted`.
        """
        errors: dict[Hashable, ListenError | None] = {}
        own = self._by_group.setdefault(group, {})
        self._unwanted.update({own[key]: None for key in own if key not in wanted})
        for key in (*own, *(key for key in wanted if key not in own)):
            try:
                listener = self._by_key.get(key)
                if listener is None:
                    self._open_first(key, group, wanted[key])
                    continue
                if key in wanted:
                    self._unwanted.pop(listener, None)
                if listener.group is not group:
                    self._move(listener, group)
                if not group.serving.is_refusing:
                    self._serve_as_group(listener)
            except ListenError as exc:
                errors[key] = exc
            except _NoAddressLeft:
                errors[key] = None
        return Answer({key: own[key] for key in wanted if key in own}, errors)

    def close_unwanted(self) -> list[Listener]:
        """Close the listeners that no group wants any more; returns them."""
        unwanted, self._unwanted = list(self._unwanted), {}
        for listener in unwanted:
            self._close(listener)
        return unwanted

    def close_group(self, group: Group) -> list[Listener]:
        """Close the listeners of a group; returns them. Idempotent."""
        closed = list(self._by_group.pop(group, {}).values())
        for listener in closed:
            self._unwanted.pop(listener, None)
            self._close(listener)
        return closed

    def close_all(self) -> None:
        """Close every socket at once, whether or not a worker still holds a copy."""
        for listener in (*self._open.values(), *self._leaving.values()):
            listener.is_closed = True
            listener.is_serving = False
            listener.sockets.close()
        self._open.clear()
        self._leaving.clear()
        self._by_key.clear()
        self._by_group.clear()
        self._unwanted.clear()

    def tell(self, worker: int) -> None:
        """Send a worker that has just begun all that it is to serve."""
        for listener in self._open.values():
            if listener.is_serving or listener.protocol is Protocol.TCP:
                self._tell(worker, listener)

    def closed_by(self, worker: int, number: int) -> None:
        """Note that a worker has closed its copy of a listener's socket."""
        listener = self._open.get(number) or self._leaving.get(number)
        if listener is not None and worker in listener.closing:
            listener.closing[worker] -= 1
            # Without those at 0, so that it is false when no worker owes anything.
            listener.closing = +listener.closing
            self._close_refusing(listener)

    def worker_ended(self, worker: int) -> None:
        """Note that a worker holds nothing any more."""
        for listener in (*self._open.values(), *self._leaving.values()):
            if listener.closing.pop(worker, 0):
                self._close_refusing(listener)

    def _open_first(self, key: Hashable, group: Group, wanted: Wanted) -> None:
        """Open a listener at the first address that can be had.

        Raises:
            ListenError: The last one can't be had, or descriptors are short.
            _NoAddressLeft: There was none.
        """
        error: ListenError | None = None
        for at in wanted.addresses:
            try:
                self._open_at(key, group, wanted, at)
            except ShortageError:
                raise
            except ListenError as exc:
                error = exc
            else:
                return
        raise error or _NoAddressLeft("no address is left")

    def _open_at(self, key: Hashable, group: Group, wanted: Wanted, at: SocketAddress) -> None:
        old = self._just_closed(wanted.protocol, at)
        if old is None:
            sockets = ListeningSockets(
                wanted.protocol,
                at,
                freebind=wanted.freebind,
                transparent=wanted.transparent,
                workers=self._choose_workers(wanted.protocol, at),
                admits=group.serving.admits,
            )
        else:
            sockets = old.sockets
            sockets.admit(group.serving.admits)
        sockets.choose(by_client=group.serving.affinity_timeout_s is not None)
        self._numbers += 1
        listener = Listener(key, self._numbers, group, wanted.protocol, sockets)
        if old is not None:
            listener.closing = old.closing
            listener.numbers += old.numbers
            self._leaving.update(dict.fromkeys(old.numbers, listener))
        listener.is_serving = not group.serving.is_refusing
        if not listener.is_serving:
            sockets.refuse()
            self._close_refusing(listener)
        self._open[listener.number] = listener
        self._by_key[key] = self._by_group[group][key] = listener
        for worker in listener.workers:
            self._counts[worker] += 1
        try:
            for worker in listener.workers:
                self._tell(worker, listener)
        except ListenError:
            self._close(listener)
            raise

    def _move(self, listener: Listener, group: Group) -> None:
        """Have one serve another group's clients."""
        del self._by_group[listener.group][listener.key]
        self._by_group[group][listener.key] = listener
        listener.group = group
        self._send_all(listener, MoveListener(listener.number, group.number))

    def _close(self, listener: Listener) -> None:
        listener.is_closed = True
        listener.is_serving = False
        del self._open[listener.number], self._by_key[listener.key]
        self._by_group.get(listener.group, {}).pop(listener.key, None)
        for worker in listener.workers:
            self._counts[worker] -= 1
        if listener.protocol is Protocol.UDP:
            self._leaving[listener.number] = listener
        self._tell_workers_to_close(listener)
        if listener.protocol is Protocol.TCP:
            listener.sockets.close()
        else:
            self._close_refusing(listener)

    def _just_closed(self, protocol: Protocol, at: SocketAddress) -> Listener | None:
        """Return a closed UDP listener whose port is still ours, to be taken over."""
        for listener in self._leaving.values():
            if listener.is_closed and (protocol, at) == (listener.protocol, listener.address):
                return listener
        return None

    def _choose_workers(self, protocol: Protocol, at: SocketAddress) -> list[int]:
        """Return the workers that are to serve one more listener: all or one.

        Raises:
            ShortageError: Half of a worker's descriptors would be listeners, or all of ours.
        """
        all_workers, have = range(len(self._counts)), sum(self._counts)
        if have + len(all_workers) <= self._limit // 2:
            chosen = list(all_workers)
        elif have < self._limit - RESERVE:
            chosen = [min(all_workers, key=self._counts.__getitem__)]
        else:
            chosen = []
        if not chosen or max(self._counts[worker] for worker in chosen) >= self._limit // 2:
            raise ShortageError(
                f"cannot listen on {at}/{protocol}: half of the descriptors are listeners already",
                hint="raise the limit of open files: RLIMIT_NOFILE, systemd's LimitNOFILE=",
            )
        return chosen

    def _serve_as_group(self, listener: Listener) -> None:
        """Have one serve as its group says; if it can't, it refuses, and this raises."""
        serving = listener.group.serving
        try:
            listener.sockets.choose(by_client=serving.affinity_timeout_s is not None)
            listener.sockets.admit(serving.admits)
            self._serve(listener)
        except ListenError:
            self._refuse(listener)
            raise

    def _refuse(self, listener: Listener) -> None:
        if not listener.is_serving:
            return
        listener.is_serving = False
        listener.sockets.refuse()
        if listener.protocol is Protocol.TCP:
            self._send_all(listener, PauseListener(listener.number))
        else:
            self._tell_workers_to_close(listener)
            self._close_refusing(listener)

    def _serve(self, listener: Listener) -> None:
        if listener.is_serving:
            return
        listener.sockets.serve()
        listener.is_serving = True
        if listener.protocol is Protocol.TCP:
            self._send_all(listener, ResumeListener(listener.number))
        else:
            for worker in listener.workers:
                self._tell(worker, listener)

    def _tell_workers_to_close(self, listener: Listener) -> None:
        """Have the workers close their copies."""
        for worker in listener.workers:
            listener.closing[worker] += 1
            if not self._send(worker, CloseListener(listener.number)):
                listener.closing[worker] -= 1
        listener.closing = +listener.closing

    def _close_refusing(self, listener: Listener) -> None:
        """Close the sockets of a refusing UDP port once no worker holds them.

        Until then our copies stay, so that a port that serves again meanwhile has them.
        """
        if listener.closing:
            return
        for number in listener.numbers:
            self._leaving.pop(number, None)
        if listener.protocol is not Protocol.UDP or listener.is_serving:
            return
        if listener.is_closed:
            listener.sockets.close()
        else:
            listener.sockets.leave()

    def _tell(self, worker: int, listener: Listener) -> None:
        """Send a worker a listener and its socket.

        Raises:
            ListenError: It is in the caller's loop, whose epoll takes no more.
        """
        sock = listener.sockets.by_worker.get(worker)
        if sock is None:
            return
        try:
            self._send(worker, listener.opening(), sock)
        except OSError as exc:
            raise cannot_listen(listener.address, listener.protocol, exc) from exc

    def _send_all(self, listener: Listener, message: ToWorker) -> None:
        for worker in listener.workers:
            self._send(worker, message)


class _NoAddressLeft(UserspaceProxyError):
    """There is no address at which a listener could be opened."""
