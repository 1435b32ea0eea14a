"""The facts about one proxy and its node: the JSON of ``/api/v1/status``, and what is shown of it.

Rule 1: as in ``port``: fields are only added, in the order of the JSON, and have defaults.
Rule 2: the agent leaves ``now``, ``level``, ``verdict``, ``problems`` and ``incidents`` empty; an
answer has them.
Rule 3: a field that is annotated as a figure is a metric of the node: of a list its length, of a
text whether there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec

from ..causes.cause import Cause, CauseCode
from ..model import ServiceKey
from ..version import version_in_words
from .figures import counter, gauge
from .port import BesideJson, Level, PortFacts, TotalsFacts
from .processes import MemoryFacts, ProcessFacts, WorkerFacts
from .units import plural


class Problem(msgspec.Struct, frozen=True):
    """One problem of the node or of a Service port."""

    level: Level
    what: str
    """One sentence without a full stop."""
    hint: str = ""
    """The remedy; empty if the sentence contains it."""
    port: str = ""
    """The name of the Service port; empty for the node."""
    family: str = ""
    side: str = ""
    code: CauseCode | None = None
    """None where no cause is behind it."""
    kind: str = ""
    """Of the node's: which problem it is, without figures, so it is the same while it lasts."""


class IncidentFacts(msgspec.Struct, frozen=True, gc=False):
    """One cause, with all Services that it touches."""

    id: str = ""
    """Of its page, ``incidents/ID``; the same while it lasts, also after a restart."""
    level: Level = Level.OK
    """The worst of its Service ports."""
    cause: Cause | None = None
    """What is wrong: at all of its Service ports together, since the first of them noticed it."""
    services: Sequence[str] = ()
    """Those that it touches, ``namespace/name``, by name."""
    ports: int = 0
    """How many Service ports."""
    endpoints: Sequence[str] = ()
    """Addresses of the endpoints that it is about; empty if it is about none."""
    waiting: int = 0
    """Clients of these Service ports that wait for an endpoint now."""
    last_minute: int = 0
    """Clients of these Service ports that got no answer in the last minute, or none in time."""
    failed: int = 0
    """The same since the start."""
    saved: int = 0
    """Connections of these Service ports since the start whose clients noticed nothing, as another
    endpoint answered."""
    command: str = ""
    """A command that shows more; empty if none does."""

    @property
    def touched(self) -> str:
        """What it touches, in words: ``12 endpoints of 9 Services``."""
        services = plural(len(self.services), "Service")
        if len(self.endpoints) < 2:
            return services
        return f"{plural(len(self.endpoints), 'endpoint')} of {services}"


class ObjectKey(NamedTuple):
    """Identity of an object that can't be used; its text is ``Service shop/web``."""

    kind: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {'/'.join(filter(None, self[1:]))}".strip()


NO_OBJECT = ObjectKey()


class RejectedFacts(msgspec.Struct, frozen=True):
    """An object of the source that has a mistake, so it isn't used as it is written now."""

    line: str
    """One of the source's ``problems``."""
    object: str = ""
    """``Service shop/web``; empty if that can't be read, or the object is used in part."""
    kind: str = ""
    """Of the object; empty as that is."""
    namespace: str = ""
    name: str = ""
    services: Sequence[str] = ()
    """The Services that it is about, ``namespace/name``; empty if that isn't known."""
    keeps: Sequence[str] = ()
    """Services of which objects were removed, and are kept only because their file has mistakes."""
    place: str = ""
    """The beginning of the line: ``web.yaml:14``; empty if it has none."""
    problem: str = ""
    """The rest of the line; empty: all of it."""
    note: Cause | None = None
    """The same as a note of the Service; null if it has none of it."""

    @classmethod
    def at(
        cls,
        place: str,
        problem: str,
        object_: ObjectKey = NO_OBJECT,
        services: Sequence[str] = (),
        note: Cause | None = None,
    ) -> RejectedFacts:
        """Return a mistake that is written at a place."""
        line = f"{place}: {problem}"
        return cls(line, str(object_), *object_, services, place=place, problem=problem, note=note)

    def about(self, services: Sequence[str], keeps: Sequence[str]) -> RejectedFacts:
        """Return the same about other Services."""
        return msgspec.structs.replace(self, services=services, keeps=keeps)


