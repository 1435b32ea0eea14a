"""Proves to all processes in this network namespace that a process with CAP_NET_ADMIN chose a name.

    holder      open_name_proofs(name): two netlink sockets; port IDs and groups are a hash of it
    others      name in ProvenNames(): /proc/net/netlink shows both sockets

Only CAP_NET_ADMIN, in the user namespace that owns the network namespace, may subscribe a netlink
socket to a group. So root without capabilities can't prove a name, and a check never waits for a
process that is busy, stopped, or silent on purpose.

Rule 1: two sockets carry 106 bits of the hash, so finding another name that the same sockets prove
is infeasible.
Rule 2: open proofs before binding a name, and close them no later than its socket. While the name
is bound, no other process can bind it, so the proof holds for that socket.
Rule 3: any user may bind a netlink socket to a known name's port ID, so that the name can't be
proved. A random name that isn't known until it is bound avoids this.

Source: netlink_bind() and netlink_native_seq_show() in net/netlink/af_netlink.c; nfnetlink_bind()
in net/netfilter/nfnetlink.c, which accepts groups that don't exist.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import socket
from pathlib import Path

from .netlink.sockets import NETLINK_NETFILTER

_SHOWN = Path("/proc/thread-self/net/netlink")
# A line of the kernel's list of netlink sockets: address, protocol, port ID, groups.
_LINE = re.compile(rb"^\S+ +%d +(\d+) +([0-9a-f]+) " % NETLINK_NETFILTER, re.MULTILINE)
# Netfilter has nine groups, and the kernel shows 32 bits: the upper groups receive no messages. The
# first of these marks a proof, the second is its index, and the rest carry the hash.
_MARK, _WHICH, _HASH = 9, 10, 11
_PARTS = 2
_PART_BYTES = 8
_NOT_ALLOWED = (errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)

NameProof = tuple[int, int]
"""The port ID and the groups of a netlink socket."""


def open_name_proofs(name: bytes) -> tuple[socket.socket, ...]:
    """Return sockets that prove a name while they are open; the caller closes them.

    The result is empty if this process lacks CAP_NET_ADMIN, or the kernel lacks nfnetlink.

    Raises:
        OSError: No descriptor is left, or another process has taken a port ID (EADDRINUSE).
    """
    try:
        with contextlib.ExitStack() as stack:
            opened = tuple(stack.enter_context(_open(each)) for each in _name_proofs(name))
            stack.pop_all()
            return opened
    except OSError as exc:
        if exc.errno in _NOT_ALLOWED:
            return ()
        raise


def can_prove() -> bool:
    """Return whether this process has CAP_NET_ADMIN here, and the kernel has nfnetlink.

    Raises:
        OSError: No descriptor is left.
    """
    try:
        # With port ID 0, the kernel chooses one.
        _open((0, 1 << _MARK)).close()
    except OSError as exc:
        if exc.errno in _NOT_ALLOWED:
            return False
        raise
    return True


class ProvenNames:
    """The names that processes with CAP_NET_ADMIN proved when this object was created."""

    def __init__(self) -> None:
        found = _LINE.finditer(_SHOWN.read_bytes())
        self._shown = {(int(one[1]), int(one[2], 16)) for one in found}

    def __contains__(self, name: bytes) -> bool:
        return self._shown.issuperset(_name_proofs(name))


def _open(name_proof: NameProof) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        sock.bind(name_proof)
    except BaseException:
        sock.close()
        raise
    return sock


def _name_proofs(name: bytes) -> list[NameProof]:
    digest = hashlib.sha256(name).digest()
    return [
        _name_proof(which, int.from_bytes(digest[which * _PART_BYTES :][:_PART_BYTES], "big"))
        for which in range(_PARTS)
    ]


def _name_proof(which: int, part: int) -> NameProof:
    # With port ID 0, the kernel would choose one.
    number = part & 0xFFFFFFFF or 1
    return number, 1 << _MARK | which << _WHICH | (part >> 32 << _HASH) & 0xFFFFFFFF
