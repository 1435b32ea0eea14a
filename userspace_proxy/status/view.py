"""The values that the page, the metrics and the health responses show.

The agent fills these values in from the plan, the data plane, the steering and
the source; this package only shows them. Counters grow until the process ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint of a Service port."""

    address: str
    """``10.244.1.7:8080``."""
    state: str
    """``ready``, ``not ready``, ``terminating``, or why it is refused or not used."""
    is_usable: bool
    """By clients from outside, where those have endpoints of their own."""
    node: str = ""
    ejected_for_s: float | None = None
    """Seconds until it is tried again; None when it isn't ejected."""
    active: int = 0
    """Open connections, or live flows."""
    connections: int = 0
    """Connections (flows) since the start."""
    preserved: int = 0
    """Of the connections, those in which this endpoint saw the client's own address."""
    failures: int = 0
    """Dials that failed."""
    received_bytes: int = 0
    """From clients to this endpoint."""
    sent_bytes: int = 0
    """From this endpoint to clients."""

    @property
    def is_left_out(self) -> bool:
        """Whether it could serve, and traffic policy or hints keep this node's clients from it."""
        known = ("ready", "not ready", "terminating", "refused")
        return not self.is_usable and not self.state.startswith(known)


@dataclass(frozen=True, slots=True)
class FrontendView:
    """One address that clients dial."""

    address: str
    """``10.96.7.1:80``."""
    kind: str
    """``ClusterIP``, ``LoadBalancer``, ``ExternalIP`` or ``NodePort``."""
    target: str
    """Where it leads: ``proxy port 20001``, ``127.0.0.1:41234``, ``refused``, ``dropped``, …"""
    is_reached: bool = True
    """False where clients can't come to this proxy: another program has the node port, or
    no listener could be opened."""


@dataclass(frozen=True, slots=True)
class ServicePortView:
    """One family of one Service port; with two policies, those frontends that share one."""

    namespace: str
    service: str
    port: str
    """The port's name; empty where it has none."""
    family: str
    """``IPv4`` or ``IPv6``."""
    protocol: str
    frontends: tuple[FrontendView, ...]
    endpoints: tuple[EndpointView, ...]
    reason: str
    """Why clients are refused or dropped; empty when they are served."""
    side: str = ""
    """Which frontends these are, where a policy of their own splits them from the cluster
    IPs: ``external`` or ``load balancer``; empty for the rest, or all."""
    is_dropping: bool = False
    """Without an endpoint here clients are dropped, not refused: other nodes have endpoints."""
    policy: str = ""
    """Whose endpoints serve, in words; empty where it is the whole cluster's for all clients."""
    admits: tuple[str, ...] | None = None
    """Networks whose packets are admitted; others' are dropped. None: all."""
    balance: str = ""
    """How endpoints are chosen; empty for round robin."""
    affinity_timeout_s: int | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    """Why it isn't served although it should be (a port in use); empty when all is well."""
    way_out: str = ""
    """What to do about the problem, which ends with it in brackets; empty where it doesn't."""
    active: int = 0
    connections: int = 0
    preserved: int = 0
    """Of the connections, those in which the endpoint saw the client's own address."""
    refused: int = 0
    """Connections that no endpoint answered, and datagrams without an endpoint."""
    dropped_datagrams: int = 0
    """Datagrams lost at sockets of this proxy, mostly because a buffer was full; where
    ``admits`` isn't None, those from elsewhere, too."""
    evicted: int = 0
    """Connections and flows that ended early to make room for others."""
    shortages: int = 0
    """Dials that failed because this node had no source port, descriptor or memory left."""
    is_out_of_ports: bool = False
    """In the last minute it had no source port left towards an endpoint."""
    is_out_of_client_ports: bool = False
    """In the last minute a client's own address had none left towards an endpoint."""
    received_bytes: int = 0
    sent_bytes: int = 0

    @property
    def name(self) -> str:
        """``namespace/service:port``, without the colon where the port has no name."""
        text = f"{self.namespace}/{self.service}"
        return f"{text}:{self.port}" if self.port else text


@dataclass(frozen=True, slots=True)
class IgnoredView:
    """A Service, or a port of one, that gets no listener."""

    service: str
    """``namespace/name``."""
    port: str
    reason: str
    is_conflict: bool = False
    """It should be served, and another Service has its address."""


@dataclass(frozen=True, slots=True)
class HealthCheckView:
    """The health check node port of one Service."""

    service: str
    """``namespace/name``."""
    port: int
    local_endpoints: int
    """Ready ones on this node; load balancers leave the node at 0."""
    problem: str = ""
    """Why no client is answered there, or not everywhere; empty when all is well."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """Where Services come from, and how that goes."""

    kind: str
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str
    """The server's URL, or the path."""
    is_synced: bool
    problems: tuple[str, ...] = ()
    """What is wrong at this moment, one line each; what can't be read is as it was last read."""
    restarts: int = 0
    """How often a watch had to begin anew with a list."""