class SourceFacts(msgspec.Struct, frozen=True):
    """Where Services come from, and the state of reading them."""

    kind: str = ""
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str = ""
    """The server's URL, or the path."""
    is_synced: Annotated[
        bool, gauge("source_synced", "", "1 once everything has been read from the source")
    ] = False
    problems: Annotated[
        Sequence[str], gauge("source_problems", "problems", "Problems of the source now")
    ] = ()
    """Problems at this moment, one line each; unreadable objects keep their last state."""
    restarts: Annotated[
        int, counter("source_restarts", "restarts", "Watches that restarted with a list")
    ] = 0
    """How often a watch restarted with a list."""
    rejected: Sequence[RejectedFacts] = ()
    """Of the problems, those of single objects; the others are of the source as a whole."""

    def rejected_of(self, service: str) -> Sequence[RejectedFacts]:
        """Return those about a Service, ``namespace/name``, or about one port of it."""
        key = service.partition(":")[0]
        return [item for item in self.rejected if key in item.services]


class SteeringState(msgspec.Struct, frozen=True):
    """How traffic reaches the proxy, and the steering's state."""

    name: str = ""
    problem: Annotated[str, gauge("steering_problems", "", "1 while steering fails")] = ""
    has_drifted: Annotated[
        bool,
        gauge("steering_drift", "", "1 while rules may differ from the plan and can't be repaired"),
    ] = False
    """Another program has changed the kernel's state, and the problem prevents its repair."""
    repairs: Annotated[
        int,
        counter("steering_repairs", "repairs", "Frontends and guard rules repaired after drift"),
    ] = 0
    repaired_last_minute: int = 0
    """How often in the last minute something was found to repair."""
    helper_restarts: Annotated[
        int,
        counter("steering_helper_restarts", "restarts", "Helper processes restarted after a crash"),
    ] = 0
    """How many crashed helper processes were replaced."""
    unguarded: str = ""
    """Why another process could take the proxy's ports after a crash; empty where none can."""


class SyncFacts(msgspec.Struct, frozen=True):
    """The rounds of plan, diff and apply; times are Unix times, 0 for never."""

    rounds: Annotated[int, counter("sync_rounds", "rounds", "Rounds of plan, diff and apply")] = 0
    failures: Annotated[int, counter("sync_failures", "rounds", "Rounds that failed")] = 0
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


class LastStateFacts(msgspec.Struct, frozen=True):
    """The last state, which is kept on disk and served until the source has answered."""

    path: str = ""
    """The file; empty where it isn't kept."""
    served_at: Annotated[
        float,
        gauge(
            "last_state_served_timestamp_seconds",
            "seconds",
            "When the last state that is served was current; 0 once the source has answered",
        ),
    ] = 0.0
    """Unix time at which what is served was last known to be current; 0 while it comes from the
    source."""
    problem: str = ""
    """Why it isn't kept; empty if it is."""
    failing_since: float = 0.0
    """Unix time from which it hasn't been kept; 0 if it is."""
    failures: Annotated[
        int,
        counter(
            "last_state_failures", "failures", "Times the last state could not be written to disk"
        ),
    ] = 0
    """How often it could not be written."""
    age_s: float | None = None
    """Its age in seconds; null if it isn't served."""

    def age_at(self, now: float) -> float | None:
        """Return ``age_s`` at a Unix time."""
        return max(0.0, now - self.served_at) if self.served_at else None


