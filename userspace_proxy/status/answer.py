"""The types of the answer of ``/api/v1/status``; docs/api.md and its schema are made from them.

Rule 1: within a version, fields are only added; readers ignore those that they don't know.
Rule 2: parts whose form is that of the view are the view's own types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..model import Cause, CauseCode, Path
from .counted import Times, Waits
from .paths import ProbesView
from .port_state import Level
from .problems import Problem
from .view import (
    FirewallView,
    MemoryView,
    SourceView,
    SteeringView,
    SyncView,
    TrackingView,
    WorkerView,
)


class FrontendAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One address that clients dial."""

    address: str
    """With its port: ``10.96.7.1:80``, ``[fd00::1]:80``."""
    kind: str
    """``ClusterIP``, ``NodePort``, ``LoadBalancer``, ``ExternalIP``."""
    target: str
    """Where it leads, in words: ``proxy port 20001``, ``refused``, ``dropped``, …"""
    is_reached: bool
    """False where clients can't reach this proxy."""


class EndpointAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One endpoint of a Service port."""

    address: str
    """With its port."""
    state: str
    """``ready``, ``not ready``, ``terminating``, or why it isn't used, in words."""
    is_usable: bool
    """Whether it may serve from this node now."""
    weight: int
    """Its share of new connections, in proportion to the others' weights; 0: it takes none."""
    priority: int
    """0 is first; endpoints of a higher number serve while none of a lower one can."""
    is_standby: bool
    """It is usable, and so is an endpoint of a priority before its own."""
    starting: float | None
    """What it has of its share while it starts slowly, below 1; null: all of it."""
    preference: str
    """Priority, weight and slow start in words; empty if it has none of them."""
    node: str
    """Where it runs; empty if unknown."""
    ejected_for_s: float | None
    """Seconds until it is tried again, because dials to it failed; null if it isn't left out."""
    cause: Cause | None
    """Why dials fail now; null once it has answered."""
    active: int
    """Open connections, or live flows."""
    connections: int
    """Connections (flows) since the start."""
    failures: int
    """Dials that failed."""
    preserved: int
    """Of the connections, those in which it saw the client's own address."""
    received_bytes: int
    """From clients."""
    sent_bytes: int
    """To clients."""
    resets: int
    """Connections that the endpoint reset before it had sent a byte."""
    empty: int
    """Connections that it closed without having sent a byte, although the client had."""
    failures_by_cause: Mapping[CauseCode, int]
    """Dials that failed since the start, without causes of which there were none."""
    answered_at: float
    """Unix time at which it last answered a dial; 0 if it never did."""


class StateAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How the clients of a Service port are served."""

    level: Level
    """``trouble``: this proxy, or something below it, doesn't work as it should; ``attention``: the
    cluster asks for something that has no effect."""
    word: str
    """``served``, ``partly served``, ``not served``, ``refused``, ``dropped``, ``not answering``,
    ``partly answering``, ``fault on purpose``, ``out of ports``, ``out of client ports``."""
    sentence: str
    """The same with its reason."""
    causes: Sequence[Cause]
    """All that is known to go wrong, or to have no effect; the first one decides the state."""
    way_out: str
    """The first cause's hint, or empty."""
    code: CauseCode | None
    """The first cause's; null without a cause."""


class PortAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One family and side of one Service port."""

    namespace: str
    """The Service's."""
    service: str
    """Its name."""
    port: str
    """The port's name; empty if it has none."""
    family: str
    """``IPv4``, ``IPv6``."""
    protocol: str
    """``TCP``, ``UDP``."""
    side: str
    """Empty for all frontends, or those of the cluster's inside; ``external``, ``load balancer``
    where these have a policy of their own."""
    frontends: Sequence[FrontendAnswer]
    """ClusterIPs first, node ports last."""
    endpoints: Sequence[EndpointAnswer]
    """By address."""
    cause: Cause | None
    """Why clients are refused, wait or are dropped; null when an endpoint is usable."""
    is_dropping: bool
    """Some clients get no answer, because only other nodes have endpoints for them."""
    policy: str
    """Which endpoints serve, in words; empty where all serve all clients."""
    admits: Sequence[str] | None
    """Networks whose clients are admitted; null: all are."""
    balance: str
    """How endpoints are chosen; empty for round robin."""
    slow_start_s: float
    """Seconds in which new endpoints reach their share of connections; 0: they have it at once."""
    max_connections: int | None
    """The limit of each endpoint for this node; null: none."""
    hold_s: float | None
    """Seconds that clients wait for an endpoint; null: they are refused without one."""
    path: Path
    """``userspace``: connections pass through the proxy; ``kernel``: the kernel translates them
    straight to an endpoint, and only ``kernel_connections`` counts them; ``auto``, in a plan that
    isn't served: one of them, as probes show."""
    path_since: float
    """Unix time at which new connections began to take this path; 0 if unknown."""
    path_why: str
    """Why it is this one, in words; empty for the default."""
    kernel_connections: int | None
    """Connections (flows) since the start that the kernel has led straight to endpoints; null where
    it never could, or doesn't count them. At most some seconds old."""
    is_probed: bool
    """Probes of its endpoints choose the path; see ``probes``."""
    affinity_timeout_s: int | None
    """Of ``sessionAffinity: ClientIP``; null without."""
    notes: Sequence[Cause]
    """What this Service port asks for and doesn't get; at the first one of a Service, also what the
    Service and its EndpointSlices do."""
    problem: str
    """Why it isn't served although it should be, or empty."""
    way_out: str
    """What to do about the problem."""
    active: int
    """Open connections, or live flows."""
    connections: int
    """Connections (flows) since the start."""
    failures: int
    """Dials that failed, of former endpoints, too."""
    preserved: int
    """Of the connections, those in which the endpoint saw the client's own address."""
    received_bytes: int
    """From clients."""
    sent_bytes: int
    """To clients."""
    resets: int
    """Connections that the endpoint reset before it had sent a byte."""
    empty: int
    """Connections that it closed without having sent a byte, although the client had."""
    failures_by_cause: Mapping[CauseCode, int]
    """Dials that failed, of former endpoints, too, without causes of which there were none."""
    saved: int
    """Connections whose first dial failed and that another endpoint answered: their clients noticed
    nothing. Also UDP flows."""
    connect_times: Times
    """Of TCP: how long clients waited until an endpoint answered, failed dials included."""
    first_byte_times: Times
    """Of TCP: from the endpoint's answer, or the client's first byte if that came later, to the
    endpoint's first byte."""
    refused: int
    """Connections that no endpoint answered, and datagrams without an endpoint."""
    denied: int
    """Packets from clients that aren't admitted, which were dropped; a client that isn't answered
    sends its SYN several times."""
    turned_away: Sequence[Cause]
    """Clients that the kernel turned away, by cause; counts are of their packets."""
    dropped_datagrams: int
    """Datagrams lost at sockets of this proxy."""
    evicted: int
    """Connections and flows that ended early to make room for others, or to free memory."""
    evicted_for_memory: int
    """Of the connections, those that were reset because memory was short."""
    ended_by_removal: int
    """Connections that were reset because their endpoint had left (``on-endpoint-removal``)."""
    bad_headers: int
    """Connections that were reset because no PROXY header came (``--accept-proxy-protocol``)."""
    shortages: int
    """Dials that failed because this node had no source port, descriptor or memory left."""
    waits: Waits
    """Clients that wait for an endpoint, or did so: see the annotation ``hold``."""
    is_out_of_ports: bool
    """In the last minute it had no source port left towards an endpoint."""
    is_out_of_client_ports: bool
    """In the last minute a client's own address had none left towards an endpoint."""
    state: StateAnswer
    """How its clients are served."""


class TotalsAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was counted for all Service ports, former ones included.

    The fields are those of :class:`PortAnswer`.
    """

    active: int
    connections: int
    failures: int
    preserved: int
    received_bytes: int
    sent_bytes: int
    resets: int
    empty: int
    failures_by_cause: Mapping[CauseCode, int]
    saved: int
    connect_times: Times
    first_byte_times: Times
    refused: int
    denied: int
    dropped_datagrams: int
    evicted: int
    evicted_for_memory: int
    ended_by_removal: int
    bad_headers: int
    shortages: int
    waits: Waits
    kernel_connections: int | None


class IgnoredAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A Service, or one port of it, that gets no listener."""

    service: str
    """``namespace/name``."""
    port: str
    """The port's name or number; empty when the whole Service is ignored."""
    cause: Cause
    """Why."""
    is_conflict: bool
    """It should be served, but another Service has its address."""


class HealthCheckAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The health check node port of one Service."""

    service: str
    """``namespace/name``."""
    port: int
    """The ``healthCheckNodePort``."""
    local_endpoints: int
    """Ready endpoints on this node."""
    problem: str
    """Why it doesn't answer, or not at every address; empty if it does."""


class LastStateAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last state, which is kept on disk and served until the source has answered."""

    path: str
    """The file; empty where it isn't kept."""
    served_at: float
    """Unix time at which what is served was last known to be current; 0 while it comes from the
    source."""
    problem: str
    """Why it isn't kept; empty if it is."""
    failing_since: float
    """Unix time from which it hasn't been kept; 0 if it is."""
    failures: int
    """How often it could not be written."""
    age_s: float | None
    """Its age in seconds; null if it isn't served."""


class BridgeAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A bridge on which endpoints don't see the addresses of clients."""

    name: str
    """The interface."""
    family: str
    """``IPv4``, ``IPv6``."""
    cause: str
    """Why, in words."""
    hint: str
    """What to do about it."""


class ClientAddressAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether endpoints see client addresses, where replies return through this node."""

    is_on: bool
    """They do."""
    why_not: str
    """Why they see this node's; empty where it wasn't requested, or is on."""
    problem: str
    """What should be repaired, and can't be at this moment."""
    repairs: int
    """Since the start."""
    bridges: Sequence[BridgeAnswer]
    """Those on which this doesn't work while ``is_on``."""


class UnservedAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A status address that can't be served."""

    problem: str
    """Why."""
    way_out: str
    """What to do about it."""


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything about one proxy at one moment. Counters grow until the process ends."""

    now: float
    """Unix time of the answer."""
    level: Level
    """The worst of all problems."""
    verdict: str
    """All of it in one sentence."""
    problems: Sequence[Problem]
    """Trouble first; within a level the node's first, then Service ports by name. Of all Service
    ports, whichever were selected."""
    version: str
    """The proxy's."""
    node: str
    """This node's name."""
    started: float
    """Unix time."""
    revision: int
    """Of what is in force; it grows with each change."""
    source: SourceView
    """Where Services come from."""
    steering: SteeringView
    """How traffic reaches the proxy."""
    sync: SyncView
    """The rounds of plan, diff and apply."""
    last_state: LastStateAnswer
    """What is kept for the next start."""
    client_address: ClientAddressAnswer
    """Which address endpoints see."""
    tracking: TrackingView
    """The kernel's connection tracking."""
    probes: ProbesView
    """Of all Services with the path ``auto``; zeros without any."""
    firewalls: Sequence[FirewallView]
    """Chains of other programs that drop packets to Services."""
    unserved: Sequence[UnservedAnswer]
    """Status addresses that can't be served."""
    ports: Sequence[PortAnswer]
    """Those that were selected, those with problems first, or in the order of ``sort``."""
    totals: TotalsAnswer
    """Sums over all Service ports, former ones included."""
    ignored: Sequence[IgnoredAnswer]
    """Those that were selected."""
    health_checks: Sequence[HealthCheckAnswer]
    """Those that were selected, with a problem first."""
    descriptors: int
    """In use by the data plane."""
    descriptor_limit: int
    """Of the processes that carry traffic."""
    is_accepting: bool
    """False while accepting is paused at the limit of descriptors or memory."""
    memory: MemoryView
    """Of the nearest limit."""
    is_ready: bool
    """The first plan is in force, a worker runs, and nothing drains."""
    is_draining: bool
    """It is shutting down."""
    workers: Sequence[WorkerView]
    """The processes that carry traffic."""
    worker_problems: Sequence[str]
    """Which workers are missing, and why, one line each."""
    dropped_log_lines: int
    """Lines that were not written."""
    node_is_eligible: bool
    """False when the Node is being deleted."""
    network_namespace: int
    """The inode of the proxy's network namespace, as of its ``/proc/PID/ns/net``; 0 if unknown."""
