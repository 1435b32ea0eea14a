"""Makes a failing plan smaller: fewer steps, fewer frontends in them, a simpler node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...shrinking import parts_removed
from .plan import Plan

_SIMPLER: tuple[dict[str, object], ...] = (
    {"part_messages": 30},
    {"event_calls": 0},
    {"lacks": ()},
    {"proxy_name": ""},
    {"other_proxy": None},
    {"send_buffer_bytes": 425_984},
)


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans with less in them, those with the least first."""
    steps = plan.steps
    for some_steps in parts_removed(steps):
        yield replace(plan, steps=tuple(some_steps))
    for index, step in enumerate(steps):
        for field in ("targets", "gone"):
            some = getattr(step, field)
            for at in range(len(some)):
                fewer = replace(step, **{field: some[:at] + some[at + 1 :]})
                yield replace(plan, steps=(*steps[:index], fewer, *steps[index + 1 :]))
    for simpler in _SIMPLER:
        if any(getattr(plan.node, name) != value for name, value in simpler.items()):
            yield replace(plan, node=replace(plan.node, **simpler))  # type: ignore[arg-type]


def describe(plan: Plan) -> Iterator[str]:
    """Yield lines about a plan."""
    yield f"  {plan.node}"
    for step in plan.steps:
        yield f"  {step}"
