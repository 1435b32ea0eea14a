"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ SyncLoop: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┴── lock, supervision, drain, status servers
      └─ Proxy (public): Services that a program adds by calls

The only package that depends on all shells.
"""

from .embedding import AddedService, Proxy
from .options import Options

__all__ = ["AddedService", "Options", "Proxy"]
