"""The two kernels of the contract: the simulated one and the real one, with the same methods."""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import select
import struct
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol

from tests.descriptors import descriptors_left
from userspace_proxy.kernel.listening_sockets import IP_RECVTTL, IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO
from userspace_proxy.kernel.socket_options import IP_PKTINFO, set_ip_option

from ..unit.dataplane.peers import SilentEndpoint
from .addresses import ipv6_of
from .kernel import Kernel
from .network import ANSWERS, REFUSES, SILENT, Address, Network
from .sockets import SimulatedSocket
from .streams import LISTENING, Stream
from .timeline import Timeline

_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLRDHUP
_SIOCOUTQ = 0x5411
_SMALL_BYTES = 16 * 1024
_DEADLINE_TURNS = 30_000
_PAUSE_S = 0.002
_QUIET_S = 0.03
_PIPES = "pipe2", "read", "close", "splice", "fcntl"


class System(Protocol):
    """The interface to a kernel for contract tests."""

    os: Any
    """A module with ``pipe2``, ``read``, ``close`` and ``splice``."""

    def socket(self, kind: int) -> Any:
        """Return a new non-blocking socket."""

    def socket_of(self, fd: int) -> Any:
        """Return the socket of an accepted descriptor."""

    def epoll(self) -> Any:
        """Return a new epoll."""

    def events_of(self, sock: Any) -> int:
        """Return the events that a poll reports."""

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, while simulated time passes."""

    def settle(self) -> None:
        """Wait until all pending events have happened."""

    def listener(self) -> tuple[Any, Address]:
        """Return a listening socket and its address."""

    def silent_address(self) -> Address:
        """Return an address that answers no dial."""

    def no_descriptors(self) -> contextlib.AbstractContextManager[None]:
        """Leave no descriptor free within the block."""

    def unacknowledged(self, sock: Any) -> int:
        """Return the value of SIOCOUTQ."""

    def send_urgent(self, sock: Any, data: bytes) -> None:
        """Send bytes, the last of which is urgent."""

    family: int
    """The sockets' family; IPv4 unless a test changes it."""

    def receiver(self, *, is_wildcard: bool = False) -> tuple[Any, Address]:
        """Return a bound datagram socket that reports hop limits, and its address.

        A socket that is bound to the wildcard address also reports destination addresses.
        """

    def refusing_address(self) -> Address:
        """Return an address that refuses datagrams."""

    def dial(self, address: Address) -> Any:
        """Return a connected socket."""

    def accept(self, listener: Any) -> tuple[Any, Address]:
        """Return the next client of a listener, and its address."""

    def pair(self) -> tuple[Any, Any]:
        """Return both ends of a connection."""

    def drain(self, sock: Any) -> None:
        """Read all available bytes, and bytes that follow immediately."""

    def close(self) -> None:
        """Close all descriptors of the test."""


class _Common:
    """The parts that both kernels share."""

    family: int = _socket.AF_INET

    def _any(self) -> str:
        return "::" if self.family == _socket.AF_INET6 else "0.0.0.0"

    def dial(self: Any, address: Address) -> Any:
        sock = self.socket(_socket.SOCK_STREAM)
        sock.connect_ex(address)
        self.until(lambda: self.events_of(sock) & select.EPOLLOUT)
        return sock

    def accept(self: Any, listener: Any) -> tuple[Any, Address]:
        self.until(lambda: self.events_of(listener))
        fd, address = listener._accept()
        sock = self.socket_of(fd)
        sock.setblocking(False)
        return sock, address

    def pair(self: Any) -> tuple[Any, Any]:
        listener, address = self.listener()
        right = self.dial(address)
        left, _ = self.accept(listener)
        return left, right

    def drain(self: Any, sock: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 20):
                pass

    def unacknowledged(self: Any, sock: Any) -> int:
        queued = bytearray(4)
        self.fcntl.ioctl(sock.fileno(), _SIOCOUTQ, queued)
        return int(struct.unpack("i", queued)[0])