@dataclass(frozen=True, slots=True)
class SteeringView:
    """How traffic reaches the proxy, and how that goes."""

    name: str
    problem: str = ""
    has_drifted: bool = False
    """Another program has changed the kernel's state, which the problem keeps from repair."""
    repairs: int = 0
    helper_restarts: int = 0
    """How many helper processes were started in the place of one that had crashed."""
    unguarded: str = ""
    """Why another process could take the proxy's ports after a crash; empty where none can."""


@dataclass(frozen=True, slots=True)
class TrackingView:
    """The node's table of connection tracking; what doesn't fit into it is dropped."""

    entries: int = 0
    limit: int = 0
    """0 where nothing is tracked."""
    drops: int = 0
    is_full: bool = False
    is_dropping: bool = False
    """It is full, and packets have been dropped since."""


@dataclass(frozen=True, slots=True)
class BridgeView:
    """A bridge on which endpoints don't see the addresses of clients on the same bridge."""

    name: str
    family: str
    """``IPv4`` or ``IPv6``."""
    cause: str
    hint: str = ""
    """What to do, as a command; empty where nothing can be done."""


@dataclass(frozen=True, slots=True)
class FirewallView:
    """A chain of another program that drops what is steered to the proxy."""

    chain: str
    why: str
    way_out: str


@dataclass(frozen=True, slots=True)
class UnservedView:
    """A status address that can't be had."""

    problem: str
    """With the address and the program that has it."""
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class ClientAddressView:
    """Whether endpoints see their clients' own addresses, where answers come back this way."""

    is_on: bool = False
    why_not: str = ""
    """Why they see this node's, in words; empty where it wasn't asked for, or is on."""
    problem: str = ""
    """What is to be put right, and can't be at this moment."""
    repairs: int = 0
    bridges: tuple[BridgeView, ...] = ()
    """Those on which this doesn't work while ``is_on``."""


@dataclass(frozen=True, slots=True)
class SyncView:
    """The rounds of plan, diff and apply."""

    rounds: int = 0
    failures: int = 0
    last_s: float = 0.0
    """How long the last round took, in seconds."""
    last_queued: float = 0.0
    """Unix time at which the last change came in; 0 before the first."""
    last_done: float = 0.0
    """Unix time at which everything was in force; 0 before the first."""
    waiting_since: float = 0.0
    """Unix time at which the oldest change that is not in force yet came in; 0 when
    none waits. Health counts from here: while changes keep coming and every round
    fails, ``last_queued`` is always young."""
    service_changes: int = 0
    """Services that differed from the snapshot before, since the start."""
    service_changes_pending: int = 0
    """Those of them that aren't in force yet."""
    endpoint_changes: int = 0
    """EndpointSlices that differed from the snapshot before, since the start."""
    endpoint_changes_pending: int = 0
    """Those of them that aren't in force yet."""
    turned_s_ago: float = 0.0
    """Seconds since the loop began its last turn, whatever became of it."""
    problem: str = ""
    """Why the last round failed, in the other side's words; empty after a good one."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process that carries traffic."""

    index: int
    pid: int
    """0 while it isn't running."""
    restarts: int
    connections: int
    """Open ones."""
    flows: int
    """Live UDP flows."""
    iterations: tuple[tuple[float | None, int], ...] = ()
    """How many iterations of its loop took at most so many seconds, and more than the bound before;
    the last has no bound."""
    iterations_s: float = 0.0
    """The sum of all."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """All of it at one moment."""

    version: str
    node: str
    started: float
    """Unix time."""
    revision: int
    source: SourceView
    steering: SteeringView
    sync: SyncView
    client_address: ClientAddressView = field(default=ClientAddressView())
    tracking: TrackingView = field(default=TrackingView())
    firewalls: tuple[FirewallView, ...] = ()
    unserved: tuple[UnservedView, ...] = ()
    """Status addresses that can't be had at this moment."""
    ports: tuple[ServicePortView, ...] = ()
    ignored: tuple[IgnoredView, ...] = ()
    health_checks: tuple[HealthCheckView, ...] = ()
    """By Service."""
    descriptors: int = 0
    """Descriptors in use by the data plane."""
    descriptor_limit: int = 0
    is_accepting: bool = True
    """False while accepting is paused at the descriptor limit."""
    config: tuple[tuple[str, object, str], ...] = field(default=())
    """Settings for ``/configz``: name, value, origin (``default``, ``file``, ``flag``)."""
    is_ready: bool = True
    """False until the first snapshot is in force, while no worker runs, and while draining."""
    is_draining: bool = False
    """It is being stopped."""
    workers: tuple[WorkerView, ...] = ()
    """Empty where the proxy carries the traffic in its own process."""
    worker_problems: tuple[str, ...] = ()
    """Which of them are missing, and why, one line each."""
    dropped_log_lines: int = 0
    """Lines that were not written because stderr was not read, or could not be written."""
    node_is_eligible: bool = True
    """False when the Node is being deleted."""
