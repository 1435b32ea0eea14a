"""The values that the page, the metrics and the health responses show.

The agent fills them in; this package only shows them. Counters grow until the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import ListenError
from ..model import Balance, Cause, CauseCode, Frontend, ServiceKey
from ..plan import HealthCheck, IgnoredService, PortPlan
from ..policy import EndpointVerdict, Scope
from ..policy.bridges import BridgeObstacle
from . import paths
from .counted import NO_TIMES, NO_WAITS, Times, Waits

_POLICIES = {
    Scope.CLUSTER: "",
    Scope.LOCAL: "only this node's endpoints",
    Scope.LOCAL_FROM_OUTSIDE: "from outside: only this node's endpoints",
}


class Traffic(NamedTuple):
    """What was counted for one endpoint, or for a Service port."""

    active: int = 0
    """Open connections, or live flows."""
    connections: int = 0
    """Connections (flows) since the start."""
    failures: int = 0
    """Dials that failed."""
    preserved: int = 0
    """Of the connections, those in which the endpoint saw the client's own address."""
    received_bytes: int = 0
    """From clients."""
    sent_bytes: int = 0
    """To clients."""
    resets: int = 0
    """Connections that the endpoint reset before it had sent a byte."""
    empty: int = 0
    """Connections that it closed without having sent a byte, although the client had."""


_NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint of a Service port."""

    verdict: EndpointVerdict
    traffic: Traffic
    ejected_for_s: float | None = None
    """Seconds until it is tried again; None if it isn't ejected."""
    cause: Cause | None = None
    """Why dials fail, or why its connections end without an answer; None once it has answered. It
    counts those since then; before, it answered ``traffic.connections``."""
    answered_at: float = 0.0
    """Unix time at which it last answered a dial; 0 if it never did."""
    failures_by_cause: Mapping[CauseCode, int] = field(default_factory=dict)
    """Dials that failed since the start, without causes of which there were none."""
    starting: float | None = None
    """What it has of its share of new connections while it starts slowly; None: all of it."""

    @property
    def preference(self) -> str:
        """Priority, weight and slow start in words; empty if it has none of them."""
        slow = "" if self.starting is None else f"starts slowly: {100 * self.starting:.0f} %"
        return ", ".join(filter(None, (self.verdict.preference, slow)))

    @property
    def is_left_out(self) -> bool:
        """Whether only traffic policy or hints keep this node's clients from it."""
        return self.verdict.code in (CauseCode.NOT_LOCAL, CauseCode.NOT_FOR_THIS_NODE)


@dataclass(frozen=True, slots=True)
class FrontendView:
    """One address that clients dial."""

    frontend: Frontend
    target: str
    """Where it leads: ``proxy port 20001``, ``127.0.0.1:41234``, ``refused``, ``dropped``, …"""
    is_reached: bool = True
    """False where another program holds the node port, or no listener could be opened."""


@dataclass(frozen=True, slots=True)
class ServicePortView:
    """One family and side of a Service port that is served."""

    plan: PortPlan
    frontends: tuple[FrontendView, ...]
    """ClusterIPs first, node ports last."""
    endpoints: tuple[EndpointView, ...]
    traffic: Traffic
    problem: str = ""
    """Why it isn't served although it should be (a port in use), or empty."""
    way_out: str = ""
    """What to do about the problem, which may end with this text in brackets."""
    saved: int = 0
    """Connections whose first dial failed and that another endpoint answered: their clients noticed
    nothing. Also UDP flows."""
    failures_by_cause: Mapping[CauseCode, int] = field(default_factory=dict)
    """Dials that failed, former endpoints included, without causes of which there were none."""
    connect_times: Times = NO_TIMES
    """Of TCP: how long clients waited until an endpoint answered, failed dials included."""
    first_byte_times: Times = NO_TIMES
    """Of TCP: from the endpoint's answer, or the client's first byte if that came later, to the
    endpoint's first byte."""
    refused: int = 0
    """Connections that no endpoint answered, and datagrams without an endpoint."""
    denied: int = 0
    """Packets from clients that aren't admitted, which were dropped; a client that isn't answered
    sends its SYN several times."""
    turned_away: tuple[Cause, ...] = ()
    """Clients that the kernel turned away, by cause; counts are of their packets."""
    dropped_datagrams: int = 0
    """Datagrams lost at sockets of this proxy, mostly because a buffer was full; but where not all
    clients are admitted, they are in ``denied``."""
    evicted: int = 0
    """Connections and flows that ended early to make room for others, or to free memory."""
    evicted_for_memory: int = 0
    """Of the connections, those that were reset because memory was short."""
    ended_by_removal: int = 0
    """Connections that were reset because their endpoint had left (``on-endpoint-removal``)."""
    bad_headers: int = 0
    """Connections that were reset because no PROXY header came (``--accept-proxy-protocol``)."""
    shortages: int = 0
    """Dials that failed because this node had no source port, descriptor or memory left."""
    waits: Waits = NO_WAITS
    """Clients that wait for an endpoint, or did so."""
    is_out_of_ports: bool = False
    """In the last minute it had no source port left towards an endpoint."""
    is_out_of_client_ports: bool = False
    """In the last minute a client's own address had none left towards an endpoint."""
    path: paths.PathView = paths.DEFAULT

    @property
    def policy(self) -> str:
        """Which endpoints serve, in words; empty where all of the cluster serve all clients."""
        return _POLICIES[self.plan.scope]

    @property
    def balance(self) -> str:
        """How endpoints are chosen; empty for round robin."""
        balance = self.plan.handling.balance
        if balance is not Balance.ROUND_ROBIN:
            return str(balance)
        return str(Balance.LEAST_CONNECTIONS) if self.plan.handling.max_connections else ""


