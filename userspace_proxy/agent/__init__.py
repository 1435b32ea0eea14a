"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ SyncLoop: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┴── lock, supervision, drain, status servers
      └─ Proxy (public): Services that a program adds by calls

The only package that depends on all shells.
"""

import select
import sys

from ..errors import PlatformError

if not hasattr(select, "epoll"):
    # Before the modules that need it: each of them would name one of many missing functions.
    raise PlatformError(
        f"userspace-proxy runs on Linux only: Python on {sys.platform} has no epoll",
        hint="use a Linux container, a virtual machine or WSL",
    )

from .added_service import AddedService
from .options import Options
from .proxy import Proxy

__all__ = ["AddedService", "Options", "Proxy"]
