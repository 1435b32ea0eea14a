"""Tests of the texts about a Service."""

import pytest

from userspace_proxy.causes import services
from userspace_proxy.causes.services import (
    NOTES_MAX,
    first_notes,
    more_notes,
)

from . import words
from .samples import a_note


@pytest.mark.parametrize("further", [0, 1, 5])
def test_notes_above_the_maximum_are_replaced_by_one_note(further):
    some = tuple(a_note(f"field {number}") for number in range(NOTES_MAX + further))
    more = (more_notes(),) if further else ()
    assert first_notes(iter(some)) == (*some[:NOTES_MAX], *more)


def test_the_recorded_page_contains_all_texts_about_services():
    assert words.changed(services) == []
