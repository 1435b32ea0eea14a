"""Defines notes about fields and annotations without the intended effect.

    reader ──Note──▶ Service, slice ──causes.notes.cause_of──▶ Cause

Rule 1: a note is a kind with parameters; the row of the kind in ``causes.notes`` contains its text.
Rule 2: the first parameter is the note's subject, such as an annotation's key.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

NoteParam: TypeAlias = str | int | tuple[str, ...]


class NoteKind(enum.StrEnum):
    """The names of rows in ``causes.notes``; a call with a row's parameters returns a note."""

    ANNOTATION_WRONG = "annotation_wrong"
    ANNOTATION_UNKNOWN = "annotation_unknown"
    ANNOTATION_MISPLACED = "annotation_misplaced"
    SLOW_START_UNUSED = "slow_start_unused"
    WAKE_WITHOUT_HOLD = "wake_without_hold"
    WAKE_WITHOUT_SELECTOR = "wake_without_selector"
    IDLE_WITHOUT_WAKE = "idle_without_wake"
    HEADER_WITHOUT_TCP = "header_without_tcp"
    SCOPE_WITHOUT_AFFINITY = "scope_without_affinity"
    NO_BALANCER_ADDRESS = "no_balancer_address"
    TOO_MANY_BALANCED = "too_many_balanced"
    RANGES_IN_ANNOTATION = "ranges_in_annotation"
    RANGE_WRONG = "range_wrong"
    TOO_MANY_RANGES = "too_many_ranges"
    TOO_MANY_HINTS = "too_many_hints"
    TOO_MANY_PODS = "too_many_pods"
    NO_POD = "no_pod"
    ADDRESS_WRONG = "address_wrong"
    NAMES_BESIDE_SELECTOR = "names_beside_selector"
    NAME_WITHOUT_PORT = "name_without_port"
    NAMES_BUG = "names_bug"
    NOT_TO_MIRROR = "not_to_mirror"
    LEFT_OUT_BESIDE = "left_out_beside"
    NODE_PORT_NAMED = "node_port_named"
    NO_NODE_PORT_LEFT = "no_node_port_left"

    def __call__(self, *params: NoteParam) -> Note:
        return Note(self, params)


class Note(NamedTuple):
    """A field or an annotation without effect, or with an effect that wasn't intended."""

    kind: NoteKind
    params: tuple[NoteParam, ...] = ()

    @property
    def about(self) -> NoteParam:
        """The first parameter; empty without parameters."""
        return self.params[0] if self.params else ""
