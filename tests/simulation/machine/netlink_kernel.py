"""The kernel's side of netlink: sockets of its subsystems, multicast, time and failures.

A subsystem handles the datagrams that programs send to it. Time passes only while a socket waits
for a datagram.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket as _socket
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol

from .netlink_sockets import Listing, NetlinkSocket

ROUTE, NETFILTER = 0, 12
_BUFFER_BYTES = 425_984
# This makes all times differ, so that a change is later than the listing before it.
_TICK_S = 1e-9


class Subsystem(Protocol):
    """A part of the kernel that handles the netlink requests of one protocol."""

    def receive(self, sock: NetlinkSocket, data: bytes) -> None:
        """Handle a datagram; answer on the socket."""

    def forget(self, sock: NetlinkSocket) -> None:
        """Called when a socket's last copy is closed."""


class NetlinkKernel:
    """One network namespace's netlink.

    Args:
        now: Returns monotonic seconds.
        rng: Decides how listings are divided, and when events arrive.
        wait_until: Advances the time; by default, only the clock of the sockets.
    """

    def __init__(
        self,
        now: Callable[[], float],
        rng: Random,
        wait_until: Callable[[float], None] | None = None,
    ) -> None:
        self._now = now
        self._wait = wait_until
        self._rng = rng
        self._ahead_s = 0.0
        self._ports = itertools.count(1001)
        self._subsystems: dict[int, Subsystem] = {}
        self.sockets: list[NetlinkSocket] = []
        self.calls = 0
        self.is_privileged = True
        self.send_buffer_bytes = _BUFFER_BYTES
        self.part_messages = 30
        """The maximum number of messages in a datagram of a listing."""
        self.event_calls = 2
        """The maximum number of system calls by which events are delayed."""
        self.slow_answers: list[float] = []
        """The delays of the next answers in seconds, the next one last."""
        self.listing_cpu_s = 0.0
        """The CPU time that a listing of links, addresses or routes takes."""
        self._cpu_s = 0.0
        self.lost_events = 0
        """The number of next events that overflow a socket's buffer."""
        self.between: Callable[[], None] = lambda: None
        """Called within each system call, for actions of other programs."""
        self._is_between = False
        self.opened: Callable[[NetlinkSocket], None] = lambda _sock: None
        """Called with each socket that is opened."""
        self.next_sockets: list[int] = []
        """Error numbers for the sockets opened next, the next one last; 0 for no error."""

    def add(self, protocol: int, subsystem: Subsystem) -> None:
        """Add the part of the kernel that handles a protocol."""
        self._subsystems[protocol] = subsystem

    def socket(self, family: int, _kind: int = 0, proto: int = 0) -> Any:
        if self.next_sockets and (code := self.next_sockets.pop()):
            raise OSError(code, os.strerror(code))
        if family != _socket.AF_NETLINK:
            return ProbeSocket(self, family)
        if proto not in self._subsystems:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        sock = NetlinkSocket(self, proto)
        self.sockets.append(sock)
        self.opened(sock)
        return sock

    def now(self) -> float:
        return self._now() + self._ahead_s

    def clock(self) -> float:
        """Return the time, which is later than in all previous calls."""
        self._ahead_s += _TICK_S
        return self.now()

    def cpu_clock(self) -> float:
        """Return the CPU time of a thread whose every listing takes ``listing_cpu_s``."""
        self._cpu_s += self.listing_cpu_s
        return self._cpu_s

    def wait_until(self, when: float) -> None:
        """Advance the time to ``when``."""
        if self._wait is not None:
            self._wait(when)
        else:
            self._ahead_s += max(0.0, when - self.now())

    def next_port(self) -> int:
        return next(self._ports)

    def enter(self) -> None:
        """Begin a system call, during which other programs may act."""
        self.calls += 1
        if not self._is_between:
            self._is_between = True
            try:
                self.between()
            finally:
                self._is_between = False

    def receive(self, sock: NetlinkSocket, data: bytes) -> None:
        self._subsystems[sock.proto].receive(sock, data)

    def forget(self, sock: NetlinkSocket) -> None:
        if sock in self.sockets:
            self.sockets.remove(sock)
            self._subsystems[sock.proto].forget(sock)

    def forget_all(self) -> None:
        """Drop all sockets, subsystems and callbacks of a run."""
        self._now = float
        self.between, self.opened = lambda: None, lambda _sock: None
        self.sockets.clear()
        self._subsystems.clear()

    def answer_delay(self) -> float:
        return self.slow_answers.pop() if self.slow_answers else 0.0

    def loses_event(self) -> bool:
        if self.lost_events:
            self.lost_events -= 1
            return True
        return False

    def part(self, listing: Listing) -> bytes:
        most = self._rng.randint(1, self.part_messages)
        return listing.part(most, done_apart=self._rng.random() < 0.3)

    def multicast(self, protocol: int, group: int, datagrams: list[bytes], sender: int = 0) -> None:
        """Send events to all sockets that have subscribed to a group.

        Events that the product's own socket causes can be read before its system call returns.
        """
        is_own = any(sock.port == sender for sock in self.sockets)
        after_call = 0 if is_own else self.calls + self._rng.randint(0, self.event_calls)
        for sock in self.sockets:
            if sock.proto == protocol and group in sock.groups:
                for data in datagrams:
                    sock.put_event(data, after_call=after_call)

    @property
    def addresses(self) -> set[str]:
        """The addresses that datagram sockets can be bound to."""
        routes: Any = self._subsystems[ROUTE]
        found: set[str] = routes.local_addresses()
        return found


class ProbeSocket:
    """Simulates a datagram socket that is used only to find a node's addresses."""

    def __init__(self, kernel: NetlinkKernel, family: int) -> None:
        self._kernel = kernel
        self._is_ipv6 = family == _socket.AF_INET6
        self._name = "::" if self._is_ipv6 else "0.0.0.0"

    def bind(self, address: tuple[str, int]) -> None:
        if address[0] not in self._kernel.addresses:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def connect(self, _address: tuple[str, int]) -> None:
        """Choose the first address that isn't loopback, as if the default route had it."""
        for ip in sorted(self._kernel.addresses):
            if (":" in ip) == self._is_ipv6 and ip not in ("::1", "127.0.0.1"):
                self._name = ip
                return
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    def getsockname(self) -> tuple[str, int]:
        return self._name, 0

    def close(self) -> None:
        pass

    def __enter__(self) -> ProbeSocket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def socket_module(kernel: NetlinkKernel) -> SimpleNamespace:
    """Return the replacement for the module ``socket``."""
    return SimpleNamespace(**{**vars(_socket), "socket": kernel.socket})
