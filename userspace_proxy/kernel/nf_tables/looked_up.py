"""Writes what a rule looks up in a set without a name into the rule; pure.

ct state @__map0 vmap ─▶ ct state established accept, ct state invalid drop
tcp dport @__set0 accept ─▶ tcp dport 22,8000-8100 accept
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .chains import Step
from .reader import ListedElement, ListedSet
from .rules import NOT_UNDERSTOOD, READ, UNKNOWN, value_in_words, verdict_in_words

ELEMENTS_MAX = 1000
"""More than any firewall that is written by hand has in one rule."""
# NFT_SET_ANONYMOUS and NFT_SET_CONSTANT: such a set is part of one rule, and never changes.
_OF_RULE, _INTERVALS, _MAP = 0x3, 0x4, 0x8
_BOTH = _INTERVALS | _MAP
_LOOKED_UP = re.compile(rf"(?:(tcp|udp|\d+) (dport)|({'|'.join(READ)})) @(\S+)")


def set_of(step: Step) -> str:
    """Return the name of the first set that a rule looks up; empty if there is none."""
    found = _LOOKED_UP.search(step.condition)
    return found[4] if found else ""


def is_of_rule(one: ListedSet) -> bool:
    """Return whether a set belongs to one rule, and can be written into it."""
    return one.flags | _BOTH == _OF_RULE | _BOTH


def write_out(
    step: Step, looked_up: ListedSet | None, elements: Sequence[ListedElement]
) -> Iterator[Step]:
    """Yield a rule with the elements of the first set that it looks up; one per verdict of a map.

    Args:
        step: A rule with a :func:`set_of`.
        looked_up: That set; None if it isn't known. The condition isn't understood then, nor with
            an element for all other values (``*``).
        elements: All of its elements.
    """
    found = _LOOKED_UP.search(step.condition)
    if found is None:
        return
    protocol, is_port, subject = found[1], found[2], found[3] or "th dport"
    lead = f"{protocol} dport" if is_port else subject
    flags = looked_up.flags if looked_up else 0
    is_whole = len(elements) <= ELEMENTS_MAX and all(one.key for one in elements)
    if looked_up is None or not is_whole or flags & _BOTH == _BOTH:
        unknown = NOT_UNDERSTOOD.get(subject, UNKNOWN)
        yield _replace(step, f"meta l4proto {protocol} {unknown}" if is_port else unknown)
    elif flags & _MAP:
        for one in elements:
            written = _replace(step, f"{lead} {value_in_words(subject, one.key)}")
            yield written._replace(verdict=verdict_in_words(one.value))
    elif flags & _INTERVALS:
        yield _replace(step, f"{lead} {','.join(_spans(elements))}")
    else:
        values = (value_in_words(subject, one.key) for one in elements)
        yield _replace(step, f"{lead} {','.join(values)}")


def _replace(step: Step, text: str) -> Step:
    return step._replace(condition=_LOOKED_UP.sub(lambda _found: text, step.condition, count=1))


def _spans(elements: Sequence[ListedElement]) -> Iterator[str]:
    """Yield intervals in words: each begins with an element, and ends in front of the next one."""
    first: int | None = None
    # Where one ends and another begins, the end comes first.
    for one in sorted(elements, key=lambda one: (one.key, not one.is_end)):
        here = int.from_bytes(one.key, "big")
        if not one.is_end:
            first = here
        elif first is not None:
            yield f"{first}-{here - 1}" if first < here - 1 else str(first)
            first = None
    if first is not None:
        yield f"{first}-65535"
