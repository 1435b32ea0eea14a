"""Decides whether a proxy can run on this system, and raises the descriptor limit.

Proxies require Linux. Commands that only read (``explain``, ``status``, ``top``) and imports of
this package don't, so Linux-only modules are imported where they are used.
"""

from __future__ import annotations

import _socket
import _thread
import contextlib
import select
import sys

from .errors import PlatformError, SandboxError, UserspaceProxyError

# The highest descriptor limit that a proxy sets. With a limit of 2^30 (containerd with
# LimitNOFILE=infinity), memory would run out first. With this limit a worker holds 131,072
# connections in 1.1 GiB: each has two idle sockets of 3.8 KiB (measured by the growth of the slab
# with 16,000 on loopback, Linux 6.18), and 1 KiB in the worker (docs/benchmarks.md). kube-proxy's
# default for conntrack.min is also 131,072.
DESCRIPTORS_MAX = 262_144
# The limit on macOS, which rejects limits above kern.maxfilesperproc; that is never below this.
# Source: setrlimit(2) of macOS.
_OPEN_MAX = 10_240


def is_linux() -> bool:
    """Return whether this is Linux: Python has epoll, or a library such as gevent replaced it."""
    return hasattr(select, "epoll") or bool(replaced_by())


def require_own_threads() -> None:
    """Raise UserspaceProxyError if a library replaces threads, so that a proxy would deadlock.

    gevent and eventlet replace threads with coroutines, and have no epoll; their sockets belong to
    the thread that created them. Sockets of httpretty and mocket reach no program.
    """
    if library := replaced_by():
        raise UserspaceProxyError(
            f"a proxy can't run where {library} has replaced threads, sockets or select",
            hint=f"start the proxy before {library} is active, or start the tests that use it "
            f"without {library}, in a process of their own",
        )


def replaced_by() -> str:
    """Return the library that has replaced threads, sockets or select; empty if none has.

    A function's module reveals the library. A subclass of the system's socket isn't a replacement.
    """
    made: list[object] = [_thread.start_new_thread, select.select]
    # A module that hasn't been imported can't have been replaced.
    used = getattr(sys.modules.get("socket"), "socket", _socket.socket)
    if not isinstance(used, type) or not issubclass(used, _socket.socket):
        made.append(used)
    return _library_of(*made)


def require_own_files(problem: str) -> None:
    """Raise SandboxError if programs would see other files than this process.

    Args:
        problem: The beginning of the error: ``cannot create a sandbox``.
    """
    if library := files_replaced_by():
        raise SandboxError(
            f"{problem}: {library} has replaced this machine's files",
            hint=f"do it before {library} is active",
        )


def files_replaced_by() -> str:
    """Return the library that fakes files in this process; empty if there is none."""
    return _library_of(open)


def _library_of(*made: object) -> str:
    """Return the library that defines one of these objects; empty if Python defines all of them."""
    places = (str(getattr(one, "__module__", "")).partition(".")[0] for one in made)
    return next((place for place in places if place not in sys.stdlib_module_names), "")


def require_linux(what: str = "userspace-proxy runs on Linux only") -> None:
    """Raise PlatformError unless a proxy can run here; the error begins with ``what``."""
    require_own_threads()
    if not is_linux():
        raise PlatformError(
            f"{what}: Python on {sys.platform} has no epoll",
            hint="use a Linux container, a virtual machine or WSL",
        )


def bounded(limit: int) -> int:
    """Bound a limit of open files by :data:`DESCRIPTORS_MAX`; Linux's infinity is -1."""
    return min(limit, DESCRIPTORS_MAX) if limit >= 0 else DESCRIPTORS_MAX


def raise_descriptor_limit() -> None:
    """Set the soft limit of this process and its children to the hard limit, bounded.

    Call this before other code reads the limit, and never in a process that embeds a proxy.
    """
    # Windows has neither this limit nor the module "resource".
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in (bounded(hard), max(soft, _OPEN_MAX)):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
