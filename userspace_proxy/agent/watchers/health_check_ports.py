"""Serves the health check node ports of the applied plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...clocks import Clocks
from ...facts import HealthCheckFacts, StatusFacts
from ...kernel.port_holders import who_holds
from ...model import IPFamily, Protocol, ServiceKey
from ...plan import Plan, Planner
from ...status.health import is_working
from ..rounds.component import Component

if TYPE_CHECKING:
    from ...status.health_checks import HealthCheckPorts


class HealthChecks(Component):
    """Serves the health check node ports of one proxy.

    Args:
        planner: The planner, with the facts of the applied plan.
        health: Returns the facts about the proxy, without its Service ports.
    """

    def __init__(self, planner: Planner, health: Callable[[], StatusFacts]) -> None:
        self._planner = planner
        self._health = health
        self._ports: HealthCheckPorts | None = None

    async def apply(self, plan: Plan) -> None:
        if self._ports is None:
            if not plan.health_checks:
                return
            # Import aiohttp here: it takes half a second, and few proxies have such a Service.
            from ...status.health_checks import HealthCheckPorts

            self._ports = HealthCheckPorts(
                lambda: is_working(self._health(), Clocks.time()), who_holds=_holder
            )
        facts = self._planner.facts
        await self._ports.apply(
            plan.health_checks.values(),
            None
            if facts.has_node_ports_everywhere
            else [ip for family in IPFamily for ip in facts.node_port_addresses(family)],
        )

    def facts_of(self, plan: Plan) -> tuple[HealthCheckFacts, ...]:
        """Return a plan's health check node ports as facts, sorted by Service."""
        return facts_of_checks(plan, self._ports.problems if self._ports is not None else {})

    async def close(self) -> None:
        if self._ports is not None:
            await self._ports.close()


def facts_of_checks(plan: Plan, problems: Mapping[ServiceKey, str]) -> tuple[HealthCheckFacts, ...]:
    """Return a plan's health check node ports as facts, sorted by Service, with their problems."""
    return tuple(
        HealthCheckFacts(str(key), check.port, check.local_endpoints, problems.get(key, ""))
        for key, check in sorted(plan.health_checks.items())
    )


def _holder(ip: str, port: int) -> str:
    return str(who_holds(Protocol.TCP, port, IPFamily.of(ip)) or "")
