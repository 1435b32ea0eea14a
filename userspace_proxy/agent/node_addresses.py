"""The addresses that this node's interfaces have, followed as they come and go.

    kernel ──RTM_NEWADDR, RTM_DELADDR──▶ event socket ──▶ RTM_GETADDR dump ──▶ current

Rule 1: events only say that something changed; what is there is always read in full, so a lost
event costs nothing.
Rule 2: the network namespace is that of the thread that makes the object.

Source: rtnetlink(7), netlink(7), include/uapi/linux/if_addr.h.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator

from ..errors import SteeringError

_log = logging.getLogger("userspace_proxy.agent")

_NETLINK_ROUTE = 0
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLM_F_REQUEST = 0x001
_NLM_F_DUMP = 0x300
# The addresses changed while they were listed.
_NLM_F_DUMP_INTR = 0x010
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
# nlmsghdr: length, type, flags, sequence number, port.
_HEADER = struct.Struct("=IHHII")
# ifaddrmsg: family, prefix length, flags, scope, interface.
_ADDRESS = struct.Struct("=BBBBI")
# rtattr: length, type.
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")

# The kernel never sends more in one piece.
_PIECE_BYTES = 65536
# The kernel makes its answer while we read it, so a second means that it doesn't come.
_ANSWER_WITHIN_S = 1.0
# How often a listing is begun anew because addresses changed meanwhile.
_TRIES = 10
_RETRY_S = 1.0

_sequence = itertools.cycle(range(1, 1 << 32))
"""Numbers of requests; any will do that the one before hadn't."""


class NodeAddresses:
    """The addresses of this node, as they are now.

    Args:
        loop: Watches the kernel's events.
        changed: Called in the loop when :attr:`current` has become another one.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    current: tuple[str, ...]
    """Those of all interfaces and both families in canonical form, sorted as text. Loopback is
    included. IPv6 link-local ones are left out, as nobody dials them without naming the
    interface, and those that the kernel doesn't answer at yet, or at all (duplicate address
    detection)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._retry: asyncio.TimerHandle | None = None
        self._dumps: socket.socket | None = None
        try:
            self._events = _open(_RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR)
            self._events.setblocking(False)
            self._dumps = _open()
            # Subscribed before the first listing, so nothing falls between the two.
            self.current = read_addresses(self._dumps)
        except OSError as exc:
            self._close_sockets()
            raise SteeringError(f"cannot list this node's addresses: {exc.strerror}") from exc
        loop.add_reader(self._events.fileno(), self._look)

    def close(self) -> None:
        """Stop watching; ``current`` stays as it is. Idempotent."""
        if self._events.fileno() >= 0:
            self._loop.remove_reader(self._events.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._close_sockets()

    def _look(self) -> None:
        """Take the events away, and see what they are about."""
        while True:
            try:
                self._events.recv(_PIECE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: events were lost, so there were some.
                continue
        self._read_again()

    def _read_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        assert self._dumps is not None
        try:
            addresses = read_addresses(self._dumps)
        except OSError as exc:
            _log.warning("cannot list this node's addresses", extra={"cause": exc.strerror})
            self._retry = self._loop.call_later(_RETRY_S, self._read_again)
            return
        if addresses != self.current:
            self.current = addresses
            self._changed()

    def _close_sockets(self) -> None:
        for sock in (getattr(self, "_events", None), self._dumps):
            if sock is not None:
                sock.close()


def read_addresses(sock: socket.socket) -> tuple[str, ...]:
    """List the addresses of a netlink socket's namespace, as :attr:`NodeAddresses.current`.

    Args:
        sock: A blocking one of NETLINK_ROUTE, subscribed to nothing.

    Raises:
        OSError: The kernel refuses or is silent.
    """
    for _ in range(_TRIES):
        found = _dump(sock, next(_sequence))
        if found is not None:
            return tuple(sorted(found))
    raise OSError(0, f"they changed during each of {_TRIES} listings")


def _open(groups: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
    try:
        sock.settimeout(_ANSWER_WITHIN_S)
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def _dump(sock: socket.socket, sequence: int) -> set[str] | None:
    """Return all addresses, or None if they changed while they were listed."""
    request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    size = _HEADER.size + len(request)
    sock.send(_HEADER.pack(size, _RTM_GETADDR, flags, sequence, 0) + request)
    found: set[str] = set()
    is_whole = True
    while True:
        for kind, flags, number, body in _messages(sock.recv(_PIECE_BYTES)):
            # An answer to a request that we gave up is nothing to this one.
            if number != sequence:
                continue
            is_whole = is_whole and not flags & _NLM_F_DUMP_INTR
            if kind == _NLMSG_DONE:
                return found if is_whole else None
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            if kind == _RTM_NEWADDR and (ip := _read(body)):
                found.add(ip)


def _messages(piece: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and body of each netlink message."""
    offset = 0
    while offset + _HEADER.size <= len(piece):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(piece, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, piece[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _read(body: bytes) -> str:
    """Return the address of an RTM_NEWADDR; empty for one that is left out."""
    flags: int = _ADDRESS.unpack_from(body)[2]
    attributes = dict(_attributes(body))
    if _IFA_FLAGS in attributes:
        # The header has room for eight of them.
        flags = _NUMBER.unpack_from(attributes[_IFA_FLAGS])[0]
    is_tentative = flags & _IFA_F_TENTATIVE and not flags & _IFA_F_OPTIMISTIC
    # Where there is a peer, IFA_ADDRESS is the peer's, in both families.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if packed is None or is_tentative or flags & _IFA_F_DADFAILED:
        return ""
    ip = ipaddress.ip_address(packed)
    return "" if ip.version == 6 and ip in _LINK_LOCAL else str(ip)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    offset = _ADDRESS.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind, body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
