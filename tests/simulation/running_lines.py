"""Prints the lines of the product that a half runs, by module, as JSON: for mutants."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from .drawn_mutants import PRODUCT
from .halves import load


class Lines:
    """Records which lines of functions run."""

    def __init__(self) -> None:
        self.by_module: dict[str, set[int]] = {}
        self._by_file: dict[str, Callable[..., Any] | None] = {}

    def trace(self, frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        """Trace function for ``sys.settrace``, called at each function's start."""
        file = frame.f_code.co_filename
        if file not in self._by_file:
            name = frame.f_globals.get("__name__", "")
            is_own = name.partition(".")[0] == PRODUCT
            self._by_file[file] = (
                _noting(self.by_module.setdefault(name, set())) if is_own else None
            )
        return self._by_file[file]


def _noting(lines: set[int]) -> Callable[..., Any]:
    def note(frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
        if event == "line":
            lines.add(frame.f_lineno)
        return note

    return note


def main(name: str, seeds: int) -> None:
    """Run a half's seeds, and print the lines that ran."""
    half, lines = load(name), Lines()
    for seed in range(seeds):
        world = half.world(half.make_plan(seed))
        sys.settrace(lines.trace)
        world.run()
        sys.settrace(None)
    json.dump({name: sorted(numbers) for name, numbers in lines.by_module.items()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
