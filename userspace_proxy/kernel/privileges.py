"""Reads the capabilities of this process, and the sysctls that forbid user namespaces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

# Source: capabilities(7), include/uapi/linux/capability.h.
CAP_NET_ADMIN = 12
USER_NAMESPACES = "user.max_user_namespaces"
"""A sysctl that every kernel with user namespaces has."""
# Sysctls that can forbid user namespaces, each with the value that forbids them and a value that
# allows them. Source: user_namespaces(7).
SYSCTLS = {
    USER_NAMESPACES: ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}


def effective_capabilities() -> int:
    """Return this thread's effective capabilities, one bit each."""
    for line in Path("/proc/thread-self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_net_admin() -> bool:
    """Return whether this thread has CAP_NET_ADMIN, which it needs to change rules."""
    return bool(effective_capabilities() >> CAP_NET_ADMIN & 1)


def read_sysctls(
    names: Iterable[str] = tuple(SYSCTLS), proc_sys: Path = Path("/proc/sys")
) -> dict[str, str]:
    """Return the values of the sysctls that exist in this kernel."""
    values = {}
    for name in names:
        with contextlib.suppress(OSError):
            path = proc_sys.joinpath(*name.split("."))
            values[name] = path.read_text(encoding="ascii").strip()
    return values


def forbidding(sysctls: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return a sysctl that forbids user namespaces, its value, and a value that allows them.

    Returns None if no sysctl forbids them.

    Args:
        sysctls: The result of :func:`read_sysctls`.
    """
    for name, (forbids, allows) in SYSCTLS.items():
        if sysctls.get(name) == forbids:
            return name, forbids, allows
    return None
