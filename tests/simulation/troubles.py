"""When the process was stopped, and when the kernel lacked something: what may excuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

# What is to happen at once has happened by then.
SOON_S = 0.3
# Of memory: from then on connections and flows may be ended.
_MUCH = 0.8
# Descriptors: where fewer are free, the data plane may keep them for others.
_SPARE_FILES = 30


class Troubles:
    """The troubles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stops: list[tuple[float, float]] = []
        """From when, and for how many seconds."""
        self._lacks: list[float] = []
        """Until when the kernel lacked something."""
        self._memory = [(0.0, 0.0), (0.0, 0.0)]
        """From when on which share of it was used."""

    def stopped(self, seconds: float) -> None:
        """Note that the process is stopped now."""
        self._stops.append((self._world.timeline.now, seconds))

    def lacks(self, seconds: float) -> None:
        """Note that the kernel lacks something from now on."""
        self._lacks.append(self._world.timeline.now + seconds)

    def used_memory(self, share: float) -> None:
        """Note which share of memory is used from now on."""
        self._memory.append((self._world.timeline.now, share))

    def stopped_since(self, since: float) -> float:
        """Return for how long the process was stopped since then."""
        return sum(seconds for at, seconds in self._stops if at + seconds >= since)

    def lacked(self, since: float) -> bool:
        """Return whether the kernel has lacked something since then."""
        return any(until >= since - SOON_S for until in self._lacks)

    def was_short(self, since: float) -> bool:
        """Return whether memory or descriptors may have been short since then."""
        since -= self.stopped_since(since)
        shares = [share for at, share in self._memory if at >= since]
        if max(self._memory[-1][1], self._memory[-2][1], *shares) > _MUCH:
            return True
        return len(self._world.kernel.files) > self._world.plan.node.descriptor_limit - _SPARE_FILES