@dataclass(frozen=True, slots=True)
class TotalsView:
    """What was counted for all Service ports since the start, former ones included.

    The fields are those of :class:`ServicePortView`.
    """

    traffic: Traffic = _NO_TRAFFIC
    failures_by_cause: Mapping[CauseCode, int] = field(default_factory=dict)
    saved: int = 0
    connect_times: Times = NO_TIMES
    first_byte_times: Times = NO_TIMES
    refused: int = 0
    denied: int = 0
    dropped_datagrams: int = 0
    evicted: int = 0
    evicted_for_memory: int = 0
    ended_by_removal: int = 0
    bad_headers: int = 0
    shortages: int = 0
    waits: Waits = NO_WAITS
    kernel_connections: int | None = None
    """Of the paths of all Service ports; None where they aren't counted."""


@dataclass(frozen=True, slots=True)
class HealthCheckView:
    """The health check node port of one Service."""

    check: HealthCheck
    problem: str = ""
    """Why it doesn't answer, or not at every address; empty if it does."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """Where Services come from, and the state of reading them."""

    kind: str
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str
    """The server's URL, or the path."""
    is_synced: bool
    problems: tuple[str, ...] = ()
    """Problems at this moment, one line each; unreadable objects keep their last state."""
    restarts: int = 0
    """How often a watch restarted with a list."""


@dataclass(frozen=True, slots=True)
class LastStateView:
    """The last state, which is kept on disk and served until the source has answered."""

    path: str = ""
    """The file; empty where it isn't kept."""
    served_at: float = 0.0
    """Unix time at which the last state that is served was last known to be current; 0 while
    what is served comes from the source."""
    problem: str = ""
    """Why it isn't kept; empty if it is."""
    failing_since: float = 0.0
    """Unix time from which it hasn't been kept; 0 if it is."""
    failures: int = 0
    """How often it could not be written."""

    def age_s(self, now: float) -> float:
        """Return the age of the last state that is served, in seconds; 0 if none is."""
        return max(0.0, now - self.served_at) if self.served_at else 0.0


@dataclass(frozen=True, slots=True)
class SteeringView:
    """How traffic reaches the proxy, and the steering's state."""

    name: str
    problem: str = ""
    has_drifted: bool = False
    """Another program has changed the kernel's state, and the problem prevents its repair."""
    repairs: int = 0
    helper_restarts: int = 0
    """How many crashed helper processes were replaced."""
    unguarded: str = ""
    """Why another process could take the proxy's ports after a crash; empty where none can."""


@dataclass(frozen=True, slots=True)
class TrackingView:
    """The node's connection tracking table; packets of connections that don't fit are dropped."""

    entries: int = 0
    limit: int = 0
    """0 where nothing is tracked."""
    drops: int = 0
    is_full: bool = False
    is_dropping: bool = False
    """It is full, and packets have been dropped since."""


@dataclass(frozen=True, slots=True)
class FirewallView:
    """A chain of another program that drops packets steered to the proxy."""

    chain: str
    why: str
    way_out: str


@dataclass(frozen=True, slots=True)
class ClientAddressView:
    """Whether endpoints see client addresses, where replies return through this node."""

    is_on: bool = False
    why_not: str = ""
    """Why they see this node's, in words; empty where it wasn't requested, or is on."""
    problem: str = ""
    """What should be repaired, and can't be at this moment."""
    repairs: int = 0
    bridges: tuple[BridgeObstacle, ...] = ()
    """Bridges on which this doesn't work while ``is_on``."""