class BridgeFacts(msgspec.Struct, frozen=True):
    """A bridge on which endpoints don't see the addresses of clients."""

    name: str = ""
    """The interface."""
    family: str = ""
    """``IPv4``, ``IPv6``."""
    cause: str = ""
    """Why, in words."""
    hint: str = ""
    """What to do about it."""


class ClientAddressFacts(msgspec.Struct, frozen=True):
    """Whether endpoints see client addresses, where replies return through this node."""

    is_on: Annotated[
        bool,
        gauge(
            "preserves_client_address", "", "1 while endpoints see client addresses where possible"
        ),
    ] = False
    """They do."""
    why_not: str = ""
    """Why they see this node's; empty where it wasn't requested, or is on."""
    problem: str = ""
    """What should be repaired, and can't be at this moment."""
    repairs: int = 0
    """Since the start."""
    bridges: Sequence[BridgeFacts] = ()
    """Those on which this doesn't work while ``is_on``."""


class TrackingFacts(msgspec.Struct, frozen=True):
    """The node's connection tracking table; packets of connections that don't fit are dropped."""

    entries: Annotated[
        int, gauge("conntrack_entries", "entries", "Entries of the kernel's conntrack table")
    ] = 0
    limit: Annotated[
        int,
        gauge(
            "conntrack_entries_limit", "entries", "Limit of entries in the kernel's conntrack table"
        ),
    ] = 0
    """0 where nothing is tracked."""
    drops: Annotated[
        int, counter("conntrack_drops", "packets", "Packets that conntrack dropped since boot")
    ] = 0
    is_full: Annotated[
        bool,
        gauge(
            "conntrack_full",
            "",
            "1 while the kernel's conntrack table is full and new connections fail",
        ),
    ] = False
    is_dropping: bool = False
    """It is full, and packets have been dropped since."""


class SocketLbFacts(msgspec.Struct, frozen=True):
    """What translates connect() of this node's programs, above the rules of the kernel path."""

    is_attached: Annotated[
        bool | None,
        gauge("socket_lb_attached", "", "1 while connect() of this node's programs is translated"),
    ] = None
    """Whether it works; null: it isn't asked for."""
    problem: Annotated[
        str, gauge("socket_lb_problems", "", "1 while connect() can't be translated everywhere")
    ] = ""
    """Why it doesn't work, or not everywhere; rules lead those clients."""
    cgroup: str = ""
    """The cgroup whose programs' connect() is translated."""
    frontends: Annotated[
        int,
        gauge("socket_lb_frontends", "frontends", "Frontends at which connect() is translated"),
    ] = 0
    """How many frontends it translates."""
    repairs: Annotated[
        int,
        counter(
            "socket_lb_repairs",
            "repairs",
            "BPF programs and maps put back after another program had removed them",
        ),
    ] = 0
    """How often something was put back that another program had removed."""
    map_bytes: Annotated[
        int, gauge("socket_lb_map_bytes", "bytes", "Memory of the BPF maps of connect()")
    ] = 0


class ProbesFacts(msgspec.Struct, frozen=True):
    """The probes that decide the path of Services with ``auto``."""

    endpoints: Annotated[
        int,
        gauge(
            "path_probe_endpoints",
            "endpoints",
            "Endpoints that are probed, because a Service has the path auto",
        ),
    ] = 0
    """How many are probed."""
    interval_s: Annotated[
        float,
        gauge(
            "path_probe_interval_seconds",
            "seconds",
            "Measured average time between two probes of an endpoint that answers; 0 while unknown",
        ),
    ] = 0.0
    """Measured: average seconds between the last two probes of an endpoint that answers; 0: none
    has answered yet, and was probed again."""
    per_second: Annotated[
        int,
        gauge(
            "path_probe_budget",
            "probes",
            "Probes that may begin in a second; 0 while nothing is probed",
        ),
    ] = 0
    """The budget: more probes never begin in a second; 0: nothing was probed yet."""
    sent: Annotated[
        int,
        counter("path_probes", "probes", "Probes of endpoints of Services with the path auto"),
    ] = 0
    failed: Annotated[
        int, counter("path_probe_failures", "probes", "Of these, those without an answer")
    ] = 0
    """Of these, how many the endpoint didn't answer."""


