"""Waits for a condition with a deadline: the one place of these tests that pauses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.02
"""Between two looks: far below what a person notices, far above what a look costs."""


class DeadlineExceededError(AssertionError):
    """The condition didn't come true in time; the message says which one."""


def wait_for(
    what: str,
    condition: Callable[[], T | None],
    *,
    deadline_s: float = 120.0,
    hint: Callable[[], str] = lambda: "",
) -> T:
    """Return the first truthy value of ``condition``, looking again and again.

    Args:
        what: Names the condition in the error: "cannot wait any longer for <what>".
        condition: Called at least once, and a last time after the deadline has passed, so that a
            slow look doesn't fail a condition that holds. What it raises goes to the caller.
        deadline_s: Seconds until the error.
        hint: Makes the end of the error, when it is needed: what was seen instead.

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
