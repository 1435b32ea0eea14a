"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ SyncLoop: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Proxy (public) ─────────┴── lock, supervision, drain, status servers

The only package that knows all shells.
"""

from .added import AddedService
from .options import Options
from .proxy import Proxy

__all__ = ["AddedService", "Options", "Proxy"]
