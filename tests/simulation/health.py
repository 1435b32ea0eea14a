"""Records events after which the node may consider an endpoint failed, or may react late.

Guarantees about picks and times are judged only if no such event has occurred for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .network import ANSWERS

if TYPE_CHECKING:
    from .world import World

# The longest ejection, plus the probe after it.
LONG_S = 75.0
# The maximum time from a dial until its failure is detected.
_KNOWN_S = 3.5
# Longer than three dials of a second each, after which a client is served or refused.
_CLIENT_S = 4.0
# Memory counts as short once 90 % of it is used, until less than 85 % is.
_SHORT = 0.85
_NEARLY = 20


class Health:
    """The disturbances of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._reported_at: dict[SocketAddress, float] = {}
        self.was_memory_short = False

    def reported(self, endpoint: SocketAddress) -> None:
        """Record that another worker has reported an endpoint as failed."""
        self._reported_at[endpoint] = self._world.timeline.now

    def was_reported(self, endpoint: SocketAddress) -> bool:
        """Return whether another worker has recently reported an endpoint as failed."""
        return self._world.timeline.now - self._reported_at.get(endpoint, -LONG_S) < LONG_S

    def used_memory(self, share: float) -> None:
        """Record the share of memory that is used from now on."""
        self.was_memory_short = self.was_memory_short or share >= _SHORT

    def is_fine(self, endpoint: SocketAddress, answered_at: float = 0.0) -> bool:
        """Return whether, for a while, the node has had no reason to consider an endpoint failed.

        Args:
            answered_at: The time of the endpoint's last answer; earlier failures are ignored.
        """
        world = self._world
        host, policies = world.hosts[endpoint], world.network.policies
        is_bad = not world.is_calm and bool(set(host.mix) - {ANSWERS})
        if is_bad or any(endpoint == SocketAddress(*at) for _, at in policies):
            return False
        failed_at = max(
            host.failures[-1] if host.failures else -LONG_S,
            self._reported_at.get(endpoint, -LONG_S),
            world.kernel.lacked_at,
            *(began + seconds for began, seconds in world.stops),
        )
        return answered_at > failed_at + _KNOWN_S or world.timeline.now - failed_at > LONG_S

    def is_undisturbed(self, for_s: float = _CLIENT_S) -> bool:
        """Return whether the process has had all resources and no pause for this time."""
        world, used = self._world, self._world.dataplane.engine.descriptors
        since = world.timeline.now - for_s
        if used.in_use >= used.limit - _NEARLY or "shedding" in world.plan.features:
            return False
        is_stopped = bool(world.stopped_since(since)) or world.loop.held_until > since
        return not (is_stopped or self.was_memory_short or world.kernel.lacked_at > since)
