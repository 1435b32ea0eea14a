"""A simulated UDP socket with a bounded queue, errors reported once, and ancillary data.

Source: net/ipv4/udp.c, udp_recvmsg(), udp_sendmsg(), udp_lib_get_port(); net/ipv4/icmp.c,
icmp_unreach(): only a connected socket gets an error.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from userspace_proxy.kernel.socket_options import IP_RECVERR, IPV6_RECVERR

if TYPE_CHECKING:
    from .network import Network
    from .polling import Item

IN, OUT, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR

IP_TTL, IPV6_HOPLIMIT = 2, 52
_PKTINFO, _PKTINFO6 = 8, 50
# Values of ee_origin of an ICMP error.
_FROM_ICMP, _FROM_ICMP6 = 2, 3

Address = tuple[str, int]


class DatagramSocket:
    """One UDP socket; ``sockets`` binds or connects it for its owner."""

    __slots__ = (
        "dropped",
        "error",
        "errors",
        "hops",
        "inbox",
        "is_ipv6",
        "item",
        "keeps_errors",
        "local",
        "name",
        "network",
        "remote",
        "reports_destination",
        "room",
        "sent",
        "shares_port",
        "tries",
    )

    def __init__(self, network: Network, name: str, *, is_ipv6: bool = False) -> None:
        self.network = network
        self.is_ipv6 = is_ipv6
        self.name = name
        self.local: Address | None = None
        self.remote: Address | None = None
        self.inbox: deque[tuple[bytes, Address, list[tuple[int, int, bytes]]]] = deque()
        self.error = 0
        self.errors: deque[tuple[int, int, int]] = deque()
        """The errno, type and code of each queued ICMP error."""
        self.keeps_errors = False
        self.item: Item | None = None
        self.dropped = 0
        """Datagrams that were dropped because the queue was full."""
        self.hops = 64
        self.reports_destination = False
        self.room = network.inbox_datagrams
        self.sent = 0
        self.tries = 0
        """Calls that send to its peer, including those that fail."""
        self.shares_port = False
        """SO_REUSEADDR; the kernel checks it when another socket is bound."""

    def events(self) -> int:
        """Return the current poll events."""
        return (IN if self.inbox else 0) | (ERR if self.error or self.errors else 0) | OUT

    def take_error(self) -> int:
        number, self.error = self.error, 0
        return number

    def fail(self, number: int, kind: int = 3, code: int = 3) -> None:
        """Record an ICMP error, which the next call reports; the default is port unreachable."""
        if self.remote is None or not (self.keeps_errors or number == errno.ECONNREFUSED):
            return
        self.error = number
        if self.keeps_errors:
            self.errors.append((number, kind, code))
        if self.item is not None:
            self.item.wake(ERR)

    def read_error(self) -> list[tuple[int, int, bytes]]:
        """Return the next error of the queue; reading the last one clears the pending error."""
        if not self.errors:
            raise BlockingIOError(errno.EAGAIN, "no error")
        number, kind, code = self.errors.popleft()
        self.error = self.errors[0][0] if self.errors else 0
        origin = _FROM_ICMP6 if self.is_ipv6 else _FROM_ICMP
        error = struct.pack("=IBBB", number, origin, kind, code)
        if self.is_ipv6:
            return [(_socket.IPPROTO_IPV6, IPV6_RECVERR, error)]
        return [(_socket.IPPROTO_IP, IP_RECVERR, error)]

    def receive(self, payload: bytes, source: Address, at: str, hops: int) -> None:
        """Queue a datagram from the network; drop it if the queue is full."""
        if len(self.inbox) >= self.room:
            self.dropped += 1
            return
        level = _socket.IPPROTO_IPV6 if self.is_ipv6 else _socket.IPPROTO_IP
        option = IPV6_HOPLIMIT if self.is_ipv6 else IP_TTL
        ancillary = [(int(level), option, struct.pack("=i", hops))]
        if self.reports_destination:
            ancillary.insert(0, self._destination(at))
        self.inbox.append((payload, source, ancillary))
        if self.item is not None:
            self.item.wake(IN)

    def _destination(self, at: str) -> tuple[int, int, bytes]:
        """Return the control message with the address to which a datagram was sent."""
        if self.is_ipv6:
            info = _socket.inet_pton(_socket.AF_INET6, at) + struct.pack("=I", 1)
            return _socket.IPPROTO_IPV6, _PKTINFO6, info
        ip = _socket.inet_aton(at)
        return _socket.IPPROTO_IP, _PKTINFO, struct.pack("=I4s4s", 1, ip, ip)

    def read(self) -> tuple[bytes, Address, list[tuple[int, int, bytes]]]:
        """Return the next datagram, its source and ancillary data, or raise the pending error."""
        if self.error:
            number = self.take_error()
            raise OSError(number, os.strerror(number))
        if not self.inbox:
            raise BlockingIOError(errno.EAGAIN, "no datagram")
        return self.inbox.popleft()

    def write(self, payload: Any, to: Address, source_ip: str | None = None) -> int:
        """Send a datagram, or raise the pending error."""
        if self.error:
            number = self.take_error()
            raise OSError(number, os.strerror(number))
        self.sent += 1
        self.network.carry_datagram(self, bytes(payload), to, source_ip)
        return len(payload)

    def close(self) -> bool:
        """Close the socket, so that it no longer receives."""
        self.item = None
        self.network.forget_datagrams(self)
        return False