class KernelLackFacts(msgspec.Struct, frozen=True):
    """A part that this kernel lacks."""

    part: str = ""
    """Its name."""
    fails: str = ""
    """What doesn't work without it."""
    instead: str = ""
    """What is used instead, or can be."""
    brings: str = ""
    """The modules, or the kernel's option, that bring it."""

    @property
    def words(self) -> str:
        """What it means, as a sentence without a full stop, about the kernel."""
        return f"it lacks {self.part}, needed for {self.fails}; instead: {self.instead}"


class KernelFacts(msgspec.Struct, frozen=True):
    """The kernel, and what of it is missing, as the proxy found at its start."""

    release: str = ""
    """As ``uname -r`` prints it."""
    lacks: Sequence[KernelLackFacts] = ()
    """What it lacks that the proxy would use; with steering ``none`` only what sockets need."""
    forbidden: Sequence[str] = ()
    """Parts that the proxy wasn't permitted to try."""
    is_partly_asked: bool = False
    """Whether only what sockets need was tried, as the steering needs nothing else."""

    @property
    def words(self) -> str:
        """What was found besides the lacks, and what wasn't tried; may be empty."""
        is_whole = not (self.forbidden or self.is_partly_asked)
        nothing = "lacks nothing" if is_whole else "lacks nothing that was tried"
        said = [] if self.lacks else [nothing]
        if self.forbidden:
            said.append(f"no permission to try {len(self.forbidden)} of its parts")
        if self.is_partly_asked:
            said.append("only what sockets need was tried")
        return "; ".join(said)


class FirewallFacts(msgspec.Struct, frozen=True):
    """A chain of another program that drops packets steered to the proxy."""

    chain: str = ""
    why: str = ""
    hint: str = ""
    family: str = ""
    """Of the packets, ``IPv4`` or ``IPv6``; empty: both."""


class UnservedFacts(msgspec.Struct, frozen=True):
    """A status address that can't be served."""

    problem: str = ""
    """Why."""
    hint: str = ""
    """What to do about it."""


class IgnoredFacts(msgspec.Struct, frozen=True):
    """A Service, or one port of it, that gets no listener."""

    service: str
    """``namespace/name``."""
    port: str
    """The port's name or number; empty when the whole Service is ignored."""
    cause: Cause
    """Why."""
    is_conflict: bool = False
    """It should be served, but another Service has its address."""

    @property
    def key(self) -> ServiceKey:
        """The Service, or the one that the port belongs to."""
        return ServiceKey.read(self.service)


class HealthCheckFacts(msgspec.Struct, frozen=True):
    """The health check node port of one Service."""

    service: str = ""
    """``namespace/name``."""
    port: int = 0
    """The ``healthCheckNodePort``."""
    local_endpoints: int = 0
    """Ready endpoints on this node."""
    problem: str = ""
    """Why it doesn't answer, or not at every address; empty if it does."""

    @property
    def key(self) -> ServiceKey:
        return ServiceKey.read(self.service)


class Unencoded(BesideJson):
    """What other answers than the JSON of the status contain."""

    __slots__ = ()
    demand: Mapping[ServiceKey, int] = MappingProxyType({})
    """How much each Service that holds connections needs pods, from this node: clients that wait,
    open connections and flows; at least 1 for some time after the last of them."""
    cluster_demand: Mapping[ServiceKey, int] | None = None
    """The same of all nodes; None: unknown here."""
    config: Sequence[tuple[str, object, str]] = ()
    """Settings for ``/configz``: name, value, origin (``default``, ``file``, ``flag``)."""
    given: str = ""
    """Those that differ from the defaults, as they were given: flags, and fields of the file."""
    announcing: Sequence[str] = ()
    """Networks whose TCP connections announce their client (``--accept-proxy-protocol``)."""
    digests: Sequence[Mapping[str, str]] = ()
    """Those of Services, ``namespace/name``, by bucket, of which ``plan`` has the sums."""


