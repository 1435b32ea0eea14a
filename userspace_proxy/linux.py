"""Decides whether a proxy can run here.

Proxies need Linux. Commands that only read (``explain``, ``status``, ``top``) and the imports of
this package don't, so what only Linux has is imported where it is used.
"""

from __future__ import annotations

import select
import sys

from .errors import PlatformError, UserspaceProxyError


def is_linux() -> bool:
    """Return whether there is epoll; Python on other systems lacks more, but this, too."""
    return hasattr(select, "epoll") or _is_patched()


def require_own_threads() -> None:
    """Raise UserspaceProxyError where a proxy's thread would wait for its caller.

    gevent and eventlet replace threads by coroutines of one thread, and epoll by nothing; their
    sockets belong to the thread that made them.
    """
    if _is_patched():
        raise UserspaceProxyError(
            "a proxy can't run where gevent has replaced threads, sockets or select",
            hint="start the tests that use it without gevent.monkey, in a process of their own",
        )


_REPLACED = ("select", "socket", "threading")


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and any(map(monkey.is_module_patched, _REPLACED))


def require_linux(what: str = "userspace-proxy runs on Linux only") -> None:
    """Raise PlatformError unless a proxy can run here; the reason follows this text."""
    require_own_threads()
    if not is_linux():
        raise PlatformError(
            f"{what}: Python on {sys.platform} has no epoll",
            hint="use a Linux container, a virtual machine or WSL",
        )
