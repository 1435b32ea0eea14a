"""Target for the values of annotations, as users write them."""

from __future__ import annotations

from collections.abc import Iterable

from userspace_proxy.causes.notes import cause_of
from userspace_proxy.causes.say import say
from userspace_proxy.errors import ConfigError
from userspace_proxy.model.annotations import (
    ANNOTATION_PRIORITY,
    ANNOTATION_WEIGHT,
    ANNOTATIONS,
    TEXT_MAX,
    read_handling,
    read_preference,
)
from userspace_proxy.model.notes import Note
from userspace_proxy.model.source_ranges import read_source_ranges

NOTE_MAX = 2000
"""The maximum length of a note that quotes a truncated, escaped text and lists all known words."""


def check_annotations(data: bytes) -> None:
    """Check a text as each annotation's value, truncated value and key: a note is one line."""
    text = data.decode(errors="replace")
    for each in (text, text[:TEXT_MAX]):
        _check_notes(read_handling({one.key: each for one in ANNOTATIONS})[1])
        _check_notes(read_preference({ANNOTATION_WEIGHT: each, ANNOTATION_PRIORITY: each}).notes)
        _check_notes(read_source_ranges([each], {})[1])
        _check_notes(read_handling({f"{ANNOTATION_WEIGHT}{each}": "1"})[1])
    for one in ANNOTATIONS:
        # The time must be linear also for invalid text.
        _read(one.read, text)


def _read(read: object, text: str) -> None:
    assert callable(read)
    try:
        read(text)
    except ConfigError as exc:
        _check_line(str(exc))


def _check_notes(notes: Iterable[Note]) -> None:
    for note in notes:
        _check_line(say(cause_of(note)))


def _check_line(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < NOTE_MAX, text
