"""Writes what a rule looks up in a set into the rule; pure.

ct state @__map0 vmap ─▶ ct state established accept, ct state invalid drop
tcp dport @__set0 accept ─▶ tcp dport 22,8000-8100 accept
ip daddr . th dport @__set1 drop ─▶ ip daddr 10.96.7.1/32 th dport 80 drop, …

Rule 1: a set whose elements change without a new generation of the ruleset isn't understood: those
that packets add, and those that expire.

Source: include/uapi/linux/netfilter/nf_tables.h, enum nft_set_flags.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .chains import Step
from .matches import WAYS, Condition, LoadedField, Match, MatchField, SetLookup, Value
from .reader import ListedElement, ListedSet
from .rules import span_of, unknown, values_of, verdict_of

ELEMENTS_MAX = 200
"""More than most firewalls that are written by hand have in one rule. Each frontend is compared
with each of them."""
_ANONYMOUS, _CONSTANT, _INTERVALS, _MAP = 0x1, 0x2, 0x4, 0x8
# Spans of them aren't understood: prefixes of names, and numbers in the host's byte order.
_SINGLE = (*WAYS, MatchField.MARK)
_READ = _ANONYMOUS | _CONSTANT | _INTERVALS | _MAP


def set_of(step: Step) -> SetLookup | None:
    """Return the first look-up in a set that a rule makes; None if there is none."""
    return next((one for one in step.matches if isinstance(one, SetLookup)), None)


def is_constant(one: ListedSet) -> bool:
    """Return whether a set's elements change only with the ruleset's generation."""
    return not one.flags & ~_READ


def is_of_rule(one: ListedSet) -> bool:
    """Return whether a set has no name, and so belongs to one rule."""
    return bool(one.flags & _ANONYMOUS)


def write_out(
    step: Step, looked_up: ListedSet | None, elements: Sequence[ListedElement]
) -> Iterator[Step]:
    """Yield a rule with the elements of the first set that it looks up.

    One rule if the values of one field decide; one per element of a map, or of several fields.
    None if no packet meets it, as the set is empty.

    Args:
        step: A rule with a :func:`set_of`.
        looked_up: That set; None if it isn't known. The condition isn't understood then, nor with
            an element for all other values (``*``).
        elements: All of its elements, or more than :data:`ELEMENTS_MAX`.
    """
    if (one := set_of(step)) is None:
        return
    flags = looked_up.flags if looked_up else 0
    is_whole = len(elements) <= ELEMENTS_MAX and all(element.key for element in elements)
    is_parted = bool(flags & _MAP) or len(one.fields) > 1
    has_spans = flags & _INTERVALS
    if (
        looked_up is None
        or not is_whole
        or (has_spans and (is_parted or one.fields[0].field in _SINGLE))
    ):
        yield _replace(step, one, unknown(one.fields))
    elif is_parted:
        for element in elements:
            found = _replace(step, one, *_matches(one.fields, element.key))
            if flags & _MAP:
                verdict, target = verdict_of(element.value)
                found = found._replace(verdict=verdict, target=target)
            yield found
    else:
        (field,) = one.fields
        spans = _spans(field, elements)
        plain = (value for element in elements for value in values_of(field, element.key))
        if values := tuple(spans if has_spans else plain):
            yield _replace(step, one, Match(field.field, values, one.is_inverted))
        elif one.is_inverted:
            yield _replace(step, one)


def _matches(fields: Sequence[LoadedField], key: bytes) -> Iterator[Condition]:
    """Yield the conditions of a key, in which each value begins at a multiple of four bytes."""
    at = 0
    for field in fields:
        values = values_of(field, key[at : at + field.width])
        yield Match(field.field, values) if values else unknown([])
        at += field.width + -field.width % 4


def _replace(step: Step, one: SetLookup, *by: Condition) -> Step:
    at = step.matches.index(one)
    return step._replace(matches=(*step.matches[:at], *by, *step.matches[at + 1 :]))


def _spans(field: LoadedField, elements: Sequence[ListedElement]) -> Iterator[Value]:
    """Yield intervals: each begins with an element, and ends in front of the next one."""
    first = b""
    # Where one ends and another begins, the end comes first.
    for one in sorted(elements, key=lambda one: (one.key, not one.is_end)):
        if not one.is_end:
            first = one.key
        elif first:
            last = int.from_bytes(one.key, "big") - 1
            yield from span_of(field, first, last.to_bytes(len(first), "big"))
            first = b""
    if first:
        yield from span_of(field, first, b"\xff" * len(first))
