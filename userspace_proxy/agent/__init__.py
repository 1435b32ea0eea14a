"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ SyncLoop: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┴── lock, supervision, drain, status servers
      └─ Proxy (public): Services that a program adds by calls

The only package that depends on all shells.
"""

from .embedding import AddedService
from .options import Options
from .proxy import Proxy

__all__ = ["AddedService", "Options", "Proxy"]
