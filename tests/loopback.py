"""A network namespace with only loopback for each process of a test run.

    make unit, pytest … ──▶ enter() ──▶ lo ── no other interface, so no packet can leave

Rule 1: no test may send a packet to a machine that the project doesn't own, so pytest doesn't
start if no namespace can be created.
Rule 2: each process of a run has its own namespace, so all ports are free.
Rule 3: no test may try to send such a packet: the kernel counts packets and dials without a route,
and a test that increases the count fails. Namespaces that tests create have counts of their own.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_SUCCESS = 0
_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespaceError(RuntimeError):
    """No network namespace can be created; the message contains the remedy."""


def enter() -> None:
    """Move this process to a new network namespace and set its loopback up.

    Without root, this call also creates a user namespace in which the process is root, as
    ``unshare -Urn`` does, which requires that the process has only one thread.

    Raises:
        NoNamespaceError: The kernel forbids both kinds of namespaces.
    """
    uid, gid = os.geteuid(), os.getegid()
    if _unshare(_CLONE_NEWNET) != _SUCCESS:
        if (error := _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)) != _SUCCESS:
            raise NoNamespaceError(
                f"cannot create a network namespace for the tests: {os.strerror(error)} (run as "
                "root, or allow user namespaces: sysctl -w user.max_user_namespaces=15000, and "
                "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
            )
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def count_unroutable() -> int:
    """Return the number of packets and dials of this namespace to addresses without a route.

    Source:
        The kernel's documentation of SNMP counters, ``OutNoRoutes``: a connect() counts too.
    """
    names, values = (
        line.split() for line in _proc_net("snmp").splitlines() if line.startswith("Ip:")
    )
    v6 = dict(line.split() for line in _proc_net("snmp6").splitlines())
    counted = dict(zip(names, values, strict=True))
    return int(counted["OutNoRoutes"]) + int(v6["Ip6OutNoRoutes"])


def _unshare(flags: int) -> int:
    """Unshare namespaces; return the error number, 0 for success."""
    return _SUCCESS if _libc.unshare(flags) == 0 else ctypes.get_errno()


def _proc_net(name: str) -> str:
    return Path("/proc/self/net", name).read_text()
