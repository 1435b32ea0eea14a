"""Decides whether a proxy can run here.

Proxies need Linux. Commands that only read (``explain``, ``status``, ``top``) and the imports of
this package don't, so what only Linux has is imported where it is used.
"""

from __future__ import annotations

import select
import sys

from .errors import PlatformError


def is_linux() -> bool:
    """Return whether there is epoll; Python on other systems lacks more, but this, too."""
    return hasattr(select, "epoll")


def require_linux(what: str = "userspace-proxy runs on Linux only") -> None:
    """Raise PlatformError unless a proxy can run here; the reason follows this text."""
    if not is_linux():
        raise PlatformError(
            f"{what}: Python on {sys.platform} has no epoll",
            hint="use a Linux container, a virtual machine or WSL",
        )
