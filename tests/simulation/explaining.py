"""Explains a seed: prints its plan, shrunk if it fails, and the sequence of events."""

from __future__ import annotations

import sys
import textwrap

from .diagram import WIDTH, diagram
from .halves import load
from .shrinking import shrink

_LINES = 36
_PLAN_LINES = 12


def explain(name: str, seed: int, *, is_whole: bool = False) -> int:
    """Explain a seed; return the exit status.

    Args:
        is_whole: Print the whole drawn plan and each line of the trace.
    """
    half = load(name)
    plan = half.make_plan(seed)
    found = half.world(plan).run()
    if found and not is_whole:
        plan = shrink(plan, lambda smaller: half.world(smaller).run(), half.smaller_plans)
    world = half.world(plan, is_traced=True)
    found = world.run()
    out = sys.stdout.write
    out(f"\nseed {seed}: {', '.join(sorted(plan.features))}\n")
    lines = [line for each in half.describe(plan) for line in textwrap.wrap(each, WIDTH - 2)]
    shown = lines if is_whole else lines[:_PLAN_LINES]
    for line in shown:
        out(f"{line}\n")
    if len(shown) < len(lines):
        out(f"… {len(lines) - len(shown)} lines more with --whole\n")
    if is_whole:
        for when, text in world.trace:
            out(f"{when - world.began:10.4f}  {text}\n")
    else:
        out("\n")
        for line in diagram(world.trace, world.began, _LINES):
            out(f"{line}\n")
    for violation in found[:5]:
        out(f"violated: {violation[: WIDTH * 2]}\n")
    if found:
        out(f"replay with: make simulate HALF={name} SEED={seed}\n")
    return 1 if found else 0