class RealSystem(_Common):
    """The real kernel, on loopback."""

    def __init__(self) -> None:
        self.os = os
        self.fcntl = fcntl
        self._open: list[Any] = []

    def socket(self, kind: int) -> Any:
        sock = _socket.socket(self.family, kind | _socket.SOCK_NONBLOCK)
        sock.setblocking(False)
        for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
            sock.setsockopt(_socket.SOL_SOCKET, option, _SMALL_BYTES)
        self._open.append(sock)
        return sock

    def socket_of(self, fd: int) -> Any:
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fd)
        self._open.append(sock)
        return sock

    def epoll(self) -> Any:
        return select.epoll()

    def events_of(self, sock: Any) -> int:
        poll = select.poll()
        poll.register(sock.fileno(), _ALL)
        return dict(poll.poll(0)).get(sock.fileno(), 0)

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(_DEADLINE_TURNS):
            if condition():
                return
            select.select([], [], [], _PAUSE_S)
        raise AssertionError("the condition never held")

    def settle(self) -> None:
        select.select([], [], [], _QUIET_S)

    def listener(self) -> tuple[Any, Address]:
        sock = self.socket(_socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        return sock, sock.getsockname()

    def silent_address(self) -> Address:
        silent = SilentEndpoint()
        self._open.append(silent)
        return silent.address

    def no_descriptors(self) -> contextlib.AbstractContextManager[None]:
        return descriptors_left(0)

    def send_urgent(self, sock: Any, data: bytes) -> None:
        sock.send(data, _socket.MSG_OOB)

    def receiver(self, *, is_wildcard: bool = False) -> tuple[Any, Address]:
        sock = self.socket(_socket.SOCK_DGRAM)
        set_ip_option(sock, IP_RECVTTL, IPV6_RECVHOPLIMIT)
        if is_wildcard:
            set_ip_option(sock, IP_PKTINFO, IPV6_RECVPKTINFO)
        own = "::1" if self.family == _socket.AF_INET6 else "127.0.0.1"
        sock.bind((self._any() if is_wildcard else own, 0))
        return sock, (own, sock.getsockname()[1])

    def refusing_address(self) -> Address:
        sock, address = self.receiver()
        sock.close()
        return address

    def close(self) -> None:
        for each in self._open:
            each.close()


class _ContractHost:
    """Simulates a host that passes dials and datagrams to a simulated socket."""

    def __init__(self, core: Any, behaves: str = ANSWERS, at: str = "") -> None:
        self._core = core
        self._behaves = behaves
        self._at = at

    def behaviour(self) -> str:
        if isinstance(self._core, Stream) and self._core.state != LISTENING:
            return REFUSES
        return self._behaves

    def accept(self, stream: Stream) -> None:
        self._core.queue.append(stream)
        self._core.wake(select.EPOLLIN)

    def receive(self, payload: bytes, source: Address) -> None:
        self._core.receive(payload, source, self._at, 64)


class SimulatedSystem(_Common):
    """The simulated kernel."""

    def __init__(self, *, spurious: float = 0.0) -> None:
        self._timeline = Timeline()
        rng = Random(1)
        self._network = Network(self._timeline, rng)
        self._kernel = Kernel(
            self._network, rng, preemption=0.0, spurious=spurious, pipe_bytes=4096
        )
        self.os = SimpleNamespace(**{name: getattr(self._kernel, name) for name in _PIPES})
        self.fcntl = SimpleNamespace(ioctl=self._kernel.ioctl)
        self._port = 100

    def socket(self, kind: int) -> Any:
        return self._kernel.socket(self.family, kind)

    def socket_of(self, fd: int) -> Any:
        return self._kernel.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fd)

    def epoll(self) -> Any:
        return self._kernel.epoll()

    def events_of(self, sock: Any) -> int:
        return int(sock.core.events())

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(_DEADLINE_TURNS):
            if condition():
                return
            self._timeline.run_until(self._timeline.now + _PAUSE_S)
        raise AssertionError("the condition never held")

    def settle(self) -> None:
        self._timeline.run_until(self._timeline.now + 1.0)

    def _address(self, ip: str, port: int) -> Address:
        return (ipv6_of(ip) if self.family == _socket.AF_INET6 else ip), port

    def _bound(self, kind: int, *, is_wildcard: bool = False) -> tuple[SimulatedSocket, Address]:
        self._port += 1
        address = self._address("10.9.0.1", self._port)
        sock = self._kernel.socket(self.family, kind)
        sock.bind((self._any(), self._port) if is_wildcard else address)
        self._network.hosts[address] = _ContractHost(sock.core, at=address[0])
        return sock, address

    def listener(self) -> tuple[Any, Address]:
        sock, address = self._bound(_socket.SOCK_STREAM)
        sock.listen(8)
        return sock, address

    def silent_address(self) -> Address:
        address = ("10.9.0.2", 1)
        self._network.hosts[address] = _ContractHost(None, SILENT)
        return address

    def refusing_address(self) -> Address:
        address = self._address("10.9.0.3", 1)
        self._network.hosts[address] = _ContractHost(None, REFUSES)
        return address

    @contextlib.contextmanager
    def no_descriptors(self) -> Iterator[None]:
        self._kernel.lacking.add("descriptors")
        yield
        self._kernel.lacking.discard("descriptors")

    def send_urgent(self, sock: Any, data: bytes) -> None:
        sock.core.write(data, is_urgent=True)

    def receiver(self, *, is_wildcard: bool = False) -> tuple[Any, Address]:
        sock, address = self._bound(_socket.SOCK_DGRAM, is_wildcard=is_wildcard)
        if is_wildcard:
            set_ip_option(sock, IP_PKTINFO, IPV6_RECVPKTINFO)  # type: ignore[arg-type]
        return sock, address

    def close(self) -> None:
        assert self._kernel.violations == []
