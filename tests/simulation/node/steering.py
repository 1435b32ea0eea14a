"""A table of the kernel as a dictionary, and a steering that writes it.

Rule 1: what a process of the agent writes is there when it dies, and a part of it never is.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import TYPE_CHECKING

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE, Bind, Steering, Target
from userspace_proxy.steering.base import (
    Targets,
    merge_change,
    nothing_applied,
    render_targets,
)

if TYPE_CHECKING:
    from .machine import AgentProcess

APPLY, CHANGE, REPAIR, CLEAN_UP = "apply", "change", "repair", "clean up"
"""The writes of a steering."""


class Table:
    """What is in the kernel."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self.targets: Targets = {}
        self.version = 0
        self.refusals = 0
        """So many more writes are refused."""
        self.is_refusing = False
        """Each write is refused."""
        self.slow_s = 0.0
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[], None] = lambda: None
        self.wrote: Callable[[AgentProcess, str, bool, int], None] = lambda *_: None
        """Called with each write: of which process, which call, whether it was taken, and how many
        rules it has repaired."""
        self.round_ended: Callable[[AgentProcess], None] = lambda _process: None
        """Called when all rules of a round are in force."""
        self.refused_count = 0
        self.refused_last: AgentProcess | None = None
        """The process whose last write was refused; None: it was taken."""

    def replace(self, targets: Mapping[Frontend, Target]) -> None:
        """Have exactly these frontends steered."""
        self.targets = dict(targets)
        self.version += 1
        self.refused_last = None
        self.changed()

    def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Steer some in another way, and others no more."""
        merge_change(self.targets, changed, gone)
        self.version += 1
        self.refused_last = None
        self.changed()

    def drift(self, how: str, share: float) -> None:
        """Have another program change it: one frontend gone, or led elsewhere, or all gone."""
        if how == "flush":
            self.targets = {}
        elif self.targets:
            frontends = sorted(self.targets)
            frontend = frontends[int(share * len(frontends))]
            if how == "gone":
                del self.targets[frontend]
            else:
                self.targets[frontend] = REFUSE

    def check(self, process: AgentProcess, call: str) -> None:
        """Raise what the kernel answers to a write that it refuses."""
        if self.refusals or self.is_refusing:
            self.refusals -= not self.is_refusing
            self.refused_count += 1
            self.refused_last = process
            self.wrote(process, call, False, 0)
            self.refused()
            raise SteeringError(f"cannot write: {os.strerror(errno.ENOMEM)}")

    async def wait(self) -> None:
        """Take the time of a write."""
        await asyncio.sleep(self.slow_s + 0.002 * self._random())  # noqa: TID251 - virtual time


class TableSteering(Steering):
    """Writes the table, as ``nftables`` steering does."""

    name = "nftables"
    bind = Bind.PROXY_PORT

    def __init__(self, table: Table, process: AgentProcess) -> None:
        self._table = table
        self._process = process
        self._wanted: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        await self._enter()
        found = self._table.targets
        return {f: t if isinstance(t, int) else 0 for f, t in found.items()}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        await self._enter()
        self._table.check(self._process, APPLY)
        self._wanted = dict(wanted)
        self._table.replace(wanted)
        self._table.wrote(self._process, APPLY, True, 0)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        if self._wanted is None:
            raise nothing_applied()
        await self._enter()
        self._table.check(self._process, CHANGE)
        merge_change(self._wanted, changed, gone)
        self._table.change(changed, gone)
        self._table.wrote(self._process, CHANGE, True, 0)

    async def forget_stale(self) -> None:
        """Part of Steering: what precedes the end of a round."""
        self._table.round_ended(self._process)

    async def render(self) -> str:
        """Part of Steering."""
        return render_targets(self._table.targets)

    async def repair(self) -> int:
        """Part of Steering."""
        if self._wanted is None:
            return 0
        await self._enter()
        found = self._table.targets
        drifted = [
            f for f in found.keys() | self._wanted.keys() if found.get(f) != self._wanted.get(f)
        ]
        if drifted:
            self._table.check(self._process, REPAIR)
            self._table.replace(self._wanted)
        self._table.wrote(self._process, REPAIR, True, len(drifted))
        return len(drifted)

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._enter()
        self._table.check(self._process, CLEAN_UP)
        self._wanted = None
        self._table.replace({})

    async def close(self) -> None:
        """Part of Steering."""

    async def _enter(self) -> None:
        await self._table.wait()
        # It may die here, or has died.
        self._process.kernel.enter("sendmsg")
