"""The annotations of EndpointSlices that this proxy follows: weight and priority.

Rule 1: an invalid value has no effect and is reported as a note, a problem of the slice's Service.
Rule 2: this proxy's own key has precedence over Cilium's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .annotations import (
    ANNOTATION_PRIORITY,
    ANNOTATION_WEIGHT,
    SERVICE_KEYS,
    SLICE_KEYS,
    unknown_notes,
)
from .endpoints import DEFAULT_WEIGHT
from .notes import Note, NoteKind
from .quoting import quoted

# Source: Cilium, pkg/annotation: EndpointSliceWeight, an unsigned number of 16 bits.
ANNOTATION_CILIUM_WEIGHT = "service.cilium.io/weight"
MAX = 65535
"""The highest weight, and the highest priority."""


class Preference(NamedTuple):
    """What the annotations of a slice or an Endpoints object request."""

    weight: int = DEFAULT_WEIGHT
    priority: int = 0
    notes: tuple[Note, ...] = ()
    """Annotations that have no effect."""


_NONE = Preference()


def read_preference(annotations: Mapping[str, str | None] | None) -> Preference:
    """Return the weight and priority of an object's endpoints; an empty value counts as missing."""
    if not annotations:
        return _NONE
    notes: list[Note] = []
    weight = _read(annotations, ANNOTATION_WEIGHT, notes)
    if weight is None:
        weight = _read(annotations, ANNOTATION_CILIUM_WEIGHT, notes)
    priority = _read(annotations, ANNOTATION_PRIORITY, notes)
    return Preference(
        DEFAULT_WEIGHT if weight is None else weight,
        priority or 0,
        (*notes, *unknown_notes(annotations, SLICE_KEYS, SERVICE_KEYS, "Services")),
    )


def _read(annotations: Mapping[str, str | None], key: str, notes: list[Note]) -> int | None:
    text = annotations.get(key)
    if not text:
        return None
    # The length is checked because Python refuses to convert very long numbers.
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX)) and int(text) <= MAX:
        return int(text)
    why = f"{quoted(text)} is not in 0–{MAX}"
    notes.append(NoteKind.ANNOTATION_WRONG(key, why, "it has no effect"))
    return None
