"""What runs of processes have in common: a node, how it is run, and processes that end or stop."""

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
    """Has a world take what the product logs."""

    def __init__(self, world: ProcessWorld[AnyMachine], level: int) -> None:
        super().__init__(level)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.take_line(record)


class ProcessWorld(Generic[AnyMachine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        kind: The class of the node.
        is_traced: Whether to note each step.
    """

    LOG_LEVEL: ClassVar[int] = logging.ERROR
    """Of lines that are taken."""
    MAX_EVENTS: ClassVar[int]
    """More of them within one wait mean that the node doesn't come to rest."""

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
        """Take what the product logs."""
        raise NotImplementedError

    def installed(self) -> AbstractContextManager[None]:
        """Have the product call the node while this lasts."""
        raise NotImplementedError

    def carry_out(self) -> None:
        """Carry the plan out."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Look at the node after each step."""
        raise NotImplementedError

    @property
    def trace(self) -> list[tuple[float, str]]:
        """What happened, if it is traced."""
        return self.machine.trace or []

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""
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
        """Let time pass, until something is wrong."""
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
        """Have no process die by itself any more, and nothing lack."""
        self.machine.others.clear()
        for process in self.machine.processes:
            process.dies_at_call = process.dies_at_message = 0
            process.kernel.fails.clear()

    def kill(self, kind: str, number: int) -> None:
        """Kill one of the processes of a kind, if there are any."""
        process = self._one_of(kind, number)
        if process is not None:
            process.die(-9)

    def stop_for(self, kind: str, number: int, seconds: float) -> Process | None:
        """Stop one of the processes of a kind for a while, and return it."""
        process = self._one_of(kind, number)
        if process is not None:
            self.note(f"{process.name}: stopped for {seconds:g} s")
            process.loop.hold(seconds)
        return process

    def _one_of(self, kind: str, number: int) -> Process | None:
        alive = self.machine.alive(kind)
        return alive[number % len(alive)] if alive else None
