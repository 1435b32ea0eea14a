"""Shows another process of this network namespace that a process has CAP_NET_ADMIN there.

    verifier   open_challenge(): a netlink socket, whose copy is passed over a connection
    prover     answer(): binds it to a number, and subscribes to a group of netfilter's messages
    verifier   is_answered(): reads number and group from its own copy

Only CAP_NET_ADMIN, in the user namespace that owns the socket's network namespace, may subscribe.
CAP_NET_RAW, which containers often have, doesn't suffice, as it does for SO_MARK and
IP_TRANSPARENT; and in user namespaces it works, as SO_SNDBUFFORCE doesn't.

Rule 1: the verifier opens the socket, so it is of the verifier's network namespace, and no other
process has prepared it.
Rule 2: the number is in the name to which the prover has bound its end of the connection. The
kernel gives a name to one socket of a network namespace at a time, and a bound netlink socket keeps
its number. So a process that passes the challenge on to a privileged one proves nothing, as long as
each number has one name, and the connection had its name before the challenge (``can_prove``).

Source: netlink_bind() in net/netlink/af_netlink.c.
"""

from __future__ import annotations

import errno
import secrets
import socket

from .netlink.sockets import NETLINK_NETFILTER

_NAME = b"\0userspace-proxy-next#"
# As a netlink socket's number may be; 0 lets the kernel choose one.
_MAX_NUMBER = 2**31 - 1
# NFNLGRP_NFTRACE: messages about packets that a rule traces, so hardly any.
_GROUPS = 1 << 8


def bind_prover(sock: socket.socket) -> None:
    """Name the prover's end of a connection; call it before the connection is made."""
    sock.bind(_name(secrets.randbelow(_MAX_NUMBER) + 1))


def can_prove(connection: socket.socket) -> bool:
    """Return whether the other end of a connection has such a name; if not, don't challenge it.

    An end without a name can get one later: that of a process which has answered, and closed.
    """
    return _peer_number(connection) is not None


def open_challenge() -> socket.socket:
    """Return a socket to pass to the prover; the caller closes it.

    Raises:
        OSError: There is no descriptor left, or the kernel has no nfnetlink.
    """
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


def answer(challenge: socket.socket, connection: socket.socket) -> None:
    """Answer a challenge that arrived over a connection.

    Raises:
        OSError: This process doesn't have CAP_NET_ADMIN, or it is no challenge.
    """
    if (challenge.family, challenge.proto) != (socket.AF_NETLINK, NETLINK_NETFILTER):
        raise OSError(errno.EPROTOTYPE, "not a netlink socket for netfilter")
    challenge.bind((_number(connection.getsockname()) or 0, _GROUPS))


def is_answered(challenge: socket.socket, connection: socket.socket) -> bool:
    """Return whether the process at the other end of a connection has answered."""
    number, groups = challenge.getsockname()
    return bool(groups & _GROUPS) and number == _peer_number(connection)


def _peer_number(connection: socket.socket) -> int | None:
    try:
        return _number(connection.getpeername())
    except OSError:
        # It is gone.
        return None


def _number(name: object) -> int | None:
    """Return the number in the name of a prover's end; None: it is another name.

    A second spelling of a number would be a second name, which another process could have.
    """
    if not isinstance(name, bytes) or not name.startswith(_NAME):
        return None
    try:
        number = int(name.removeprefix(_NAME), 16)
    except ValueError:
        return None
    return number if 0 < number <= _MAX_NUMBER and name == _name(number) else None


def _name(number: int) -> bytes:
    return _NAME + b"%x" % number
