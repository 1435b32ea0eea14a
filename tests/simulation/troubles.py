"""When memory, descriptors or what a flow needs were short: what may excuse the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

# What is to happen at once has happened by then.
SOON_S = 0.3
# Memory is short from 90 % on, until 85 %: connections and flows may be ended.
_SHORT = (0.9, 0.85)
# Usage is read four times a second.
_LOOK_S = 0.5
# For so long after a reset new connections of the same client may be reset, too.
_PRESSING_S = 1.0
# What a flow needs for its endpoint.
_CALLS = ("socket", "connect", "epoll_ctl", "send")
# Descriptors: within a turn some may be taken and given back.
_NEARLY = 4


class Troubles:
    """The troubles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._memory = [(0.0, False)]
        """From when on it was short, or wasn't."""
        self._full_at = -1.0
        """When descriptors were last short."""

    def used_memory(self, share: float) -> None:
        """Note which share of memory is used from now on."""
        is_short = share >= _SHORT[self._memory[-1][1]]
        self._memory.append((self._world.timeline.now, is_short))

    def flows_lacked(self, since: float) -> bool:
        """Return whether the kernel has refused what a flow needs since then."""
        lacked_in = self._world.kernel.lacked_in
        return any(lacked_in.get(call, -1.0) >= since for call in _CALLS)

    def is_short(self) -> bool:
        """Return whether one flow may have to end for another one now, though more are allowed."""
        world = self._world
        if world.kernel.lacked_in.get("connect", -1.0) >= world.moment()[0]:
            # It had no port.
            return True
        used = world.dataplane.engine.descriptors
        return used.in_use >= used.limit or self.was_memory_short(world.timeline.now)

    def was_short(self, since: float) -> bool:
        """Return whether memory or descriptors may have been short since then."""
        return self._full_at >= self._world.earliest(since) or self.was_memory_short(since)

    def look(self) -> None:
        """Note whether descriptors are short, after a turn."""
        used = self._world.dataplane.engine.descriptors
        if used.in_use >= used.limit - _NEARLY:
            self._full_at = self._world.timeline.now

    def frees_memory(self) -> bool:
        """Return whether what ends now may end to free memory, or in the place of what did."""
        return self.was_memory_short(self._world.moment()[0] - _PRESSING_S)

    def was_memory_short(self, since: float) -> bool:
        """Return whether memory may have been short since then, as far as the process has read."""
        # A stop within that time may be between two looks.
        since = self._world.earliest(since - _LOOK_S)
        last = self._memory[-1]
        until = [at for at, _ in self._memory[1:]]
        ended = zip(self._memory, until, strict=False)
        return last[1] or any(is_short and at >= since for (_, is_short), at in ended)
