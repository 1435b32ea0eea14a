"""Encodes the facts as JSON; a cause has both a sentence for people and parameters for programs.

    StatusFacts ──encode_answer──▶ JSON ──read_answer──▶ StatusFacts
    Cause ──write_cause──▶ CauseFacts ──JSON──▶ CauseFacts ──read_cause──▶ Cause

Rule 1: a cause from another version keeps its sentence if this version would write a different one,
or lacks the cause.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ..causes.cause import MODIFIERS, ROWS, Cause, CauseCode, Param, When, as_read
from ..causes.say import object_of, remedy, say
from ..secrets import without_users
from ..struct_types import resolve
from .node import StatusFacts

PARAMS_MAX = 64
"""The maximum number of parameters of a cause; each takes a few hundred bytes."""

_COUNTED = ("count", "first_at", "last_at")
_NOT_COUNTED = tuple(name for name in MODIFIERS if name not in _COUNTED)
_PLAIN = as_read(CauseCode("")).modifiers()


class CauseFacts(msgspec.Struct, frozen=True, gc=False):
    """A cause: a fault, or a setting that has no effect."""

    code: CauseCode = CauseCode("")
    """The cause's name in metrics and docs."""
    sentence: str = ""
    """The cause as a sentence without a full stop, and without figures that change while the cause
    lasts."""
    object: str = ""
    """The object concerned: an address, ``shop/web``, ``EndpointSlice shop/web-x``; or empty."""
    hint: str = ""
    """The remedy; empty if the sentence contains it."""
    count: int = 0
    """The number of occurrences; 0 for a state, which isn't counted."""
    first_at: float = 0.0
    """Unix time at which it was first seen; 0 if unknown."""
    last_at: float = 0.0
    """Unix time at which it was last seen; 0 if unknown."""
    kind: str = ""
    """Distinguishes the causes that share a code; kinds may change."""
    params: Mapping[str, Any] = {}
    """The parameters, and the other values that the sentence contains."""


def write_cause(cause: Cause) -> CauseFacts:
    """Return a cause in the form that the JSON contains."""
    if isinstance(cause.written, CauseFacts):
        return cause.written
    params: dict[str, Any] = dict(cause.params)
    for name in _NOT_COUNTED:
        if (value := getattr(cause, name)) != _PLAIN[name]:
            params[name] = value
    counted = (cause.count, cause.first_at, cause.last_at)
    words = (cause.code, say(cause), object_of(cause), remedy(cause))
    cause.written = facts = CauseFacts(*words, *counted, cause.row.key, params)
    return facts


def read_cause(facts: CauseFacts, before_max: int = 2) -> Cause:
    """Return the cause that a proxy has written; the proxy may be older or newer.

    Args:
        before_max: How many nested earlier causes are read; each takes as long as the first one.

    Raises:
        ValueError: There are more parameters than any proxy writes.
    """
    if len(facts.params) > PARAMS_MAX:
        raise ValueError(f"a cause with more than {PARAMS_MAX} parameters")
    counted = {name: getattr(facts, name) for name in _COUNTED}
    params = {name: one for name, one in facts.params.items() if name not in _NOT_COUNTED}
    try:
        resolve(_Modifiers)
        modifiers = msgspec.convert(facts.params, _Modifiers)
        past = modifiers.before if before_max else None
        before = None if past is None else read_cause(past, before_max - 1)
        given = {**msgspec.structs.asdict(modifiers), "before": before, **counted}
        row = ROWS[facts.kind]
        bound = row(**msgspec.convert(params, dict[str, Param])).params
        cause = Cause(row, bound, **given)
        written = write_cause(cause)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return _as_written(facts, params, counted)
    is_same = written.sentence == facts.sentence and written.hint == facts.hint
    is_same = is_same and written.code is facts.code
    return cause if is_same else _as_written(facts, params, counted)


def _as_written(facts: CauseFacts, params: Mapping[str, Any], counted: Mapping[str, Any]) -> Cause:
    """Return a cause with the sentence that the proxy wrote, and the parameters."""
    literal = as_read(facts.code, facts.sentence, facts.object, facts.hint)
    known = [name for name, _ in literal.params]
    others = [(name, one) for name, one in params.items() if isinstance(one, str | int | float)]
    more = [(name, one) for name, one in others if name not in known]
    return Cause(literal.row, (*literal.params, *more), **counted)


class _Modifiers(msgspec.Struct):
    """The values on which a cause's sentence depends, in addition to its parameters."""

    when: When = When.NOW
    answers_others: bool = False
    answers_nodes: bool = False
    answers_own: bool = False
    host: str = ""
    has_header: bool = False
    is_terminating: bool = False
    before: CauseFacts | None = None
    more: int = 0
    within: str = ""


def dump_cause(cause: Cause) -> dict[str, Any]:
    """Convert a cause to plain objects, for another process of this program."""
    dumped: dict[str, Any] = msgspec.to_builtins(write_cause(cause), enc_hook=to_json)
    return dumped


def load_cause(dumped: object) -> Cause:
    """Convert the plain objects of :func:`dump_cause` to a cause; raise ValueError for others."""
    resolve(CauseFacts)
    return read_cause(msgspec.convert(dumped, CauseFacts))


def to_json(value: object) -> object:
    """Convert a cause for the JSON; raise TypeError for other types that msgspec lacks."""
    if isinstance(value, Cause):
        return write_cause(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def from_json(kind: type, value: object) -> object:
    """Convert a value from the JSON to a cause; raise TypeError for other types."""
    if kind is Cause:
        return load_cause(value)
    raise TypeError(f"Decoding objects of type {kind.__name__} is unsupported")


_encoder = msgspec.json.Encoder(enc_hook=to_json)


def encode_answer(answer: object) -> bytes:
    """Return an answer, or a part of one, as a line of JSON, without secrets."""
    try:
        body: bytes = _encoder.encode(answer)
    except UnicodeEncodeError:
        # Handle a lone surrogate, which JSON can contain only as an escape.
        body = json.dumps(msgspec.to_builtins(answer, enc_hook=to_json)).encode()
    return without_users(body) + b"\n"


def read_answer(body: bytes | str) -> StatusFacts:
    """Parse the JSON of a proxy, which may be older or newer.

    Raises:
        ValueError: The body isn't the JSON of a proxy.
    """
    resolve(StatusFacts)
    return msgspec.json.decode(body, type=StatusFacts, dec_hook=from_json)
