"""Tests of notes as values; ``tests/unit/causes/test_notes.py`` tests their texts."""

from userspace_proxy.model.notes import Note, NoteKind


def test_a_note_is_a_kind_and_its_parameters():
    note = NoteKind.RANGE_WRONG("x is no network")
    assert note == Note(NoteKind.RANGE_WRONG, ("x is no network",))
    assert note != NoteKind.RANGE_WRONG("y is no network")


def test_the_subject_of_a_note_is_its_first_parameter():
    assert NoteKind.ADDRESS_WRONG("endpoints[2].addresses", "x").about == "endpoints[2].addresses"
    assert NoteKind.HEADER_WITHOUT_TCP().about == ""
