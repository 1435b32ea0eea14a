"""Adopts the sockets of workers that outlived their control process.

    previous worker ──HandedOver──▶ PreviousWorkers ──take──▶ ListeningSockets
                    ──AffinityEntries, AffinityEntriesSent──▶ PreviousWorkers ──▶ new workers
                    ◀──Drain once the new workers serve──

A worker hands over only after a proof of CAP_NET_ADMIN (``plane.authentication``).

Rule 1: previous workers serve until they are ordered to drain. Until then, old and new workers
accept from the same queues, so no client is refused, reset or left in a queue.
Rule 2: a worker handles untrusted bytes, so its messages are checked: only listening (TCP) or bound
(UDP) sockets of this network namespace are accepted, and each only once; kept sockets must be
netlink sockets for nftables.
Rule 3: a previous worker may run another version, so unknown messages are skipped.
Rule 4: a previous worker that doesn't answer in time is ordered to drain, or to exit, once it
answers: until then it serves its clients as the previous control process ordered. If it disconnects
before that, this process connects again: other processes have taken this process's slot
(``authentication``), or the proof was late.
Rule 5: affinity entries arrive after the sockets; only the drain waits for them, a few seconds.
Rule 6: the bytes read from a worker are bounded, and reading ends with its last message.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
from collections.abc import Callable, Iterable
from operator import itemgetter

from ..balance.affinity import MAX_ENTRIES
from ..kernel import abstract_sockets
from ..kernel.net_admin_proof import Prover
from ..kernel.netlink.sockets import is_for_netfilter
from ..kernel.trials import SO_NETNS_COOKIE
from ..log_fields import FieldLogger
from ..model import Protocol, SocketAddress
from .authentication import Asker
from .listener import RESERVE
from .messages import AffinityEntries, AffinityEntriesSent, Drain, End, FromWorker, HandedOver
from .reuseport import order_left

_log = FieldLogger("userspace_proxy.dataplane")

# The time limit for a worker's answer. Ten thousand sockets take 0.1 s, but a worker may be busy,
# or many processes may connect to it.
ANSWER_S = 4.0
# How long to wait before connecting again to a worker that has closed the connection; the second
# value applies once nothing waits for the worker.
_AGAIN_S, _LATE_AGAIN_S = 0.01, 1.0
# The time limit for an answer when this process exits; its own workers have as long to report that
# they have drained.
LAST_ANSWER_S = 2.0
# How long affinity entries may take to arrive after the sockets; a worker stops sending them a
# little earlier.
PINS_S = 6.0
# The maximum number of bytes read from a worker; a worker sends at most about 20 MB, nearly all of
# it affinity entries.
_MAX_READ_BYTES = 32 * 1024 * 1024
# The maximum size of a message. The largest messages are a thousand affinity entries, about 100 KB,
# and log lines.
_MAX_FRAME_BYTES = 2 * 1024 * 1024
# The value from asm-generic/socket.h, which Python's socket module lacks.
_SO_COOKIE = 57
_COOKIE = struct.Struct("=Q")
_PROTOCOLS = {
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): Protocol.TCP,
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): Protocol.UDP,
}

_Key = tuple[Protocol, SocketAddress]


class PreviousWorkers:
    """The workers of the previous control process, and copies of their sockets.

    Args:
        socks: Connections to these workers, which this object closes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socks: Iterable[Prover]) -> None:
        self.kept: dict[str, socket.socket] = {}
        """Sockets that the workers kept, by name; the caller may remove and close them."""
        self.on_entries: Callable[[AffinityEntries], None] = lambda _entries: None
        """Called with a Service port's affinity entries that arrive after :meth:`take_entries`."""
        self.on_drain: Callable[[], None] = lambda: None
        """Called once the workers have been ordered to drain."""
        self.ports: frozenset[int] = frozenset()
        """Ports on which workers accept clients of the previous control process's Service ports."""
        self._loop = loop
        self._workers = [_PreviousProcess(loop, sock, self) for sock in socks]
        self._max_sockets = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE)
        """How many sockets all workers of the previous control process may hand over together."""
        self._sockets: dict[_Key, list[tuple[int, socket.socket]]] = {}
        """The sockets by key, each with the index of the worker for which it was opened."""
        self._late = 0
        """The number of workers that haven't handed over all their sockets."""
        self._entries: dict[str, list[AffinityEntries]] = {}
        self._taken: set[str] = set()
        """The Service ports whose affinity entries have been taken."""

    def __len__(self) -> int:
        return len(self._workers)

    async def adopt(self, within_s: float = ANSWER_S) -> int:
        """Wait up to ``within_s`` for workers' sockets; return how many are for clients."""
        if not self._workers:
            return 0
        await asyncio.wait([worker.handed_over for worker in self._workers], timeout=within_s)
        for worker in self._workers:
            worker.is_late = True
        cookies: set[int] = set()
        refused = 0
        handed = [(*each, worker) for worker in self._workers for each in worker.sockets]
        self._late = sum(not worker.handed_over.done() for worker in self._workers)
        for index, sock, worker in sorted(handed, key=itemgetter(0)):
            key, cookie = _key(sock), _cookie(sock)
            if key is None or cookie in cookies or not worker.is_near(sock):
                refused += 1
                sock.close()
                continue
            cookies.add(cookie)
            self._sockets.setdefault(key, []).append((index, sock))
        for worker in self._workers:
            worker.sockets.clear()
            for name, sock in worker.kept.items():
                if not (is_for_netfilter(sock) and worker.is_near(sock)):
                    refused += 1
                    sock.close()
                elif name in self.kept:
                    sock.close()
                else:
                    self.kept[name] = sock
            worker.kept.clear()
        if refused:
            _log.error(
                "ignored invalid sockets from previous workers",
                extra={"sockets": refused},
            )
        self.ports = frozenset(at.port for _, at in self._sockets)
        return sum(map(len, self._sockets.values()))

    def take(self, protocol: Protocol, at: SocketAddress) -> list[socket.socket | None]:
        """Remove and return an address's sockets, in the kernel's order; the caller closes them.

        None marks a socket that a worker hasn't handed over: when that worker drains, the socket
        that was opened last takes its index.
        """
        found = self._sockets.pop((protocol, at), [])
        by_index = dict(found)
        if not found or len(by_index) < len(found):
            # Workers of several control processes have separate sockets for the same index, so
            # return all of them.
            return [sock for _, sock in found]
        if min(by_index) >= 0 and max(by_index) < len(found) + self._late:
            return [by_index.get(index) for index in range(len(found) + self._late)]
        # The other sockets were closed when their workers exited.
        return [by_index[index] for index in order_left(by_index)]

    def take_entries(self, label: str) -> list[AffinityEntries]:
        """Remove and return a Service port's affinity entries; later ones go to ``on_entries``."""
        self._taken.add(label)
        return self._entries.pop(label, [])

    @property
    def entries_share(self) -> int:
        """The maximum number of entries per worker: a new worker receives all workers' entries."""
        return MAX_ENTRIES // len(self._workers)

    def limit_sockets(self) -> None:
        """If there are too many sockets, stop adopting the worker that sent the most sockets."""
        if sum(worker.count for worker in self._workers) > self._max_sockets:
            most = max(self._workers, key=lambda worker: worker.count)
            most.distrust(f"{most.count} sockets")

    def add_entries(self, entries: AffinityEntries) -> None:
        """Pass affinity entries on, or store them until :meth:`take_entries`."""
        if entries.label in self._taken:
            self.on_entries(entries)
        else:
            self._entries.setdefault(entries.label, []).append(entries)

    async def all_entries(self, within_s: float = PINS_S) -> None:
        """Wait up to ``within_s`` for the affinity entries of workers that have handed over."""
        waiting = [worker.pins_sent for worker in self._workers if worker.handed_over.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)

    def drain(self, seconds: float) -> None:
        """Order the workers to stop accepting, and to reset open connections after ``seconds``.

        Closes sockets that weren't taken. The connection to a worker that hasn't answered stays
        open until the worker answers.
        """
        self.ports = frozenset()
        self._dismiss(Drain(seconds))
        self.on_drain()

    def forget(self, worker: _PreviousProcess) -> None:
        """Forget a worker that has received its last order, or has exited. Idempotent."""
        if worker in self._workers:
            self._workers.remove(worker)

    def end(self) -> None:
        """Order workers to reset connections and exit; an earlier order to drain stays in effect.

        Closes the same sockets as :meth:`drain`. A slow worker receives the order once it answers.
        """
        self._dismiss(End())

    async def answered(self, within_s: float) -> int:
        """Wait until all workers have answered and received their order, or ``within_s`` is over.

        Call it after :meth:`drain` or :meth:`end`. Returns the number of workers without an answer,
        which serve after :meth:`close` until another process controls them.
        """
        if late := [worker.handed_over for worker in self._workers]:
            await asyncio.wait(late, timeout=within_s)
        return len(self._workers)

    def _dismiss(self, order: Drain | End) -> None:
        """Send all workers their last order; keep only connections to workers without an answer."""
        for worker in tuple(self._workers):
            worker.dismiss(order)
        late = [worker for worker in self._workers if not worker.handed_over.done()]
        self._workers = [worker for worker in self._workers if worker not in late]
        self.close()
        self._workers = late

    def close(self) -> None:
        """Close everything that wasn't taken. Idempotent."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        for socks in self._sockets.values():
            for _, sock in socks:
                sock.close()
        self._sockets.clear()
        self._entries.clear()
        while self.kept:
            self.kept.popitem()[1].close()


class _PreviousProcess:
    """One worker of the previous control process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: Prover, owner: PreviousWorkers
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._entries = 0
        """The number of affinity entries that the worker has sent."""
        self._namespace = _namespace(sock)
        self.sockets: list[tuple[int, socket.socket]] = []
        """Each socket with the index of the worker for which it was opened."""
        self.kept: dict[str, socket.socket] = {}
        self.handed_over: asyncio.Future[None] = loop.create_future()
        """Done once no more sockets will arrive."""
        self.pins_sent: asyncio.Future[None] = loop.create_future()
        """Done once no more affinity entries will arrive."""
        self._timer: asyncio.TimerHandle | None = None
        name = sock.getpeername()
        self._name = name.decode() if isinstance(name, bytes) else ""
        """The name of the worker's socket; empty if this process can't connect again."""
        self.is_late = False
        """Whether it is too late to adopt further sockets: they are closed on arrival, and this
        process connects to the worker less often."""
        self._skipped = False
        self._order: Drain | End | None = None
        """The order to send once the worker answers."""
        self._connect(sock)

    def close(self) -> None:
        self.channel.close()
        self._close_sockets()
        if not self.handed_over.done():
            self.handed_over.cancel()
        self._stop_reading()

    def dismiss(self, order: Drain | End) -> None:
        """Send the worker its last order once its sockets have arrived or are no longer expected.

        Only the first such order counts.
        """
        self._order = self._order or order
        if self.handed_over.done():
            self.channel.send(self._order)

    def _connect(self, sock: Prover) -> None:
        """Request the worker's sockets over a new connection."""
        self.channel = Asker[FromWorker](
            self._loop,
            sock,
            reads=FromWorker,
            receive=self._receive,
            lost=self._on_lost,
            unproved=self._on_unproved,
            unknown=self._on_unknown,
            max_frame_bytes=_MAX_FRAME_BYTES,
        )

    def _connect_again(self) -> None:
        self._timer = None
        try:
            self._connect(abstract_sockets.connect(self._name))
        except (ConnectionRefusedError, PermissionError):
            # The worker has exited, or another process listens on its name.
            self._stop()
        except OSError:
            # The worker's queue is full, or no descriptor is left.
            self._try_later()

    def _try_later(self) -> None:
        after_s = _LATE_AGAIN_S if self.is_late else _AGAIN_S
        self._timer = self._loop.call_later(after_s, self._connect_again)

    def is_near(self, sock: socket.socket) -> bool:
        return _namespace(sock) == self._namespace

    def _receive(self, message: FromWorker, socks: list[socket.socket]) -> None:
        if isinstance(message, AffinityEntries):
            self._receive_entries(message)
        elif isinstance(message, AffinityEntriesSent):
            self._stop_reading()
        elif isinstance(message, HandedOver) and len(socks) >= len(message.kept):
            if not self.is_late:
                self._receive_sockets(message, socks)
                socks = []
            self._note_handed_over(is_last=message.is_last)
        for sock in socks:
            sock.close()
        self._limit_bytes()

    def _limit_bytes(self) -> None:
        if self.channel.read_bytes > _MAX_READ_BYTES:
            self.distrust(f"more than {_MAX_READ_BYTES} bytes")

    def _receive_sockets(self, message: HandedOver, socks: list[socket.socket]) -> None:
        first_kept = len(socks) - len(message.kept)
        self.sockets += [(message.worker, sock) for sock in socks[:first_kept]]
        for name, sock in zip(message.kept, socks[first_kept:], strict=True):
            if name in self.kept:
                self.kept[name].close()
            self.kept[name] = sock
        self._owner.limit_sockets()

    def _note_handed_over(self, *, is_last: bool) -> None:
        if is_last and not self.handed_over.done():
            if self._order is not None:
                self._stop()
                return
            self.handed_over.set_result(None)
            self._timer = self._loop.call_later(PINS_S, self._stop_reading)

    def _receive_entries(self, message: AffinityEntries) -> None:
        """Pass on affinity entries, up to the worker's share."""
        left = self._owner.entries_share - self._entries
        # An empty message also costs memory, so it counts as an entry.
        self._entries += max(1, len(message.entries))
        if left > 0:
            self._owner.add_entries(AffinityEntries(message.label, message.entries[:left]))
        elif self.handed_over.done():
            self._stop_reading()

    def distrust(self, cause: str) -> None:
        """Stop reading, and close the worker's sockets; the worker may still receive an order."""
        _log.error(
            "not adopting a previous worker that exceeded a limit: %(cause)s",
            extra={"cause": cause},
        )
        self._close_sockets()
        self._stop()

    def _close_sockets(self) -> None:
        for sock in (*(sock for _, sock in self.sockets), *self.kept.values()):
            sock.close()
        self.sockets.clear()
        self.kept.clear()

    @property
    def count(self) -> int:
        return len(self.sockets) + len(self.kept)

    def _stop(self) -> None:
        if not self.handed_over.done():
            self.handed_over.set_result(None)
        self._stop_reading()
        if self._order is not None:
            self.channel.send(self._order)
            self.close()
            self._owner.forget(self)

    def _stop_reading(self) -> None:
        """Stop reading because everything has arrived, or because the rest would be too late."""
        self.channel.stop_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.pins_sent.done():
            self.pins_sent.set_result(None)

    def _on_unproved(self, cause: OSError) -> None:
        _log.error(
            "cannot adopt a previous worker because this process cannot prove CAP_NET_ADMIN: "
            "%(cause)s",
            extra={"cause": cause.strerror},
        )
        self._stop()

    def _on_unknown(self, cause: str) -> None:
        if not self._skipped:
            self._skipped = True
            _log.warning(
                "previous worker sent a message unknown to this version, skipping it: %(cause)s",
                extra={"cause": cause},
            )
        self._limit_bytes()

    def _on_lost(self, malformed: str) -> None:
        if malformed:
            _log.error(
                "previous worker sent a malformed message, reading no more from it: %(cause)s",
                extra={"cause": malformed},
            )
        elif self._name and not (self.count or self.handed_over.done()):
            self._try_later()
            return
        self._stop()


def _key(sock: socket.socket) -> _Key | None:
    """Return the protocol and address that a socket serves; None if it can't serve clients."""
    with contextlib.suppress(OSError, KeyError):
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        protocol = _PROTOCOLS[sock.type, sock.proto]
        name = sock.getsockname()
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if name[1] and (listens or protocol is Protocol.UDP):
            return protocol, SocketAddress(name[0], name[1])
    return None


def _cookie(sock: socket.socket) -> int:
    """Return the kernel's cookie of a socket, which is the same for all copies.

    Source: SO_COOKIE, since Linux 4.12.
    """
    return _number(sock, _SO_COOKIE)


def _namespace(sock: socket.socket) -> int:
    """Return the cookie of a socket's network namespace; 0 if the kernel has no such cookies."""
    try:
        return _number(sock, SO_NETNS_COOKIE)
    except OSError:
        return 0


def _number(sock: socket.socket, option: int) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, option, _COOKIE.size)
    return int(_COOKIE.unpack(raw)[0])
