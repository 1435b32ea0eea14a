"""Creates and connects the objects that carry traffic, and the watchers that sync rounds query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from ..cluster.store import ServiceState
from ..facts import StatusFacts
from ..kernel.offers import LACKS_NOTHING, KernelOffers
from ..model import Frontend, ServiceKey
from ..plan import Planner
from ..plane import Plane, PortPool
from ..plane.observation import Observation
from ..policy import NodeFacts
from ..sources import Source
from ..status.observing import Observing
from ..steering import Steering
from .rounds.options import Options
from .rounds.planning import Planning
from .rounds.served_ports import ServedPorts
from .rounds.sync import SyncLoop
from .watchers.client_address import ClientAddresses
from .watchers.health_check_ports import HealthChecks
from .watchers.node_now import NodeNow

if TYPE_CHECKING:
    from ..plane.adoption import PreviousWorkers


@dataclass(slots=True, kw_only=True)
class Core:
    """The objects that carry one proxy's traffic, and the watchers that its sync rounds query.

    Args:
        recovered: Proxy ports that rules of an earlier run still point to, by frontend.
        pool: The proxy ports, and which of them are free.
        health: Returns the facts about the proxy, without its Service ports.
    """

    options: Options
    source: Source
    steering: Steering
    is_own_steering: bool
    """Whether the agent created the steering mechanism; otherwise, nothing else on the node is
    changed."""
    previous_workers: PreviousWorkers | None
    plane: Plane
    client_addresses: ClientAddresses | None
    """The preservation of client addresses; None if they aren't preserved."""
    kernel: KernelOffers = LACKS_NOTHING
    recovered: InitVar[Mapping[Frontend, int]]
    pool: InitVar[PortPool]
    health: InitVar[Callable[[], StatusFacts]]
    node: NodeNow = field(init=False)
    health_checks: HealthChecks = field(init=False)
    served_ports: ServedPorts = field(init=False)
    sync: SyncLoop = field(init=False)
    observing: Observing = field(init=False, default_factory=Observing)
    observation: Observation = field(init=False)

    def __post_init__(
        self,
        recovered: Mapping[Frontend, int],
        pool: PortPool,
        health: Callable[[], StatusFacts],
    ) -> None:
        options, source, steering = self.options, self.source, self.steering
        planner = Planner(NodeFacts())
        self.node = NodeNow(steering, options)
        self.health_checks = HealthChecks(planner, health)
        self.served_ports = ServedPorts(
            self.plane,
            steering.bind,
            pool,
            transparent=steering.needs_transparent,
            second_port=options.second_port,
        )
        planning = Planning(
            planner,
            self.served_ports,
            recovered=recovered,
            facts=self.node.facts_for,
            prepare=self.client_addresses.prepare if self.client_addresses else None,
            report=source.record,
            want_nodes=source.want_nodes,
            ports_of_others=self._ports_of_previous_workers,
        )
        self.sync = SyncLoop(
            planning,
            self.served_ports,
            steering,
            min_period_s=options.min_sync_period_s,
            check_health=self.health_checks.apply,
            report=source.record,
        )
        self.node.on_change = self.sync.look_again
        self.observation = Observation(
            self.plane, self.observing, lambda: self.sync.progress.taken, options.node_name
        )

    def _ports_of_previous_workers(self) -> Set[int]:
        return frozenset() if self.previous_workers is None else self.previous_workers.ports

    def services(self) -> Mapping[ServiceKey, ServiceState]:
        """Return the Services of the newest snapshot; empty before the first snapshot."""
        latest = self.sync.progress.latest
        return {} if latest is None else latest.services
