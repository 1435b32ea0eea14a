"""Gives up what a worker doesn't need: it relays, and was handed every socket that it listens on.

    root, several users mapped    ▶ nobody, no capability
    root of a single mapped user, or without CAP_SETUID  ▶ the same user, no capability
    anybody else                  ▶ no capability

Rule 1: it is done when everything is imported: another user may not read what root installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

NOBODY = 65534

_PR_SET_NO_NEW_PRIVS = 38
# _LINUX_CAPABILITY_VERSION_3: two words for each of the three sets. Source: capget(2).
_CAPABILITY_VERSION = 0x20080522


def become_unprivileged() -> None:
    """Become nobody where the kernel lets us, and hold no capability. Idempotent.

    Raises:
        OSError: The kernel refused: better no worker than one with privileges.
    """
    if os.geteuid() == 0 and _is_mapped(NOBODY):
        # A container may have a root without CAP_SETUID or CAP_SETGID.
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    if libc.capset(header, bytes(24)) != 0 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_mapped(user: int) -> bool:
    """Tell whether this user namespace knows a user, and its group."""
    return all(
        any(int(first) <= user < int(first) + int(count) for first, _, count in _ranges(kind))
        for kind in ("uid_map", "gid_map")
    )


def _ranges(kind: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path("/proc/self", kind).read_text().splitlines()]
    except OSError:
        # Without /proc nothing can be told; without user namespaces all are.
        return [["0", "0", str(2**32 - 1)]]
