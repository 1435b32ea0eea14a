"""Waits for a condition with a deadline: the only module of these tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.02
"""The pause between two checks, which is much longer than a check, and short for a person."""


class DeadlineExceededError(AssertionError):
    """The condition didn't become true in time; the message names it."""


def wait_for(
    what: str,
    condition: Callable[[], T | None],
    *,
    deadline_s: float = 120.0,
    hint: Callable[[], str] = lambda: "",
) -> T:
    """Return the first truthy value of ``condition``, which is polled.

    Args:
        what: Names the condition in the error: "cannot wait any longer for <what>".
        condition: Called at least once, and once more after the deadline, so that a slow check
            doesn't miss a condition that has become true. Its exceptions are passed on.
        deadline_s: Seconds until the error.
        hint: Returns the end of the error message: the last observed state.

    Raises:
        DeadlineExceededError: The condition was still falsy at the deadline.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        is_last_look = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if is_last_look:
            seen = hint()
            raise DeadlineExceededError(
                f"cannot wait any longer for {what}: not so after {deadline_s:g} s"
                + (f"; {seen}" if seen else "")
            )
        time.sleep(PAUSE_S)  # noqa: TID251 - this is the wait with a deadline that others call
