"""Finds the user that owns the client's socket of a local connection, or a Unix listener.

Source: sock_diag(7); net/ipv4/inet_diag.c, inet_diag_find_one_icsk(); linux/inet_diag.h;
net/unix/diag.c; linux/unix_diag.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys

from ...model import SocketAddress
from .messages import DUMP, checked, read_attributes, request
from .sockets import NETLINK_SOCK_DIAG, Requests

_BY_FAMILY = 20
# From struct inet_diag_req_v2: family, protocol, and no extensions; all states.
_HEAD = struct.Struct("=BBHI")
# struct inet_diag_sockid: ports and addresses of both ends; any interface, any cookie.
_PORTS = struct.Struct(">HH")
_ANY = struct.pack("=IQ", 0, 2**64 - 1)
# From struct inet_diag_msg, after four bytes: both ports, then addresses, interface, cookie, timer
# and queues, and the user.
_ANSWER = struct.Struct(">4xHH")
_USER = struct.Struct("=64xI")

# struct unix_diag_req: family, protocol, states, any inode, what to show, any cookie.
_UNIX = struct.Struct("=BBxxIIIQ")
_LISTENS = 1 << 10
_SHOW_NAME, _SHOW_USER = 1, 1 << 6
# From struct unix_diag_msg: family and type; attributes follow.
_UNIX_TYPE = struct.Struct("=xB14x")
_NAME, _UNIX_USER = 0, 7


def user_of(client: SocketAddress, server: SocketAddress) -> int | None:
    """Return the uid of a connection's client; None if it isn't found here, or the kernel refuses.

    A socket belongs to the user that opened it. Blocks for a look-up in the kernel's hash table.
    """
    try:
        ips = [_unmapped(client.ip), _unmapped(server.ip)]
        family = socket.AF_INET if ips[0].version == 4 else socket.AF_INET6
        packed = b"".join(ip.packed.ljust(16, b"\0") for ip in ips)
        head = _HEAD.pack(family, socket.IPPROTO_TCP, 0, 2**32 - 1)
        wanted = head + _PORTS.pack(client.port, server.port) + packed + _ANY
        with Requests.open(NETLINK_SOCK_DIAG) as requests:
            return _read_user(requests.ask(request(_BY_FAMILY, 0, wanted)).body, server.port)
    except (OSError, ValueError):
        return None


def user_of_listener(name: bytes) -> int | None:
    """Return the uid of the Unix socket that listens on a name; None if no socket does.

    A socket belongs to the user that opened it.

    Args:
        name: The name; an abstract name begins with a zero byte.

    Raises:
        OSError: The kernel doesn't report the user: before Linux 5.3, or without unix_diag.
    """
    wanted = _UNIX.pack(socket.AF_UNIX, 0, _LISTENS, 0, _SHOW_NAME | _SHOW_USER, 2**64 - 1)
    with Requests.open(NETLINK_SOCK_DIAG) as requests:
        for message in requests.list_all(request(_BY_FAMILY, DUMP, wanted)):
            shown, user = _read_listener(message.body)
            if shown == name:
                if user is None:
                    raise OSError(errno.EOPNOTSUPP, "the kernel doesn't show users of Unix sockets")
                return user
    return None


@checked
def _read_listener(body: bytes) -> tuple[bytes, int | None]:
    """Return a stream socket's name, and its uid if it is reported; empty for other sockets."""
    if _UNIX_TYPE.unpack_from(body)[0] != socket.SOCK_STREAM:
        return b"", None
    found = dict(read_attributes(body, _UNIX_TYPE.size))
    user = found.get(_UNIX_USER)
    return found.get(_NAME, b""), None if user is None else int.from_bytes(user, sys.byteorder)


@checked
def _read_user(body: bytes, port: int) -> int | None:
    # If the client is elsewhere, a local listener may have the same port; a listener has no peer,
    # so compare the peer's port.
    _, other = _ANSWER.unpack_from(body)
    return _USER.unpack_from(body)[0] if other == port else None


def _unmapped(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address; an IPv4-mapped address, as an IPv6 socket shows it, becomes IPv4."""
    address = ipaddress.ip_address(ip)
    return getattr(address, "ipv4_mapped", None) or address
