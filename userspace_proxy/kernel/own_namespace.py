"""Decides whether the current network namespace was created for this proxy.

Whoever makes one for a proxy (the sandbox's users: demo, tests) names it in the
environment by its inode; the name is true in that namespace alone, so it can't
leak into a node's own.
"""

from __future__ import annotations

import os

_VARIABLE = "USERSPACE_PROXY_OWN_NETNS"


def own_namespace_environment(pid: int) -> dict[str, str]:
    """Return the variable that tells a proxy that the namespace of a process is its own.

    Args:
        pid: Any process in the namespace.
    """
    return {_VARIABLE: _inode(f"/proc/{pid}/ns/net")}


def is_own_namespace() -> bool:
    """Return whether this process was told so of the namespace that it is in."""
    told = os.environ.get(_VARIABLE)
    return told is not None and told == _inode("/proc/self/ns/net")


def _inode(path: str) -> str:
    return str(os.stat(path).st_ino)  # noqa: PTH116 - a magic link of the kernel's
