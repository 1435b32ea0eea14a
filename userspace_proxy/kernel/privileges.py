"""Reads which network privileges this process has."""

from __future__ import annotations

from pathlib import Path

# Source: capabilities(7), include/uapi/linux/capability.h.
CAP_NET_ADMIN = 12


def effective_capabilities() -> int:
    """Return this thread's effective capabilities, one bit each."""
    for line in Path("/proc/thread-self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_net_admin() -> bool:
    """Return whether this process may change rules in its network namespace."""
    return bool(effective_capabilities() >> CAP_NET_ADMIN & 1)
