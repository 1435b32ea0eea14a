"""The listeners of a pool: their addresses, whether they serve, and the messages about them.

Rule 1: sockets listen or refuse at once; workers learn which to accept from, and which not to,
before they learn of endpoints that went, and after those that came.
Rule 2: a UDP port that refuses is held by a socket that gets nothing (``port_hold``). The sockets
that served it stay until no worker holds a copy, so that it may serve again meanwhile.
Rule 3: a listener has a socket for each worker as long as descriptors are plenty, else one.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from ...errors import ListenError, ShortageError
from ...model import Protocol, SocketAddress
from .messages import (
    CloseListener,
    Message,
    MoveListener,
    OpenListener,
    PauseListener,
    ResumeListener,
)
from .shared_group import SharedGroup
from .shared_sockets import SharedSockets

# Kept for what isn't a listener's: log files, API connections, status requests.
RESERVE = 512

Send = Callable[..., bool]
"""Takes a worker's number, a message and its socket; False while there is no such worker."""


class SharedListener:
    """One address that clients reach, served by several processes, or refusing.

    Args:
        owner: Closes it.
        number: Its name in messages.
        group: Chooses endpoints for its clients.
        protocol: TCP or UDP.
        sockets: One for each worker that serves it; the listener closes them.
    """

    def __init__(
        self,
        owner: SharedListeners,
        number: int,
        group: SharedGroup,
        protocol: Protocol,
        sockets: SharedSockets,
    ) -> None:
        self._owner = owner
        self.number = number
        self.group = group
        self.protocol = protocol
        self.sockets = sockets
        self.workers = tuple(sockets.by_worker)
        """Those that serve it."""
        self.numbers = [number]
        """Under which workers may hold its sockets: its own, and those of whose port it took."""
        self.address = sockets.at
        """Where it is bound, with the port that was chosen."""
        self.is_serving = True
        """False while clients are refused."""
        self.is_closed = False
        self.closing: Counter[int] = Counter()
        """How often each worker is yet to say that it has closed its copy of a UDP socket: until
        then the port is taken."""

    def opening(self) -> OpenListener:
        """Return the message by which a worker learns of it."""
        return OpenListener(
            self.number, self.group.number, str(self.protocol), *self.address, self.is_serving
        )

    def close(self) -> None:
        """Close it; TCP connections go on, UDP flows end. Idempotent."""
        self._owner.close(self)


