"""Tests of the rows for notes, whose texts ``words.txt`` contains."""

import pytest

from userspace_proxy.causes import notes
from userspace_proxy.causes.cause import ROWS
from userspace_proxy.causes.notes import cause_of, range_wrong
from userspace_proxy.model.notes import NoteKind

from . import words


@pytest.mark.parametrize("kind", NoteKind)
def test_each_kind_of_note_has_a_row_with_the_code_of_a_mistake(kind):
    assert ROWS[kind].code.traits.is_mistake


def test_the_cause_of_a_note_has_the_notes_parameters():
    assert cause_of(NoteKind.RANGE_WRONG("x is no network")) == range_wrong("x is no network")


def test_a_note_with_wrong_parameters_is_an_error():
    with pytest.raises(TypeError, match="range_wrong takes why"):
        cause_of(NoteKind.RANGE_WRONG())


def test_the_recorded_page_contains_all_texts_of_notes():
    assert words.changed(notes) == []
