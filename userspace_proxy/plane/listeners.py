"""Owns the listeners of a plane: binds their sockets, and assigns the sockets to workers.

Rule 1: sockets listen or refuse immediately; workers close a listener before its group loses its
endpoints, and open it after the group has received endpoints.
Rule 2: a refusing UDP port is reserved by a socket that receives nothing (``listening_sockets``).
Its serving sockets stay open until no worker of this or the previous control process has a copy, in
case the port serves again earlier: if new sockets were opened beside open copies, the kernel's
order of sockets would differ from the order of workers (``reuseport``).
Rule 3: a listener has one socket per worker while descriptors are plentiful, otherwise one socket.
Rule 4: while a worker is missing, a substitute serves its sockets (``substitutes``).
Rule 5: state is updated before a message is sent, because a worker in the caller's loop answers
before the call returns.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import BoundError, ListenError, ShortageError
from ..kernel.interfaces import NO_IPV6
from ..kernel.listening_sockets import cannot_listen
from ..model import Protocol, SocketAddress
from ..model.serving import Serving
from .group import Group
from .listener import RESERVE, Answer, Listener, ListeningSockets, Wanted
from .messages import CloseListener, MoveListener
from .recovered_sockets import RecoveredSockets
from .substitutes import Substitutes

if TYPE_CHECKING:
    from .adoption import PreviousWorkers

Send = Callable[..., bool]
"""Sends a message and its socket to a worker, by index; returns False if the worker is down."""


class Listeners:
    """The listeners of one plane.

    Args:
        limit: The number of descriptors that this process, and each of ``count`` workers, may use.
        previous_workers: Workers whose sockets are used before new sockets are opened.
    """

    def __init__(
        self, count: int, limit: int, send: Send, previous_workers: PreviousWorkers | None = None
    ) -> None:
        self._limit = limit
        self._previous_workers = previous_workers
        self.recovered = RecoveredSockets()
        self._send = send
        self._numbers = 0
        self._open: dict[int, Listener] = {}
        self._by_key: dict[Hashable, Listener] = {}
        self._by_group: dict[Group, tuple[Listener, ...]] = {}
        self._unwanted: dict[Listener, None] = {}
        self._leaving: dict[int, Listener] = {}
        """UDP listeners that are closed, or that took over the port of a closed listener, by the
        numbers under which workers still hold their sockets."""
        self._counts = [0] * count
        """The number of listeners per worker."""
        self._substitutes = Substitutes(self._counts, limit)

    def prepare(self, group: Group, serving: Serving, wanted: Mapping[Hashable, Wanted]) -> None:
        """Make listeners refuse or drop clients before workers receive the new ``Serving``.

        Call it while the group has its old :class:`Serving`; some wanted listeners may belong to
        another group.
        """
        others = (self._by_key.get(key) for key in wanted)
        moving = [x for x in others if x is not None and x.group is not group]
        for listener in (*self._by_group.get(group, ()), *moving):
            if serving.is_refusing:
                # Refuse first: a worker without an endpoint must not accept.
                self._refuse(listener)
            elif listener.group.serving.admits is None or not serving.endpoints:
                # Apply source ranges first: a client outside the ranges must not be reset.
                with contextlib.suppress(ListenError):
                    listener.sockets.admit(serving.admits)

    def follow(self, group: Group, wanted: Mapping[Hashable, Wanted]) -> Answer:
        """Open missing listeners, take over listeners of other groups, and apply the ``Serving``.

        Call it after :meth:`prepare`, once workers have received the group. A listener that can't
        serve refuses. Unwanted listeners also follow the ``Serving`` until :meth:`close_unwanted`.
        """
        errors: dict[Hashable, ListenError | None] = {}
        before = self._by_group.setdefault(group, ())
        self._unwanted.update({own: None for own in before if own.key not in wanted})
        for key in dict.fromkeys((*(own.key for own in before), *wanted)):
            try:
                listener = self._by_key.get(key)
                if listener is None:
                    if not self._open_first(key, group, wanted[key]):
                        errors[key] = None
                    continue
                if key in wanted:
                    self._unwanted.pop(listener, None)
                if listener.group is not group:
                    self._move(listener, group)
                if not group.serving.is_refusing:
                    self._serve(listener)
            except ListenError as exc:
                errors[key] = exc
        own = {listener.key: listener for listener in self._by_group[group]}
        return Answer({key: own[key] for key in wanted if key in own}, errors)

    def recover(
        self, wanted: Iterable[tuple[Protocol, SocketAddress]], *, transparent: bool
    ) -> None:
        """Open sockets that listeners will take over later, up to half of the limit."""
        self.recovered.open(wanted, self._limit // 2, transparent=transparent)

    def previous_workers_drain(self) -> None:
        """Close the sockets of refusing UDP ports that previous workers served until now."""
        for listener in self._open.values():
            if not listener.is_serving:
                self._release(listener)

    def close_unwanted(self) -> list[Listener]:
        """Close and return the listeners that no group wants."""
        unwanted, self._unwanted = list(self._unwanted), {}
        for listener in unwanted:
            self._close(listener)
        return unwanted

    def close_group(self, group: Group) -> list[Listener]:
        """Close and return the listeners of a group. Idempotent."""
        closed = list(self._by_group.pop(group, ()))
        for listener in closed:
            self._unwanted.pop(listener, None)
            self._close(listener)
        return closed

    def close_all(self) -> None:
        """Close every socket immediately, even if a worker still holds a copy."""
        for listener in (*self._open.values(), *self._leaving.values()):
            listener.is_closed = True
            listener.is_serving = False
            listener.sockets.close()
        self._open.clear()
        self._leaving.clear()
        self._by_key.clear()
        self._by_group.clear()
        self._unwanted.clear()
        self.recovered.close()

    def send_all(self, worker: int) -> None:
        """Send a worker that has just started its sockets of all listeners that serve."""
        for listener in self._open.values():
            if listener.is_serving:
                self._send_opening(worker, listener, worker, listener.number)

    def substitute(self, missing: int, running: Sequence[int]) -> None:
        """Open a missing worker's listeners in a running worker that has room. Idempotent."""
        substitute = self._substitutes.begin(missing, running)
        if substitute is None:
            return
        for listener in self._open.values():
            if listener.is_serving and missing in listener.workers:
                number = self._substitutes.number(missing, listener.number)
                self._send_opening(missing, listener, substitute, number)

    def end_substitute(self, worker: int) -> None:
        """End the substitution for a worker that has opened its own listeners. Idempotent."""
        substitute = self._substitutes.end(worker)
        if substitute is None:
            return
        for listener in self._open.values():
            if listener.is_serving and worker in listener.workers:
                number = self._substitutes.number(worker, listener.number)
                self._send_closing(listener, substitute, number)

    def closed_by(self, worker: int, number: int) -> None:
        """Record that a worker has closed its copy of a listener's socket."""
        number = self._substitutes.listener(number)
        listener = self._open.get(number) or self._leaving.get(number)
        if listener is not None and worker in listener.closing:
            # Subtraction drops zeros, so ``closing`` is falsy once no worker owes a confirmation.
            listener.closing = listener.closing - Counter((worker,))
            self._release(listener)

    def worker_ended(self, worker: int) -> None:
        """Record that a worker no longer holds sockets."""
        self._substitutes.worker_ended(worker)
        for listener in (*self._open.values(), *self._leaving.values()):
            if owed := listener.closing[worker]:
                listener.closing = listener.closing - Counter({worker: owed})
                self._release(listener)

    def _open_first(self, key: Hashable, group: Group, wanted: Wanted) -> bool:
        """Open a listener on the first address that can be bound; return False without addresses.

        Raises:
            ListenError: The last address can't be bound, no descriptor is left, or this machine
                lacks the address or IPv6.
        """
        error: ListenError | None = None
        for at in wanted.addresses:
            try:
                self._open_at(key, group, wanted, at)
            except ShortageError:
                raise
            except ListenError as exc:
                if getattr(exc.__cause__, "errno", None) in NO_IPV6:
                    raise
                error = exc
            else:
                return True
        if error is not None:
            raise error
        return False

    def _open_at(self, key: Hashable, group: Group, wanted: Wanted, at: SocketAddress) -> None:
        # Take over the port of a UDP listener that was just closed.
        old = next(
            (
                listener
                for listener in self._leaving.values()
                if listener.is_closed
                and (wanted.protocol, at) == (listener.protocol, listener.address)
            ),
            None,
        )
        workers = self._choose_workers(wanted.protocol, at, old)
        if old is None:
            sockets = ListeningSockets(
                wanted.protocol,
                at,
                freebind=wanted.freebind,
                transparent=wanted.transparent,
                workers=workers,
                admits=group.serving.admits,
                by_client=group.serving.affinity_timeout_s is not None,
                inherited=self._inherit(wanted.protocol, at, group.serving),
            )
        else:
            sockets = old.sockets
            sockets.choose(by_client=group.serving.affinity_timeout_s is not None)
            sockets.admit(group.serving.admits)
            if not group.serving.is_refusing:
                # The old listener may have refused clients, so let its sockets serve again.
                sockets.serve()
        self._numbers += 1
        listener = Listener(key, self._numbers, group, wanted.protocol, sockets)
        if old is not None:
            listener.closing = old.closing
            listener.numbers += old.numbers
            self._leaving.update(dict.fromkeys(old.numbers, listener))
        self._open[listener.number] = listener
        self._by_key[key] = listener
        self._by_group[group] += (listener,)
        for worker in listener.workers:
            self._counts[worker] += 1
        listener.is_serving = not group.serving.is_refusing
        if not listener.is_serving:
            sockets.refuse()
            self._release(listener)
            return
        try:
            self._open_in_workers(listener)
        except ListenError:
            self._close(listener)
            raise

    def _inherit(
        self, protocol: Protocol, at: SocketAddress, serving: Serving
    ) -> Sequence[socket.socket | None]:
        """Take an earlier run's sockets on an address: its workers', or else a recovered socket."""
        handed_over = self._previous_workers.take(protocol, at) if self._previous_workers else ()
        return handed_over or self.recovered.take(protocol, at, serving)

    def _choose_workers(
        self, protocol: Protocol, at: SocketAddress, old: Listener | None
    ) -> Sequence[int]:
        """Return the workers that should serve one more listener: all or one.

        A listener that takes over the sockets of an old listener keeps its workers.

        Raises:
            BoundError: Listeners would take half of a worker's descriptors, or all unreserved
                descriptors of this process.
        """
        all_workers, have = range(len(self._counts)), sum(self._counts)
        chosen: Sequence[int] = ()
        if old is not None:
            # Other listeners may have used up the old listener's descriptors since it was closed.
            # The port can be opened with fewer sockets once workers have closed their copies.
            if have + len(old.workers) <= max(self._limit // 2, self._limit - RESERVE):
                chosen = old.workers
        elif have + len(all_workers) <= self._limit // 2:
            chosen = all_workers
        elif have < self._limit - RESERVE:
            chosen = (min(all_workers, key=self._counts.__getitem__),)
        if not chosen or max(self._counts[worker] for worker in chosen) >= self._limit // 2:
            raise BoundError(
                f"cannot listen on {at}/{protocol}",
                cause="half of the descriptors are listeners already",
                hint="raise the limit of open files: RLIMIT_NOFILE, systemd's LimitNOFILE=",
            )
        return chosen

    def _move(self, listener: Listener, group: Group) -> None:
        self._leave_group(listener)
        self._by_group[group] += (listener,)
        listener.group = group
        for _, holder, number in self._holders(listener):
            self._send(holder, MoveListener(number, group.number))

    def _leave_group(self, listener: Listener) -> None:
        if (own := self._by_group.get(listener.group)) is not None:
            left = tuple([each for each in own if each is not listener])
            self._by_group[listener.group] = left

    def _serve(self, listener: Listener) -> None:
        """Apply the ``Serving`` of a listener's group to the listener.

        Raises:
            ListenError: The ``Serving`` can't be applied; the listener refuses clients.
        """
        serving, sockets = listener.group.serving, listener.sockets
        try:
            sockets.choose(by_client=serving.affinity_timeout_s is not None)
            sockets.admit(serving.admits)
            if not listener.is_serving:
                sockets.serve()
                listener.is_serving = True
                self._open_in_workers(listener)
        except ListenError:
            self._refuse(listener)
            raise

    def _refuse(self, listener: Listener) -> None:
        if listener.is_serving:
            listener.is_serving = False
            listener.sockets.refuse()
            self._close_in_workers(listener)
            self._release(listener)

    def _close(self, listener: Listener) -> None:
        listener.is_closed = True
        listener.is_serving = False
        del self._open[listener.number], self._by_key[listener.key]
        self._leave_group(listener)
        for worker in listener.workers:
            self._counts[worker] -= 1
        if listener.protocol is Protocol.UDP:
            self._leaving[listener.number] = listener
        self._close_in_workers(listener)
        if listener.protocol is Protocol.TCP:
            listener.sockets.close()
        else:
            self._release(listener)

    def _open_in_workers(self, listener: Listener) -> None:
        """Send each serving worker its socket of the listener.

        Raises:
            ListenError: A worker in the caller's loop can't add its socket to its epoll.
        """
        for worker, holder, number in self._holders(listener):
            try:
                self._send_opening(worker, listener, holder, number)
            except OSError as exc:
                raise cannot_listen(listener.address, listener.protocol, exc) from exc

    def _send_opening(self, worker: int, listener: Listener, holder: int, number: int) -> None:
        """Send the socket of a worker, if any, to the worker or its substitute."""
        sock = listener.sockets.by_worker.get(worker)
        if sock is not None:
            self._send(holder, listener.opening(number), sock)

    def _close_in_workers(self, listener: Listener) -> None:
        for _, holder, number in self._holders(listener):
            self._send_closing(listener, holder, number)

    def _send_closing(self, listener: Listener, holder: int, number: int) -> None:
        listener.closing = listener.closing + Counter((holder,))
        if not self._send(holder, CloseListener(number)):
            listener.closing = listener.closing - Counter((holder,))

    def _holders(self, listener: Listener) -> Iterator[tuple[int, int, int]]:
        """Yield each worker with itself or its substitute, and the number of the listener there."""
        for worker in listener.workers:
            for holder, number in self._substitutes.holders(worker, listener.number):
                yield worker, holder, number

    def _release(self, listener: Listener) -> None:
        """Close the sockets of a refusing UDP port once no worker holds a copy.

        Until then the sockets stay open here, in case the port serves again.
        """
        if listener.closing:
            return
        for number in listener.numbers:
            self._leaving.pop(number, None)
        if listener.protocol is Protocol.UDP and not listener.is_serving:
            if listener.is_closed:
                listener.sockets.close()
            elif not self._previous_workers_serve(listener):
                listener.sockets.leave()

    def _previous_workers_serve(self, listener: Listener) -> bool:
        previous_workers = self._previous_workers
        return previous_workers is not None and listener.address.port in previous_workers.ports