class SharedListeners:
    """The listeners of one pool.

    Args:
        count: How many workers there are.
        limit: How many descriptors this process may have, and each worker.
        send: Sends a message to a worker.
    """

    def __init__(self, count: int, limit: int, send: Send) -> None:
        self._limit = limit
        self._send = send
        self._numbers = 0
        self._open: dict[int, SharedListener] = {}
        self._leaving: dict[int, SharedListener] = {}
        """UDP listeners whose sockets some worker still holds under this number: closed ones, or
        those that have taken over their port."""
        self._counts = [0] * count
        """Listeners of each worker."""

    def open(
        self,
        group: SharedGroup,
        protocol: Protocol,
        at: SocketAddress,
        *,
        freebind: bool,
        transparent: bool = False,
    ) -> SharedListener:
        """Open one; it refuses from the start if its group has no endpoints.

        Raises:
            ListenError: The port can't be had.
        """
        old = self._just_closed(protocol, at)
        if old is None:
            sockets = SharedSockets(
                protocol,
                at,
                freebind=freebind,
                transparent=transparent,
                workers=self._choose_workers(protocol, at),
                admits=group.serving.admits,
            )
        else:
            sockets = old.sockets
            sockets.admit(group.serving.admits)
        sockets.choose(by_client=group.serving.affinity_timeout_s is not None)
        self._numbers += 1
        listener = SharedListener(self, self._numbers, group, protocol, sockets)
        if old is not None:
            listener.closing = old.closing
            listener.numbers += old.numbers
            self._leaving.update(dict.fromkeys(old.numbers, listener))
        listener.is_serving = not group.serving.is_refusing
        if not listener.is_serving:
            sockets.refuse()
            self._close_refusing(listener)
        self._open[listener.number] = listener
        group.listeners.add(listener)
        for worker in listener.workers:
            self._counts[worker] += 1
            self._tell(worker, listener)
        return listener

    def hand_over(self, listener: SharedListener, group: SharedGroup) -> None:
        """Have one serve another group's clients; workers have the group already.

        Raises:
            ListenError: It can't serve as that group: it refuses.
        """
        old, serving = listener.group, group.serving
        old.listeners.discard(listener)
        group.listeners.add(listener)
        listener.group = group
        if serving.is_refusing:
            # First, as ever: a worker that has no endpoint must not accept.
            self._refuse(listener)
        elif old.serving.admits is None or not serving.endpoints:
            with contextlib.suppress(ListenError):
                listener.sockets.admit(serving.admits)
        self._send_all(listener, MoveListener(listener.number, group.number))
        if not serving.is_refusing:
            self._follow(listener)

    def refuse(self, group: SharedGroup) -> None:
        """Have the listeners of a group refuse; before workers learn that endpoints went."""
        for listener in group.listeners:
            self._refuse(listener)

    def admit(self, group: SharedGroup, networks: Sequence[str] | None) -> None:
        """Let in packets from these networks alone; :meth:`serve` returns what couldn't be done."""
        for listener in group.listeners:
            with contextlib.suppress(ListenError):
                listener.sockets.admit(networks)

    def serve(self, group: SharedGroup) -> ListenError | None:
        """Have them serve as their group says; one that can't refuses.

        After workers have learnt of endpoints that came.

        Returns:
            Why one can't.
        """
        error = None
        for listener in group.listeners:
            try:
                self._follow(listener)
            except ListenError as exc:
                error = exc
        return error

    def close(self, listener: SharedListener) -> None:
        """Close one; for :meth:`SharedListener.close`."""
        if listener.is_closed:
            return
        listener.is_closed = True
        listener.is_serving = False
        listener.group.listeners.discard(listener)
        del self._open[listener.number]
        for worker in listener.workers:
            self._counts[worker] -= 1
        self._tell_workers_to_close(listener)
        if listener.protocol is Protocol.TCP:
            listener.sockets.close()
        else:
            self._leaving[listener.number] = listener
            self._close_refusing(listener)

    def close_all(self) -> None:
        """Close every socket at once, whether or not a worker still holds a copy."""
        for listener in (*self._open.values(), *self._leaving.values()):
            listener.is_closed = True
            listener.is_serving = False
            listener.sockets.close()
        self._open.clear()
        self._leaving.clear()

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

    def _just_closed(self, protocol: Protocol, at: SocketAddress) -> SharedListener | None:
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

    def _follow(self, listener: SharedListener) -> None:
        """Have one serve as its group says; if it can't, it refuses, and this raises."""
        serving = listener.group.serving
        try:
            listener.sockets.choose(by_client=serving.affinity_timeout_s is not None)
            listener.sockets.admit(serving.admits)
            self._serve(listener)
        except ListenError:
            self._refuse(listener)
            raise

    def _refuse(self, listener: SharedListener) -> None:
        if not listener.is_serving:
            return
        listener.is_serving = False
        if listener.protocol is Protocol.TCP:
            listener.sockets.refuse()
            self._send_all(listener, PauseListener(listener.number))
        else:
            listener.sockets.refuse()
            self._tell_workers_to_close(listener)
            self._close_refusing(listener)

    def _serve(self, listener: SharedListener) -> None:
        if listener.is_serving:
            return
        listener.sockets.serve()
        listener.is_serving = True
        if listener.protocol is Protocol.TCP:
            self._send_all(listener, ResumeListener(listener.number))
        else:
            for worker in listener.workers:
                self._tell(worker, listener)

    def _tell_workers_to_close(self, listener: SharedListener) -> None:
        """Tell the workers to close their copies."""
        for worker in listener.workers:
            if self._send(worker, CloseListener(listener.number)):
                listener.closing[worker] += 1

    def _close_refusing(self, listener: SharedListener) -> None:
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

    def _tell(self, worker: int, listener: SharedListener) -> None:
        sock: socket.socket | None = listener.sockets.by_worker.get(worker)
        if sock is not None:
            self._send(worker, listener.opening(), sock)

    def _send_all(self, listener: SharedListener, message: Message) -> None:
        for worker in listener.workers:
            self._send(worker, message)
