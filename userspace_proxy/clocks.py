"""The real clocks, also in a test whose time stands still.

freezegun replaces the functions that modules hold, and not those that classes hold. With its time,
timers would be set in another year, and the thread of a proxy would wait for ever.
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
    """What ``time`` has."""

    monotonic = staticmethod(_real("monotonic"))
    """Seconds from some moment, which never go back."""
    time = staticmethod(_real("time"))
    """Unix time."""
