"""Identifies namespaces of processes, and detects a network namespace created for the proxy.

A program that creates a namespace for a proxy (demo, tests) passes the inode of the namespace in
the environment. The inode matches only in that namespace, so an inherited variable has no effect in
a node's namespace.
"""

from __future__ import annotations

import os

_VARIABLE = "USERSPACE_PROXY_OWN_NETNS"


def own_namespace_environment(pid: int) -> dict[str, str]:
    """Return the environment variable for a proxy in a process's namespace; may raise OSError."""
    return {_VARIABLE: str(_inode(f"/proc/{pid}/ns/net"))}


def is_own_namespace() -> bool:
    """Return whether the environment names this process's network namespace."""
    given = os.environ.get(_VARIABLE)
    return given is not None and given == str(_inode("/proc/self/ns/net"))


def network_namespace(process: int | str = "self") -> int:
    """Return the inode number of a process's network namespace; 0 if the kernel doesn't show it."""
    return _shown(f"/proc/{process}/ns/net")


def user_namespace(process: int | str = "self") -> int:
    """Return the inode number of a process's user namespace; 0 if the kernel doesn't show it."""
    return _shown(f"/proc/{process}/ns/user")


def _shown(path: str) -> int:
    try:
        return _inode(path)
    except OSError:
        return 0


def _inode(path: str) -> int:
    return os.stat(path).st_ino  # noqa: PTH116 - a magic link in /proc
