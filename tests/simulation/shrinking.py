"""Shrinks a failing plan while it still fails in the same way, and describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.handling import Handling
from userspace_proxy.model.serving import Serving

from .plan import CLIENT, Plan

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
P = TypeVar("P")
D = TypeVar("D", bound="DataclassInstance")

# The maximum number of plans to try, which takes about 20 s.
_MAX_RUNS = 600
_SIMPLER_NODES: Sequence[dict[str, Any]] = (
    {"preemption": 0.0},
    {"spurious": 0.0},
    {"loss": 0.0},
    {"ends": "calm"},
    {"timers_first": False},
    {"is_preserving": False},
    {"reads_headers": False},
    {"max_pipes": 0},
    {"processes": 1, "index": 0},
)


def kind_of(violation: str) -> str:
    """Return a violation without its numbers, to compare two runs."""
    return re.sub(r"[\d.]+|0x[0-9a-f]+", "n", violation)


def shrink(
    plan: P,
    run: Callable[[P], list[str]],
    smaller_ones: Callable[[P], Iterator[P]],
    most: int = _MAX_RUNS,
) -> P:
    """Return a smaller plan whose first violation is of the same kind.

    Args:
        plan: A failing plan.
        run: Returns the violations of a plan.
        smaller_ones: Returns smaller plans, the smallest first.
        most: The maximum number of plans to try.
    """
    wanted = kind_of(run(plan)[0])
    runs = 0
    has_changed = True
    while has_changed:
        has_changed = False
        for smaller in smaller_ones(plan):
            runs += 1
            if runs > most:
                return plan
            found = run(smaller)
            if found and kind_of(found[0]) == wanted:
                plan, has_changed = smaller, True
                break
    return plan


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield smaller plans of the data plane, the smallest first."""
    for events in parts_removed(plan.events):
        yield replace(plan, events=tuple(events))
    for endpoint, scripts in plan.scripts.items():
        if scripts:
            yield replace(plan, scripts={**plan.scripts, endpoint: ()})
        for number, script in enumerate(scripts):
            for steps in parts_removed(script):
                others = (*scripts[:number], tuple(steps), *scripts[number + 1 :])
                yield replace(plan, scripts={**plan.scripts, endpoint: others})
    for number, event in enumerate(plan.events):
        if event.what == CLIENT:
            for steps in parts_removed(event.args[3]):
                args = (*event.args[:3], tuple(steps), *event.args[4:])
                events = list(plan.events)
                events[number] = replace(event, args=args)
                yield replace(plan, events=tuple(events))
    for simpler in _SIMPLER_NODES:
        node = replace(plan.node, **simpler)
        if node != plan.node:
            yield replace(plan, node=node)


def parts_removed(items: Sequence[T]) -> Iterator[list[T]]:
    """Yield the items without each half, then without each quarter, …, then without each item."""
    size = len(items) // 2 or 1
    while items and size:
        for start in range(0, len(items), size):
            yield [*items[:start], *items[start + size :]]
        size //= 2


def describe(plan: Plan) -> Iterator[str]:
    """Yield the lines that describe a plan of the data plane."""
    yield str(plan.node)
    for number, service in enumerate(plan.services):
        at = ":".join(map(str, service.address))
        yield f"service {number}: {service.protocol} {at} {brief(service.serving)}"


def brief(value: object) -> str:
    """Format a value without fields that have their default values."""
    if isinstance(value, SocketAddress):
        return str(value)
    if isinstance(value, tuple):
        return f"({' '.join(map(brief, value))})"
    if isinstance(value, Enum):
        return str(value.value)
    if not isinstance(value, Serving | Handling):
        return str(value)
    usual = type(value)()
    names = type(value).__annotations__
    return ", ".join(
        f"{name}={brief(getattr(value, name))}"
        for name in names
        if getattr(value, name) != getattr(usual, name)
    )
