"""The base class of runs with processes: a node, its plan, and processes that exit or stop."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from random import Random
from typing import ClassVar, Generic, TypeVar

from ..judgements import Judgements
from ..kernel import Runaway
from ..seam import logging_to
from ..timeline import Timeline
from .machine import Machine, Process, Speed

AnyMachine = TypeVar("AnyMachine", bound=Machine)


class _Lines(logging.Handler):
    """A handler that passes the product's log lines to a world."""

    def __init__(self, world: ProcessWorld[AnyMachine], level: int) -> None:
        super().__init__(level)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.take_line(record)


class ProcessWorld(Generic[AnyMachine]):
    """The state of one run; :meth:`run` returns the violations.

    Args:
        kind: The class of the node.
        is_traced: Whether to record each step.
    """

    LOG_LEVEL: ClassVar[int] = logging.ERROR
    """The minimum level of log lines that are collected."""
    MAX_EVENTS: ClassVar[int]
    """The maximum number of events within one wait; more are a violation."""

    def __init__(self, seed: int, kind: type[AnyMachine], speed: Speed, *, is_traced: bool) -> None:
        self.rng = Random(seed)
        self.timeline = Timeline()
        self.began = self.timeline.now
        self.machine: AnyMachine = kind(self.timeline, self.rng, speed)
        if is_traced:
            self.machine.trace = []
        self.note = self.machine.note
        self.violate = self.machine.violate
        self.judgements = Judgements(self.note, self.machine.violations)
        self.is_calm = self.is_finishing = self.is_over = False

    def take_line(self, record: logging.LogRecord) -> None:
        """Check a log line of the product."""
        raise NotImplementedError

    def installed(self) -> AbstractContextManager[None]:
        """Connect the product to the node within the block."""
        raise NotImplementedError

    def carry_out(self) -> None:
        """Run the plan."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Check the node; called after each step."""
        raise NotImplementedError

    @property
    def trace(self) -> list[tuple[float, str]]:
        """The traced events; empty unless the machine records them."""
        return self.machine.trace or []

    def run(self) -> list[str]:
        """Run the plan; return the violations in order."""
        with logging_to(_Lines(self, self.LOG_LEVEL), "userspace_proxy", self.LOG_LEVEL):
            try:
                with self.installed():
                    try:
                        self.carry_out()
                    finally:
                        self.is_over = True
                        for process in self.machine.processes:
                            process.forget()
            except (Exception, Runaway) as exc:  # noqa: BLE001 - whatever it is, it is a finding
                self.violate(f"the run ended with {exc!r}")
        return self.machine.violations

    def run_for(self, seconds: float) -> None:
        """Advance the time, up to the first violation."""
        timeline, violations = self.timeline, self.machine.violations
        end = timeline.now + seconds
        steps = 0
        while not violations and timeline.step_until(end):
            steps += 1
            self.after_step()
            if steps > self.MAX_EVENTS:
                self.violate("the node doesn't come to rest")
        timeline.now = max(timeline.now, end)

    def end_deaths(self) -> None:
        """Cancel pending deaths and shortages, and release the ports of other programs."""
        self.machine.others.clear()
        for process in self.machine.processes:
            process.dies_at_call = process.dies_at_message = 0
            process.kernel.fails.clear()

    def kill(self, kind: str, number: int) -> None:
        """Kill a process of this kind, if one exists."""
        process = self._one_of(kind, number)
        if process is not None:
            process.die(-9)

    def stop_for(self, kind: str, number: int, seconds: float) -> Process | None:
        """Suspend a process of this kind for a while, and return it; None if none exists."""
        process = self._one_of(kind, number)
        if process is not None:
            self.note(f"{process.name}: stopped for {seconds:g} s")
            process.loop.hold(seconds)
        return process

    def _one_of(self, kind: str, number: int) -> Process | None:
        alive = self.machine.alive(kind)
        return alive[number % len(alive)] if alive else None
