"""Adopts the sockets of workers that outlived their control process.

    worker of the last control process ──HandedOver──▶ Predecessors ──take──▶ ListeningSockets
                                       ◀──Drain once this one's workers serve──

A worker has this process prove CAP_NET_ADMIN before it hands over (``plane.candidates``).

Rule 1: predecessors serve until they are told to drain: in between, both accept from the same
queues, so no client is refused, reset or left in a queue.
Rule 2: a worker handles untrusted bytes, so what it sends is examined: only sockets of this network
namespace are taken that listen (TCP) or are bound (UDP), each once, and of those that it kept only
netlink sockets for nftables.
Rule 3: it may be of another version, so messages that this one doesn't know are skipped.
Rule 4: without an answer in time, a predecessor is left alone: it drains, or ends, by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterable

from ..kernel import net_admin_proof
from ..kernel.netlink.sockets import NETLINK_NETFILTER
from ..log_fields import FieldLogger
from ..model import Protocol, SocketAddress
from .channel import Channel
from .messages import Drain, End, FromWorker, HandedOver, HandOver, Pins, Prove, ToWorker

_log = FieldLogger("userspace_proxy.dataplane")

# Ten thousand sockets take 0.1 s; a worker may be busy.
ANSWER_S = 2.0
# Not in Python's socket module; asm-generic/socket.h. Kernels before 5.14 lack the second.
_SO_COOKIE, _SO_NETNS_COOKIE = 57, 71
_COOKIE = struct.Struct("=Q")
_PROTOCOLS = {
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): Protocol.TCP,
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): Protocol.UDP,
}

_Key = tuple[Protocol, SocketAddress]


class Predecessors:
    """The workers of the last control process, and copies of their sockets.

    Args:
        socks: Connections to them, which this object closes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socks: Iterable[socket.socket]) -> None:
        self.kept: dict[str, socket.socket] = {}
        """Sockets that they kept, by name; the caller may remove and close them."""
        self._loop = loop
        self._workers = [_Predecessor(loop, sock) for sock in socks]
        self._sockets: dict[_Key, list[socket.socket]] = {}
        self._pins: dict[str, list[Pins]] = {}

    def __len__(self) -> int:
        return len(self._workers)

    async def adopt(self, within_s: float = ANSWER_S) -> int:
        """Get copies of their sockets; return how many there are."""
        if not self._workers:
            return 0
        await asyncio.wait([worker.handed_over for worker in self._workers], timeout=within_s)
        cookies: set[int] = set()
        refused = 0
        for worker in sorted(self._workers, key=lambda worker: worker.index):
            for sock in worker.sockets:
                key, cookie = _key(sock), _cookie(sock)
                if key is None or cookie in cookies or not worker.is_near(sock):
                    refused += 1
                    sock.close()
                    continue
                cookies.add(cookie)
                self._sockets.setdefault(key, []).append(sock)
            worker.sockets.clear()
            for pins in worker.pins:
                self._pins.setdefault(pins.label, []).append(pins)
            for name, sock in worker.kept.items():
                if not (_may_own_tables(sock) and worker.is_near(sock)):
                    refused += 1
                    sock.close()
                elif name in self.kept:
                    sock.close()
                else:
                    self.kept[name] = sock
            worker.kept.clear()
        if refused:
            _log.error(
                "workers of the last run handed over sockets that no worker is given, ignored",
                extra={"sockets": refused},
            )
        return sum(map(len, self._sockets.values()))

    def take(self, protocol: Protocol, at: SocketAddress) -> list[socket.socket]:
        """Return the sockets at an address in the order of workers; the caller closes them."""
        return self._sockets.pop((protocol, at), [])

    def take_pins(self, label: str) -> list[Pins]:
        """Return the pins of a Service port's clients."""
        return self._pins.pop(label, [])

    def drain(self, seconds: float) -> None:
        """Have them accept nothing more, and reset after so many seconds what is open then."""
        for worker in self._workers:
            worker.channel.send(Drain(seconds))
        self.close()

    def end(self) -> None:
        """Have them reset their connections and exit."""
        for worker in self._workers:
            worker.channel.send(End())
        self.close()

    def close(self) -> None:
        """Close what wasn't taken. Idempotent."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        for socks in self._sockets.values():
            for sock in socks:
                sock.close()
        self._sockets.clear()
        while self.kept:
            self.kept.popitem()[1].close()


class _Predecessor:
    """One worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._sock = sock
        self._namespace = _namespace(sock)
        self.index = 0
        self.sockets: list[socket.socket] = []
        self.kept: dict[str, socket.socket] = {}
        self.pins: list[Pins] = []
        self.handed_over: asyncio.Future[None] = loop.create_future()
        """Has a result once all have arrived, or none will."""
        self.channel = Channel[FromWorker, ToWorker](
            loop,
            sock,
            reads=FromWorker,
            receive=self._receive,
            lost=self._on_lost,
            unknown=self._on_unknown,
        )
        self._skipped = False
        self.channel.send(HandOver())

    def close(self) -> None:
        self.channel.close()
        for sock in (*self.sockets, *self.kept.values()):
            sock.close()
        if not self.handed_over.done():
            self.handed_over.cancel()

    def is_near(self, sock: socket.socket) -> bool:
        """Return whether a socket belongs to this process's network namespace."""
        return _namespace(sock) == self._namespace

    def _receive(self, message: FromWorker, descriptors: list[int]) -> None:
        socks = []
        for descriptor in descriptors:
            try:
                socks.append(socket.socket(fileno=descriptor))
            except OSError:
                os.close(descriptor)
        if isinstance(message, Pins):
            self.pins.append(message)
        elif isinstance(message, Prove) and socks:
            self._prove(socks[0])
        if not isinstance(message, HandedOver) or len(socks) < len(message.kept):
            for sock in socks:
                sock.close()
            return
        self.index = message.worker
        first_kept = len(socks) - len(message.kept)
        self.sockets += socks[:first_kept]
        self.kept.update(zip(message.kept, socks[first_kept:], strict=True))
        if message.is_last and not self.handed_over.done():
            self.handed_over.set_result(None)

    def _prove(self, challenge: socket.socket) -> None:
        try:
            net_admin_proof.answer(challenge, self._sock)
        except OSError as exc:
            _log.error(
                "cannot adopt a worker of the last run without NET_ADMIN: %(cause)s",
                extra={"cause": exc.strerror},
            )
        else:
            self.channel.send(HandOver())

    def _on_unknown(self, cause: str) -> None:
        if not self._skipped:
            self._skipped = True
            _log.warning(
                "a worker of the last run sends messages that this version doesn't know, skipped:"
                " %(cause)s",
                extra={"cause": cause},
            )

    def _on_lost(self, malformed: str) -> None:
        if malformed:
            _log.error(
                "a worker of the last run sent a malformed message: %(cause)s",
                extra={"cause": malformed},
            )
        if not self.handed_over.done():
            self.handed_over.set_result(None)


def _key(sock: socket.socket) -> _Key | None:
    """Return what a socket serves; None if it serves nothing."""
    with contextlib.suppress(OSError, KeyError):
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        protocol = _PROTOCOLS[sock.type, sock.proto]
        name = sock.getsockname()
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if name[1] and (listens or protocol is Protocol.UDP):
            return protocol, SocketAddress(name[0], name[1])
    return None


def _may_own_tables(sock: socket.socket) -> bool:
    """Return whether the kernel's nftables reads a socket's requests.

    In place of the kernel, another process could answer.
    """
    return (sock.family, sock.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER)


def _cookie(sock: socket.socket) -> int:
    """Return the kernel's number of a socket, which all copies share.

    Source: SO_COOKIE, since Linux 4.12.
    """
    return _number(sock, _SO_COOKIE)


def _namespace(sock: socket.socket) -> int:
    """Return the kernel's number of a socket's network namespace; 0 if the kernel has none."""
    try:
        return _number(sock, _SO_NETNS_COOKIE)
    except OSError:
        return 0


def _number(sock: socket.socket, option: int) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, option, _COOKIE.size)
    return int(_COOKIE.unpack(raw)[0])
