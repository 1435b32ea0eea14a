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


class Table:
    """What is in the kernel."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self.targets: Targets = {}
        self.version = 0
        self.refusals = 0
        """So many more writes are refused."""
        self.slow_s = 0.0
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[], None] = lambda: None
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

    def check(self, process: AgentProcess) -> None:
        """Raise what the kernel answers to a write that it refuses."""
        if self.refusals:
            self.refusals -= 1
            self.refused_count += 1
            self.refused_last = process
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
        self._table.check(self._process)
        self._wanted = dict(wanted)
        self._table.replace(wanted)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        if self._wanted is None:
            raise nothing_applied()
        await self._enter()
        self._table.check(self._process)
        merge_change(self._wanted, changed, gone)
        self._table.change(changed, gone)

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
            self._table.check(self._process)
            self._table.replace(self._wanted)
        return len(drifted)

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._enter()
        self._table.check(self._process)
        self._wanted = None
        self._table.replace({})

    async def close(self) -> None:
        """Part of Steering."""

    async def _enter(self) -> None:
        await self._table.wait()
        # It may die here, or has died.
        self._process.kernel.enter("sendmsg")
