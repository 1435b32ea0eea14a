"""Writes what a rule looks up in a set into the rule; pure.

ct state @__map0 vmap ─▶ ct state established accept, ct state invalid drop
tcp dport @__set0 accept ─▶ tcp dport 22,8000-8100 accept
ip daddr . th dport @__set1 drop ─▶ ip daddr 10.96.7.1/32 th dport 80 drop, …

Rule 1: a set whose elements change without a new generation of the ruleset isn't understood: those
that packets add, and those that expire.

Source: include/uapi/linux/netfilter/nf_tables.h, enum nft_set_flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .chains import Step
from .reader import ListedElement, ListedSet
from .rules import (
    NOT_UNDERSTOOD,
    READ,
    SOURCES,
    UNKNOWN,
    UNKNOWN_CLIENT,
    span_in_words,
    value_in_words,
    verdict_in_words,
)

ELEMENTS_MAX = 200
"""More than most firewalls that are written by hand have in one rule. Each frontend is compared
with each of them."""
_ANONYMOUS, _CONSTANT, _INTERVALS, _MAP = 0x1, 0x2, 0x4, 0x8
_READ = _ANONYMOUS | _CONSTANT | _INTERVALS | _MAP
_FIELD = f"(?:{'|'.join(READ)})"
_LOOKED_UP = re.compile(rf"(?:(tcp|udp|\d+) (dport)|({_FIELD}(?: \. {_FIELD})*)) (!= )?@(\S+)")


def set_of(step: Step) -> str:
    """Return the name of the first set that a rule looks up; empty if there is none."""
    found = _LOOKED_UP.search(step.condition)
    return found[5] if found else ""


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
    found = _LOOKED_UP.search(step.condition)
    if found is None:
        return
    protocol, is_port, sign = found[1], found[2], found[4] or ""
    fields = (found[3] or "th dport").split(" . ")
    leads = [f"{protocol} dport"] if is_port else fields
    flags = looked_up.flags if looked_up else 0
    is_whole = len(elements) <= ELEMENTS_MAX and all(one.key for one in elements)
    is_parted = bool(flags & _MAP) or len(fields) > 1
    if looked_up is None or not is_whole or (is_parted and flags & _INTERVALS):
        words = (NOT_UNDERSTOOD.get(field, UNKNOWN) for field in fields)
        unknown = next((word for word in words if word != UNKNOWN), UNKNOWN)
        if set(SOURCES).issuperset(fields):
            unknown = UNKNOWN_CLIENT
        yield _replace(step, f"meta l4proto {protocol} {unknown}" if is_port else unknown)
    elif is_parted:
        for one in elements:
            values = map(" ".join, zip(leads, _values(fields, one.key), strict=True))
            verdict = verdict_in_words(one.value) if flags & _MAP else step.verdict
            yield _replace(step, " ".join(values))._replace(verdict=verdict)
    else:
        spans = _spans(fields[0], elements)
        plain = (value_in_words(fields[0], one.key) for one in elements)
        listed = ",".join(spans if flags & _INTERVALS else plain)
        if listed:
            yield _replace(step, f"{leads[0]} {sign}{listed}")
        elif sign:
            yield _replace(step, "")


def _values(fields: Sequence[str], key: bytes) -> Iterator[str]:
    """Yield the values of a key, in which each begins at a multiple of four bytes."""
    at = 0
    for field in fields:
        yield value_in_words(field, key[at : at + READ[field]])
        at += READ[field] + -READ[field] % 4


def _replace(step: Step, text: str) -> Step:
    return step._replace(condition=_LOOKED_UP.sub(lambda _found: text, step.condition, count=1))


def _spans(field: str, elements: Sequence[ListedElement]) -> Iterator[str]:
    """Yield intervals in words: each begins with an element, and ends in front of the next one."""
    first = b""
    # Where one ends and another begins, the end comes first.
    for one in sorted(elements, key=lambda one: (one.key, not one.is_end)):
        if not one.is_end:
            first = one.key
        elif first:
            last = int.from_bytes(one.key, "big") - 1
            yield from span_in_words(field, first, last.to_bytes(len(first), "big"))
            first = b""
    if first:
        yield from span_in_words(field, first, b"\xff" * len(first))
