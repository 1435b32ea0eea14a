"""Connects all packages: snapshot, plan, changes, listeners, steering, status.

    source ──publish──▶ rounds: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┼── lock, supervision, drain, status servers
                            └── watchers

Only this package, and the packages above it, depend on all shells.
"""

from ..linux import require_linux

# Check the platform before imports that need Linux: a failing import would name only one missing
# function.
require_linux()

from .rounds.options import Options  # noqa: E402 - only where it can be imported

__all__ = ["Options"]
