"""Connects all packages: source, plan, rounds, listeners, steering, status.

    source ──publish──▶ rounds: plan ▶ diff ▶ open ▶ steer ▶ close
                            │
    Agent ──────────────────┼── lock, supervision, drain, status servers
                            └── watchers

Only this package, and the packages above it, depend on all packages that do I/O.
"""

from ..linux import require_linux

# Check the platform before imports that require Linux: they would only report a missing function.
require_linux()

from .rounds.options import Options  # noqa: E402 - only where it can be imported

__all__ = ["Options"]
