"""After a restart the saved state is served: an agent that finds a recent state serves it without
the API server, and an agent that exits in an orderly way has written its saved state.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from ...machine.files import CONTROL
from ...machine.machine import Process
from ..plan import KERNEL, STATE
from .base import Invariant

if TYPE_CHECKING:
    from ..agents import AgentRun
    from ..world import World

_GZIP = 31
# The time until the first round with the saved state, if nothing is disturbed.
_SERVED_S = 1.0
# The time for which the file may be outdated after a full disk or a stopped process.
_LATE_S = 35.0


class LastStates(Invariant):
    """Judges the files with saved states, as the module describes."""

    NAME = "saved state"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._failed_at = float("-inf")
        world.disk.failed = self._note_failure
        world.disk.was_read = self._was_read

    def _note_failure(self) -> None:
        self._failed_at = self._world.timeline.now

    def dying(self, process: Process) -> None:
        """Judge the file of an agent that exits in an orderly way."""
        world, run = self._world, self._world.agents[-1] if self._world.agents else None
        is_orderly = process.kind == CONTROL and process.status == 0
        if not is_orderly or run is None or not run.has_served or not world.plan.keeps_state:
            return
        now = world.timeline.now
        if self._failed_at > now - _LATE_S or process.loop.held_until > now - _LATE_S:
            return
        file = world.disk.files.get(STATE)
        if file is not None and file.is_torn:
            return
        found = _read(file.data) if file is not None else None
        self.check(found is not None, "there is no file that can be read")
        if found is None:
            return
        names = {tuple(line["service"]["key"]) for line in found[2:]}
        states = list(world.cluster.between(world.freshness.floor(), now))
        each = [{key[1:] for key in truth.objects if key[0] == "Service"} for truth in states]
        lost = {key for key in each[-1] if all(key in state for state in each)} - names
        old = names - set[tuple[str, ...]]().union(*each)
        self.check(not lost and not old, f"the file lacks {lost}, and has {old}")

    def _was_read(self, name: str) -> None:
        """Check later that an agent serves the recent state that it has read."""
        world, run = self._world, self._world.agent
        file = world.disk.files.get(name)
        if name != STATE or run is None or file is None or _read(file.data) is None:
            return
        if 0 <= world.unix() - file.mtime <= world.plan.settings.state_max_age_s:
            world.timeline.after(_SERVED_S, self._check_served, run, world.refusals)

    def _check_served(self, run: AgentRun, refused: int) -> None:
        world, now = self._world, self._world.timeline.now
        if run.process.is_dead or run.is_ending:
            return
        is_held = run.process.loop.held_until > now - _SERVED_S
        fails = world.refusals != refused or world.machine.slow_s or is_held
        # The kernel may refuse other calls than transactions, too.
        may_fail = any(event.what == KERNEL for event in world.plan.events)
        may_fail = may_fail and now < world.began + world.plan.calm_at + 2 * _SERVED_S
        if not run.is_serving and (fails or may_fail):
            # The agent retries.
            world.timeline.after(2 * _SERVED_S, self._check_served, run, world.refusals)
        else:
            self.check(run.is_serving, f"{run.process.name} doesn't serve its saved state")


def _read(data: bytes) -> list[dict[str, Any]] | None:
    """Return the parsed lines of a file; None if the file is incomplete."""
    reader = zlib.decompressobj(wbits=_GZIP)
    try:
        text = reader.decompress(data)
    except zlib.error:
        return None
    return [json.loads(line) for line in text.splitlines()] if reader.eof else None