class PlanFacts(msgspec.Struct, frozen=True):
    """Digests of the Services in force, without what is this node's own."""

    form: int = 0
    """Digests of another form can't be compared."""
    digest: str = ""
    """Of all; empty if there are none to compare: not yet, or the source has no EndpointSlices."""
    services: int = 0
    """How many Services it is of."""
    buckets: Sequence[str] = ()
    """Digests of the parts into which Services are put by their names; ``/api/v1/plan`` has those
    of single Services."""


class StatusFacts(Unencoded, msgspec.Struct, kw_only=True, dict=True):
    """Everything about one proxy at one moment. Counters grow until the process ends."""

    now: float = 0.0
    """Unix time of the answer."""
    level: Level = Level.OK
    """The worst of all problems."""
    verdict: str = ""
    """All of it in one sentence."""
    problems: Sequence[Problem] = ()
    """Trouble first; within a level the node's first, then Service ports by name. Of all Service
    ports, whichever were selected."""
    incidents: Sequence[IncidentFacts] = ()
    """The causes of Service ports that need attention, each once: the worst first, and then those
    that touch the most Services. Of all Service ports, whichever were selected; of a Service or a
    namespace, those that touch it."""
    version: str = ""
    """The proxy's."""
    commit: str = ""
    """The beginning of the commit that it was made of; empty if that is unknown."""
    node: str = ""
    """This node's name."""
    started: float = 0.0
    """Unix time."""
    revision: int = 0
    """Of what is in force; it grows with each change."""
    source: SourceFacts = SourceFacts()
    """Where Services come from."""
    steering: SteeringState = SteeringState()
    """How traffic reaches the proxy."""
    sync: SyncFacts = SyncFacts()
    """The rounds of plan, diff and apply."""
    last_state: LastStateFacts = LastStateFacts()
    """What is kept for the next start."""
    client_address: ClientAddressFacts = ClientAddressFacts()
    """Which address endpoints see."""
    tracking: TrackingFacts = TrackingFacts()
    """The kernel's connection tracking."""
    socket_lb: SocketLbFacts = SocketLbFacts()
    """What translates connect() of this node's programs."""
    probes: ProbesFacts = ProbesFacts()
    """Of all Services with the path ``auto``; zeros without any."""
    firewalls: Sequence[FirewallFacts] = ()
    """Chains of other programs that drop packets to Services."""
    unserved: Sequence[UnservedFacts] = ()
    """Status addresses that can't be served."""
    ports: Annotated[
        Sequence[PortFacts],
        gauge("service_ports", "ports", "Service ports that are served, by family and side"),
    ] = ()
    """Those that were selected, those with problems first, or in the order of ``sort``."""
    totals: TotalsFacts = msgspec.field(default_factory=TotalsFacts)
    """Sums over all Service ports, former ones included."""
    ignored: Annotated[
        Sequence[IgnoredFacts], gauge("ignored", "", "Services and ports that get no listener")
    ] = ()
    """Those that were selected."""
    health_checks: Sequence[HealthCheckFacts] = ()
    """Those that were selected, with a problem first."""
    descriptors: Annotated[
        int, gauge("descriptors", "descriptors", "Descriptors in use by the data plane")
    ] = 0
    """In use by the data plane."""
    descriptor_limit: Annotated[
        int, gauge("descriptors_limit", "descriptors", "Limit of the descriptors of this process")
    ] = 0
    """Of the processes that carry traffic."""
    is_accepting: Annotated[
        bool,
        gauge(
            "accepting",
            "",
            "0 while accepting is paused because no descriptors or too little memory is left",
        ),
    ] = True
    """False while accepting is paused at the limit of descriptors or memory."""
    memory: MemoryFacts = MemoryFacts()
    """Of the nearest limit."""
    is_ready: Annotated[
        bool, gauge("ready", "", "1 while the first plan is in force and nothing drains")
    ] = True
    """The first plan is in force, a worker runs, and nothing drains."""
    is_draining: bool = False
    """It is shutting down."""
    workers: Sequence[WorkerFacts] = ()
    """The processes that carry traffic."""
    worker_problems: Sequence[str] = ()
    """Which workers are missing, and why, one line each."""
    dropped_log_lines: Annotated[
        int,
        counter(
            "log_lines_dropped",
            "lines",
            "Log lines dropped because stderr was not read, or could not be written",
        ),
    ] = 0
    """Lines that were not written."""
    node_is_eligible: Annotated[
        bool, gauge("node_eligible", "", "0 while the Node is to be deleted")
    ] = True
    """False when the Node is being deleted."""
    no_node: Cause | None = None
    """That the cluster has no Node of this node's name; null if it has, or that isn't known."""
    network_namespace: int = 0
    """The inode of the proxy's network namespace, as of its ``/proc/PID/ns/net``; 0 if unknown."""
    kernel: KernelFacts = KernelFacts()
    """The kernel, and what it lacks."""
    plan: PlanFacts = PlanFacts()
    """By which nodes are compared with each other, and with the API server."""
    process: ProcessFacts = ProcessFacts()
    """What the proxy takes."""
    settings: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Those that differ from their defaults, by their names in ``/configz``."""
    kube_proxy: Sequence[str] = ()
    """Where rules of kube-proxy are beside this proxy's; empty: nowhere, or it serves Services that
    this proxy doesn't (``--service-proxy-name``)."""
    served: int = 0
    """How many Service ports are ok, of all; a summary leaves them out."""

    @property
    def program(self) -> str:
        """What runs: version, commit, and the settings that it was given."""
        runs = f"userspace-proxy {version_in_words(self.version, self.commit)}"
        # A program that embeds the proxy has no settings.
        return f"{runs}, run with {self.given or 'the defaults'}" if self.config else runs

    def only(self, service: str) -> StatusFacts:
        """Return the facts with one Service, ``namespace/name``, or one port, by name or number.

        A name alone is a namespace.
        """
        if "/" not in service:
            inside = f"{service}/"
            return self.part(
                [port for port in self.ports if port.namespace == service],
                [item for item in self.ignored if item.service.startswith(inside)],
                [item for item in self.health_checks if item.service.startswith(inside)],
            )
        return self.part(
            [port for port in self.ports if service in port.names],
            [item for item in self.ignored if item.service == service],
            [item for item in self.health_checks if item.service == service],
        )

    def summarised(self, also: Collection[str] = ()) -> StatusFacts:
        """Return a summary, for a reader of many nodes: what needs attention, or has no answer.

        Args:
            also: Services, ``namespace/name``, that are wanted anyway.
        """
        part = self.part(
            [
                port
                for port in self.ports
                if port.state.level is not Level.OK
                or (port.connections and port.is_without_answer)
                or (also and port.names[0] in also)
            ],
            [item for item in self.ignored if item.is_conflict or item.service in also],
            [check for check in self.health_checks if check.problem or check.service in also],
        )
        # How long their iterations took changes all the time.
        part.workers = [
            msgspec.structs.replace(one, iterations=(), iterations_s=0.0) for one in self.workers
        ]
        return part

    def part(
        self,
        ports: Sequence[PortFacts],
        ignored: Sequence[IgnoredFacts],
        health_checks: Sequence[HealthCheckFacts],
    ) -> StatusFacts:
        """Return the facts with these Service ports and Services only."""
        part = msgspec.structs.replace(
            self, ports=ports, ignored=ignored, health_checks=health_checks
        )
        for name in Unencoded.__annotations__:
            setattr(part, name, getattr(self, name))
        return part
