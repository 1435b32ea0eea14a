"""Tests of what the model takes a source to learn of a history that went back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .restores import Restores

KIND = "EndpointSlice"


@pytest.mark.parametrize(("began", "blind"), [(9.9, {KIND}), (14.0, set())])
def test_only_an_answer_of_after_a_restore_shows_it(began: float, blind: set[str]) -> None:
    follower: Any = SimpleNamespace(
        kind=KIND, newest=1039, request=object(), is_quiet=True, must_ask_at=None
    )
    watch: Any = SimpleNamespace(query={"watch": "1"}, code=200, began=began)
    restores = Restores()
    restores.begin(10.0, {KIND: follower})
    restores.complete(1036, {KIND: follower})
    restores.note_answer(follower, watch, 1036)
    assert restores.blind == blind