@dataclass(frozen=True, slots=True)
class SyncView:
    """The rounds of plan, diff and apply; times are Unix times, 0 for never."""

    rounds: int = 0
    failures: int = 0
    partial_failures: int = 0
    """Of these, those in which only what changed was to be written."""
    last_s: float = 0.0
    """How long the last round took, in seconds."""
    last_queued: float = 0.0
    """When the last change arrived."""
    last_done: float = 0.0
    """When everything was last in force."""
    waiting_since: float = 0.0
    """When the oldest change that is not in force yet arrived; 0 when none waits. Health
    counts from here: while changes keep arriving and every round fails, ``last_queued``
    is always recent."""
    service_changes: int = 0
    """Services that differed from the previous snapshot, since the start."""
    service_changes_pending: int = 0
    """Those of them that aren't in force yet."""
    endpoint_changes: int = 0
    """EndpointSlices that differed from the previous snapshot, since the start."""
    endpoint_changes_pending: int = 0
    """Those of them that aren't in force yet."""
    turned_s_ago: float = 0.0
    """Seconds since the loop began its last iteration, whether or not that succeeded."""
    problem: str = ""
    """Why the last round failed, in the other side's words; empty after a success."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process that carries traffic."""

    index: int
    pid: int
    """0 while it isn't running."""
    restarts: int
    connections: int
    """Open TCP connections."""
    flows: int
    """Live UDP flows."""
    iterations: tuple[tuple[float | None, int], ...] = ()
    """Upper bounds in seconds, ascending, None for the last, each with the number of loop
    iterations that took at most that long and longer than the bound before."""
    iterations_s: float = 0.0
    """The sum of all."""
    hung: int = 0
    """How many of the restarts replaced a process that hung."""


@dataclass(frozen=True, slots=True)
class MemoryView:
    """What is used of the nearest limit of memory; all 0 without a limit."""

    used_bytes: int = 0
    """As far as it counts for the limit; file cache doesn't."""
    limit_bytes: int = 0
    is_short: bool = False
    """So near to the limit that load is shed."""
    was_short: bool = False
    """That is so, or was in the last seconds."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """Everything at one moment."""

    version: str
    node: str
    started: float
    """Unix time."""
    revision: int
    source: SourceView
    steering: SteeringView
    sync: SyncView
    last_state: LastStateView = LastStateView()
    demand: Mapping[ServiceKey, int] = field(default_factory=dict)
    """Services whose clients wait, or did in the last 90 s: how many, at least 1."""
    probes: paths.ProbesView = paths.NO_PROBES
    client_address: ClientAddressView = ClientAddressView()
    tracking: TrackingView = TrackingView()
    firewalls: tuple[FirewallView, ...] = ()
    unserved: tuple[ListenError, ...] = ()
    """Why status addresses can't be served at this moment."""
    ports: tuple[ServicePortView, ...] = ()
    totals: TotalsView = TotalsView()
    ignored: tuple[IgnoredService, ...] = ()
    health_checks: tuple[HealthCheckView, ...] = ()
    """By Service."""
    descriptors: int = 0
    """Descriptors in use by the data plane."""
    descriptor_limit: int = 0
    is_accepting: bool = True
    """False while accepting is paused at the limit of descriptors or memory."""
    memory: MemoryView = MemoryView()
    config: tuple[tuple[str, object, str], ...] = ()
    """Settings for ``/configz``: name, value, origin (``default``, ``file``, ``flag``)."""
    is_ready: bool = True
    """False until the first snapshot is in force, while no worker runs, and while draining."""
    is_draining: bool = False
    workers: tuple[WorkerView, ...] = ()
    """Empty where the proxy carries the traffic in its own process."""
    worker_problems: tuple[str, ...] = ()
    """Which workers are missing, and why, one line each."""
    dropped_log_lines: int = 0
    """Lines that were not written because stderr was not read, or could not be written."""
    node_is_eligible: bool = True
    """False when the Node is being deleted."""
    network_namespace: int = 0
    """The inode of the proxy's network namespace; 0 if unknown."""

    def only(self, service: str) -> StatusView:
        """Return the view with one Service, ``namespace/name``, or one port of it."""
        names = [(port.plan.key.name, port) for port in self.ports]
        return replace(
            self,
            ports=tuple(port for name, port in names if service in (str(name.service), str(name))),
            ignored=tuple(item for item in self.ignored if str(item.service) == service),
            health_checks=tuple(v for v in self.health_checks if str(v.check.service) == service),
        )
