"""What runs of sources have in common: an etcd, and the processes that ask its API servers."""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from random import Random
from typing import Generic

from ..control.machine import Speed
from ..control.process_world import AnyMachine
from ..judgements import Judgements
from ..timeline import Timeline
from .api_etcd import Etcd


class SourceWorld(abc.ABC, Generic[AnyMachine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        kind: The class of the node.
        is_traced: Whether to note each step.
    """

    def __init__(self, seed: int, kind: type[AnyMachine], *, is_traced: bool) -> None:
        self.rng = Random(seed + 1)
        self.timeline = Timeline()
        self.began = self.timeline.now
        self.machine: AnyMachine = kind(self.timeline, self.rng, Speed())
        if is_traced:
            self.machine.trace = []
        self.note = self.machine.note
        self.violations: list[str] = []
        self.judgements = Judgements(self.note, self.violations)
        self.etcd = Etcd()
        self.is_over = False

    @abc.abstractmethod
    def installed(self) -> AbstractContextManager[None]:
        """Have the product call what is simulated while this lasts."""

    @abc.abstractmethod
    def carry_out(self) -> None:
        """Carry the plan out."""

    @property
    def trace(self) -> list[tuple[float, str]]:
        """What happened, if it is traced."""
        return self.machine.trace or []

    @property
    def now(self) -> float:
        return self.timeline.now

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""
        with self.installed():
            try:
                self.carry_out()
            finally:
                self.is_over = True
                for process in self.machine.processes:
                    process.forget()
        for text in self.machine.violations:
            self.judgements.violate("runs", text)
        return self.violations
