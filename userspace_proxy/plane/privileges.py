"""Drops the privileges of a worker, which only relays and receives its listening sockets.

    root, WORKER_ID mapped                                      ▶ WORKER_ID, no capability
    root of a user namespace without it, or without CAP_SETUID  ▶ the same user, no capability
    any other user                                              ▶ the same user, no capability

A worker that dials from client addresses keeps CAP_NET_RAW, without which the kernel rejects
sockets with another host's address (docs/adr/0070).

Rule 1: all imports come first, because another user may be unable to read files of root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

WORKER_ID = 65521
"""The user and group of workers, and of nothing else: as user nobody (65534), other programs could
send signals to workers, trace them, and use up their pipes.

Neither distributions nor systemd assign 65520 to 65533 (source: systemd.io/UIDS-GIDS, and Debian
Policy 9.2.2), and images run as 65532 at most. The ID is below 65536, so user namespaces of the
usual size map it."""

# Source: include/uapi/linux/prctl.h and capability.h.
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
CAP_NET_RAW = 13
_LAST_CAPABILITY = 63
# _LINUX_CAPABILITY_VERSION_3: two words for each of the three sets. Source: capget(2).
_CAPABILITY_VERSION = 0x20080522


def become_unprivileged(*, keeps_net_raw: bool = False) -> None:
    """Become user WORKER_ID if the kernel permits that, and drop all capabilities. Idempotent.

    Args:
        keeps_net_raw: Whether to keep CAP_NET_RAW, if this process has it.

    Raises:
        OSError: The kernel refuses: no worker is better than a privileged worker.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = 1 << CAP_NET_RAW & _permitted() if keeps_net_raw else 0
    for capability in range(_LAST_CAPABILITY + 1):
        # A failure (beyond the last capability, or without CAP_SETPCAP) is harmless: no_new_privs,
        # set below, prevents execve from granting capabilities.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_KEEPCAPS, 1 if kept else 0, 0, 0, 0)
    if os.geteuid() == 0 and _is_mapped(WORKER_ID):
        # In a container, root may lack CAP_SETUID or CAP_SETGID; the worker then remains root.
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setresgid(WORKER_ID, WORKER_ID, WORKER_ID)
            os.setresuid(WORKER_ID, WORKER_ID, WORKER_ID)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    # Effective, permitted, inheritable: the lower 32 bits of each, then the upper 32 bits.
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if libc.capset(header, sets) != 0 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _permitted() -> int:
    """Return the permitted capabilities of this process, as bits; 0 if /proc can't be read."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)


def _is_mapped(user: int) -> bool:
    """Return whether this user namespace maps a user and its group."""
    return all(
        any(int(first) <= user < int(first) + int(count) for first, _, count in _ranges(kind))
        for kind in ("uid_map", "gid_map")
    )


def _ranges(kind: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path("/proc/self", kind).read_text().splitlines()]
    except OSError:
        # There is no /proc, or the kernel has no user namespaces: assume that all IDs are mapped.
        return [["0", "0", str(2**32 - 1)]]
