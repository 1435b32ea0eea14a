"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ rounds: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┼── lock, supervision, drain, status servers
                            └── watchers

Only this package, and what is above it, depends on all shells.
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

from .rounds.options import Options

__all__ = ["Options"]
