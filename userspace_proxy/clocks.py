"""Provides the real clocks, even in a test with frozen time.

freezegun replaces functions in modules, but not in classes. With frozen time, timers would be set
in another year, and the thread of a proxy would wait forever.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def _real(name: str) -> Callable[[], float]:
    frozen = sys.modules.get("freezegun.api")
    function: Callable[[], float] = getattr(frozen, f"real_{name}", getattr(time, name))
    return function


class Clocks:
    """The clock functions of the ``time`` module."""

    monotonic = staticmethod(_real("monotonic"))
    """Monotonic seconds."""
    time = staticmethod(_real("time"))
    """Unix time."""
