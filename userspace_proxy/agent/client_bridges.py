"""Tracks the bridges on which endpoints see the addresses of clients on the same bridge.

    NodeRoutes ──links, sysctls──▶ ClientBridges ──wanted──▶ ReplyRouting
                                         └──networks, marked──▶ Plane.preserve

Rule 1: a bridge counts once the kernel delivers its answers here, and not before.
Rule 2: an obstacle is logged once, and again after it was gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..policy.bridges import (
    BridgeFamily,
    BridgeFilter,
    BridgeObstacle,
    find_obstacles,
    mark_filtered,
    pod_bridges,
)
from ..policy.locality import Networks, NodeLink

_log = logging.getLogger("userspace_proxy.agent")


class ClientBridges:
    """Which bridges there are, and what is known of each."""

    def __init__(self) -> None:
        self._bridges: dict[BridgeFamily, NodeLink] = {}
        self._settings: dict[BridgeFamily, BridgeObstacle] = {}
        self._delivering: frozenset[int] = frozenset()
        self._refusal = ""
        self._logged: frozenset[BridgeObstacle] = frozenset()

    @property
    def wanted(self) -> frozenset[int]:
        """The bridges whose settings let answers be delivered here, for one IP version at least."""
        return frozenset(number for number, _ in self._bridges.keys() - self._settings.keys())

    @property
    def obstacles(self) -> tuple[BridgeObstacle, ...]:
        """Why endpoints on bridges don't see clients' addresses, by bridge and IP version."""
        found = dict(self._settings)
        if self._refusal:
            for family, bridge in self._bridges.items():
                obstacle = BridgeObstacle(bridge.name, family[1], self._refusal)
                found.setdefault(family, obstacle)
        return tuple(sorted(found.values()))

    def follow(
        self, links: tuple[NodeLink, ...], networks: Networks, settings: BridgeFilter
    ) -> None:
        """Take the node's links, networks and settings as they are now."""
        self._bridges = pod_bridges(links, networks)
        self._settings = find_obstacles(self._bridges, links, settings)

    def note(self, delivering: Iterable[int], refusal: str) -> bool:
        """Take which bridges deliver answers here.

        Args:
            delivering: Their numbers.
            refusal: Why the kernel lets none do so; empty where it does.

        Returns:
            Whether that differs from before.
        """
        before = self._delivering, self._refusal
        self._delivering, self._refusal = frozenset(delivering), refusal
        return (self._delivering, self._refusal) != before

    def mark(self, networks: Networks) -> Networks:
        """Return the networks with those marked that are on bridges which deliver answers here."""
        families = self._bridges.keys() - self._settings.keys()
        return mark_filtered(networks, (f for f in families if f[0] in self._delivering))

    def log_obstacles(self) -> None:
        """Log the obstacles that are new since the last call, and the end of the last one."""
        now = frozenset(self.obstacles)
        for obstacle in sorted(now - self._logged):
            _log.warning(
                "endpoints see this node's address where client and endpoint share a bridge",
                extra={
                    "bridge": obstacle.bridge,
                    "family": f"IPv{obstacle.version}",
                    "cause": obstacle.cause,
                    "hint": obstacle.hint,
                },
            )
        if self._logged and not now:
            _log.info("endpoints now see the addresses of clients on the same bridge")
        self._logged = now
