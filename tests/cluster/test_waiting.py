"""The wait with a deadline."""

from __future__ import annotations

import pytest

from .waiting import DeadlineExceededError, wait_for


def test_the_first_truthy_value_is_returned() -> None:
    values = iter([None, "", "ready", "too late"])
    assert wait_for("a value", lambda: next(values)) == "ready"


def test_a_condition_that_holds_at_the_deadline_is_no_error() -> None:
    assert wait_for("the truth", lambda: True, deadline_s=0)


def test_the_error_names_the_condition_and_what_was_seen_instead() -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        wait_for("the Service web", lambda: False, deadline_s=0, hint=lambda: "it had no address")
    assert str(caught.value) == (
        "cannot wait any longer for the Service web: not so after 0 s; it had no address"
    )
