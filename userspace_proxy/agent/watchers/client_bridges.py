"""Tracks bridges on which endpoints see the addresses of clients on the same bridge.

    NodeRoutes ──links, sysctls──▶ ClientBridges ──wanted──▶ ReplyRouting
                                         └──networks, marked──▶ Plane.preserve

Rule 1: a bridge's networks are marked as ``FILTERED_BRIDGE`` only while the kernel delivers replies
on the bridge to this proxy.
Rule 2: an obstacle is logged once, and again if it reappears.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model.node_network import BridgeFilter, NodeLink
from ...policy.bridges import (
    BridgeFamily,
    BridgeProblem,
    find_bridge_problems,
    mark_filtered,
    pod_bridges,
)
from ...policy.locality import Networks

_log = FieldLogger("userspace_proxy.agent")


class ClientBridges:
    """One node's bridges, and the obstacles to delivering replies on them to this proxy."""

    def __init__(self) -> None:
        self._bridges: dict[BridgeFamily, NodeLink] = {}
        self._settings: dict[BridgeFamily, BridgeProblem] = {}
        self._delivering: frozenset[int] = frozenset()
        self._existing: frozenset[int] = frozenset()
        """The interface indexes of bridges on which a forwarding entry has an effect."""
        self._refusal = ""
        self._condition = LoggedCondition[BridgeProblem](
            _log,
            "endpoints see this node's address where client and endpoint share bridge "
            "%(bridge)s: %(cause)s",
            "bridges no longer hide client addresses from endpoints",
            fields=lambda obstacle: {
                "bridge": obstacle.bridge,
                "family": f"IPv{obstacle.version}",
                "cause": obstacle.cause,
                "remedy": obstacle.hint,
            },
        )

    @property
    def wanted(self) -> frozenset[int]:
        """The indexes of bridge interfaces that may deliver replies here, for any IP version.

        Includes bridges whose settings allowed delivery earlier and may have open connections.
        """
        able = frozenset(number for number, _ in self._bridges.keys() - self._settings.keys())
        return able | (self._delivering & self._existing)

    @property
    def obstacles(self) -> tuple[BridgeProblem, ...]:
        """Why endpoints on bridges don't see client addresses, by bridge and IP version."""
        found = dict(self._settings)
        if self._refusal:
            for family, bridge in self._bridges.items():
                obstacle = BridgeProblem(bridge.name, family[1], self._refusal)
                found.setdefault(family, obstacle)
        return tuple(sorted(found.values()))

    def follow(
        self, links: tuple[NodeLink, ...], networks: Networks, settings: BridgeFilter
    ) -> None:
        """Update the bridges from the node's current links, networks and settings."""
        self._bridges = pod_bridges(links, networks)
        self._settings = find_bridge_problems(self._bridges, links, settings)
        self._existing = frozenset(
            link.number for link in links if link.kind == "bridge" and not link.filters_vlans
        )

    def note(self, delivering: Iterable[int], refusal: str) -> None:
        """Record the bridges that deliver replies here.

        Args:
            delivering: The bridges' interface indexes.
            refusal: Why the kernel rejects delivery on all bridges; empty if it permits delivery.
        """
        self._delivering, self._refusal = frozenset(delivering), refusal

    def mark(self, networks: Networks) -> Networks:
        """Return all networks; networks of bridges that deliver replies here are marked."""
        families = self._bridges.keys() - self._settings.keys()
        return mark_filtered(networks, (f for f in families if f[0] in self._delivering))

    def log_obstacles(self) -> None:
        """Log obstacles that are new since the last call, or the end of the last obstacle."""
        self._condition.set(*self.obstacles)
