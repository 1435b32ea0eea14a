"""Provides the facts about this node for plans, and follows changes of its addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from ...causes.cause import Cause
from ...causes.say import say
from ...cluster import Snapshot
from ...errors import SteeringError
from ...facts import PortFacts, StatusFacts
from ...kernel.interface_addresses import NodeAddresses
from ...kernel.routes import route_refusal
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model import FrontendKind, IPFamily, ip_of
from ...policy import NodeFacts
from ...policy.node_facts import (
    ADDRESSES_WITHOUT_STEERING,
    make_facts,
    no_node_ports_reason,
    options_with,
)
from ...steering import Steering
from ..rounds.component import Component
from ..rounds.options import Options
from ..rounds.tasks import Supervisor

_log = FieldLogger("userspace_proxy.agent")
_SOUGHT = 100


class NodeNow(Component):
    """Provides the state of the node on which plans depend, and logs missing parts."""

    def __init__(self, steering: Steering, options: Options) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called after changes of the node's addresses."""
        self._steering = steering
        self._options = options_with(steering.name, options)
        self._addresses: NodeAddresses | None = None
        self._no_node = LoggedCondition[Cause](
            _log,
            "node name may be wrong: %(cause)s",
            "this node's Node object exists now",
            fields=lambda cause: {"cause": say(cause)},
        )
        self._no_node_ports = LoggedCondition[str](
            _log, "node ports are not served: %(cause)s", "node ports are served now"
        )

    async def start(self, supervisor: Supervisor) -> None:
        del supervisor
        if self._steering.name != "none":
            self._addresses = NodeAddresses(asyncio.get_running_loop(), self.on_change)

    def facts_for(self, snapshot: Snapshot) -> NodeFacts:
        """Return the node facts for planning a snapshot; log a missing Node or node ports."""
        known = self._addresses
        addresses = ADDRESSES_WITHOUT_STEERING if known is None else known.current
        facts = make_facts(self._options, snapshot, addresses, self._steering.no_kernel_path)
        self._no_node_ports.set(no_node_ports_reason(facts))
        self._no_node.set(*([facts.no_node] if facts.no_node else []))
        return facts

    def show(self, facts: StatusFacts) -> None:
        facts.no_node = next(iter(self._no_node.now), None)
        if self._steering.name not in ("none", "local"):
            facts.unrouted = _unrouted(facts.ports)

    async def close(self) -> None:
        if self._addresses is not None:
            self._addresses.close()


def _unrouted(ports: Sequence[PortFacts]) -> Mapping[str, str]:
    """Return why a cluster IP of each family has no route, by IP; empty if it has, or on an error.

    Cost: a look-up takes 50 µs, so only IPs of the first Service ports are looked up.
    """
    frontends = (one for port in ports[:_SOUGHT] for one in port.frontends)
    # The causes of others, for example that IPv6 is switched off, also explain a missing route.
    reached = (one for one in frontends if one.is_reached)
    ips = [ip_of(one.address) for one in reached if one.kind == FrontendKind.CLUSTER_IP]
    with contextlib.suppress(SteeringError):
        samples = {IPFamily.of(ip): ip for ip in ips}.values()
        return {ip: why for ip in samples if (why := route_refusal(ip))}
    return {}
