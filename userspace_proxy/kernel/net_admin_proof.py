"""Proves to a process of the same network namespace that another process has CAP_NET_ADMIN.

    prover     Prover(): its end of the connection, whose name is the hash of a secret
    verifier   open_challenge(): a netlink socket, whose copy is passed over the connection
    prover     answer(): binds it to a port ID in the secret, and subscribes to a group of
               netfilter's messages; returns the secret, which is passed back
    verifier   is_answered(): reads port ID and group from its own copy, and compares the secret

Only CAP_NET_ADMIN, in the user namespace that owns the socket's network namespace, may subscribe.
CAP_NET_RAW, which containers often have, doesn't suffice, unlike for SO_MARK and IP_TRANSPARENT;
and subscribing works in user namespaces, unlike SO_SNDBUFFORCE.

Rule 1: the verifier opens the socket, so it belongs to the verifier's network namespace, and no
other process has prepared it. The prover answers only if that namespace is its own: it may also
have the capability in other namespaces, from which a process could relay challenges.
Rule 2: the connection had its name before the challenge (``can_prove``), and a bound netlink socket
keeps its port ID. So a process that relays the challenge to a privileged process proves nothing:
the answer would be the secret of another name.
Rule 3: any user may bind a netlink socket to any port ID, so the port ID is secret until the prover
has bound it.

Source: netlink_bind() in net/netlink/af_netlink.c; sock_ioctl() in net/socket.c.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import socket

from .netlink.sockets import NETLINK_NETFILTER, is_for_netfilter

_NAME = b"\0userspace-proxy-next#"
SECRET_BYTES, _PORT_ID_BYTES = 16, 4
# The largest port ID of a netlink socket; 0 lets the kernel choose one.
_MAX_PORT_ID = 2**31 - 1
# NFNLGRP_NFTRACE: any group would do, and messages about traced packets are rare.
_GROUPS = 1 << 8
# The ioctl that opens a socket's network namespace (Linux ≥ 4.10); requires CAP_NET_ADMIN there.
_SIOCGSKNS = 0x894C


class Prover(socket.socket):
    """The prover's end of a future connection: a Unix stream socket bound to the prover's name.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._has_answered = False
        try:
            self.bind(_name(self._secret))
        except BaseException:
            self.close()
            raise

    def answer(self, challenge: socket.socket) -> bytes:
        """Answer a challenge that arrived over this connection; return the proof to send back.

        Raises:
            PermissionError: This process doesn't have CAP_NET_ADMIN.
            OSError: The challenge isn't the first one, isn't an unbound netfilter socket, or
                belongs to another network namespace.
        """
        if self._has_answered:
            raise OSError(errno.EPROTO, "it sends a second challenge")
        self._has_answered = True
        if not is_for_netfilter(challenge):
            raise OSError(errno.EPROTOTYPE, "not a netlink socket for netfilter")
        if _network(challenge) != _network(self):
            raise OSError(errno.EXDEV, "the challenge is of another network namespace")
        challenge.bind((_port_id(self._secret), _GROUPS))
        return self._secret


def can_prove(connection: socket.socket) -> bool:
    """Return whether the other end of a connection has a prover's name, and can be challenged.

    An end without a name could later take the name of a process that has answered and closed its
    connection.
    """
    return _peer_name(connection).startswith(_NAME)


def open_challenge() -> socket.socket:
    """Return a socket to pass to the prover; the caller closes it.

    Raises:
        OSError: No descriptor is left, or the kernel has no nfnetlink.
    """
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


def is_answered(challenge: socket.socket, connection: socket.socket, proof: bytes) -> bool:
    """Return whether the process at the other end of a connection has answered.

    Args:
        challenge: The socket that was passed only to that process.
        connection: The connection, which passed :func:`can_prove` before the challenge.
        proof: The secret that the process sent back.
    """
    port_id, groups = challenge.getsockname()
    is_its_own = _peer_name(connection) == _name(proof) and port_id == _port_id(proof)
    return bool(groups & _GROUPS) and is_its_own


def _peer_name(connection: socket.socket) -> bytes:
    try:
        name = connection.getpeername()
    except OSError:
        # The other end was closed.
        return b""
    # The name of a socket in the file system is a str, as is an empty name.
    return name if isinstance(name, bytes) else b""


def _name(secret: bytes) -> bytes:
    return _NAME + hashlib.sha256(secret).hexdigest().encode()


def _port_id(secret: bytes) -> int:
    return 1 + int.from_bytes(secret[:_PORT_ID_BYTES], "big") % _MAX_PORT_ID


def _network(sock: socket.socket) -> tuple[int, int]:
    """Return the identity of a socket's network namespace."""
    descriptor = fcntl.ioctl(sock, _SIOCGSKNS)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return status.st_dev, status.st_ino
