"""The one place of a soak that lets time pass without waiting for something."""

from __future__ import annotations

import time


def pass_time(seconds: float) -> None:
    """Let the load run for some time."""
    time.sleep(seconds)  # noqa: TID251 - the length of a measurement
