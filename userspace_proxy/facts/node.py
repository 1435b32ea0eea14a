"""Declares the facts about one proxy and its node, as in the JSON of ``/api/v1/status``.

Rule 1: as in ``port``, fields are only added, in the order of the JSON, and have defaults.
Rule 2: the agent leaves ``now``, ``level``, ``verdict``, ``problems`` and ``incidents`` empty; they
are filled in for each answer.
Rule 3: a field that is annotated as a figure is a metric of the node: for a list, the metric is its
length; for a text, 1, or 0 if the text is empty; an unknown figure (None) has no series.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec

from ..causes.cause import Cause, CauseCode
from ..model import ServiceKey, Taken, contains, ip_of
from ..version import format_version
from .figures import counter, gauge
from .port import BesideJson, Level, PortFacts, TotalsFacts
from .processes import MemoryFacts, ProcessFacts, WorkerFacts
from .units import plural


class Problem(msgspec.Struct, frozen=True):
    """One problem of the node or of a Service port."""

    level: Level
    what: str
    """The problem, as one sentence without a full stop."""
    hint: str = ""
    """The remedy; empty if the sentence contains it."""
    port: str = ""
    """The Service port's name; empty for a problem of the node."""
    family: str = ""
    """The family that it affects; empty for both."""
    side: str = ""
    code: CauseCode | None = None
    """The code of its cause; None without a cause."""
    kind: str = ""
    """Identifies a problem of the node, without figures, so that it is constant while the problem
    lasts."""


class IncidentFacts(msgspec.Struct, frozen=True, gc=False):
    """One cause, with all Services that it affects."""

    id: str = ""
    """The ID of its page, ``incidents/ID``; it stays the same while the incident lasts, even after
    a restart."""
    level: Level = Level.OK
    """The worst level of its Service ports."""
    cause: Cause | None = None
    """The cause; its count and times cover all affected Service ports."""
    services: Sequence[str] = ()
    """The affected Services, ``namespace/name``, sorted."""
    ports: int = 0
    """The number of affected Service ports."""
    endpoints: Sequence[str] = ()
    """The addresses of the endpoints concerned; may be empty."""
    waiting: int = 0
    """Clients of these Service ports that wait for an endpoint now."""
    last_minute: int = 0
    """Clients of these Service ports that got no answer, or a late answer, in the last minute."""
    failed: int = 0
    """Clients of these Service ports that got no answer since startup."""
    saved: int = 0
    """Connections of these Service ports since startup that another endpoint answered after a
    failed dial, so that their clients noticed nothing."""
    command: str = ""
    """A command that shows more; empty if there is none."""

    @property
    def mark(self) -> Level | None:
        """The level that every view shows; None for a neutral mark."""
        return None if self.level is Level.OK else self.level

    @property
    def affected(self) -> str:
        """The affected endpoints and Services, in words: ``12 endpoints of 9 Services``."""
        return self.affected_of(plural(len(self.services), "Service"))

    def affected_of(self, services: str) -> str:
        """Return ``services``, after the number of affected endpoints if there are several."""
        count = len(self.endpoints)
        return services if count < 2 else f"{plural(count, 'endpoint')} of {services}"


class ObjectKey(NamedTuple):
    """The identity of a rejected object; its text is ``Service shop/web``."""

    kind: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {'/'.join(filter(None, self[1:]))}".strip()


NO_OBJECT = ObjectKey()


class RejectedFacts(msgspec.Struct, frozen=True):
    """An object of the source whose present form isn't used, or a group of such objects."""

    line: str
    """The line in the source's ``problems``."""
    object: str = ""
    """The object, ``Service shop/web``; empty if its name is unreadable, or the object is partly
    used."""
    kind: str = ""
    """The kind of the object; empty if ``object`` is empty."""
    namespace: str = ""
    name: str = ""
    services: Sequence[str] = ()
    """The Services concerned, ``namespace/name``; empty if unknown."""
    keeps: Sequence[str] = ()
    """Services with objects that were removed, but are kept because their file has mistakes."""
    place: str = ""
    """The place at the start of the line, ``web.yaml:14``; empty if there is none."""
    problem: str = ""
    """The rest of the line; empty if the line has no place."""
    note: Cause | None = None
    """The problem as a note of the Service; null if there is no such note."""

    @classmethod
    def at(
        cls,
        place: str,
        problem: str,
        object_: ObjectKey = NO_OBJECT,
        services: Sequence[str] = (),
        note: Cause | None = None,
    ) -> RejectedFacts:
        """Return the facts about a mistake at a place, with its ``note`` on the Service, if any."""
        line = f"{place}: {problem}"
        return cls(line, str(object_), *object_, services, place=place, problem=problem, note=note)

    def about(self, services: Sequence[str], keeps: Sequence[str]) -> RejectedFacts:
        """Return a copy that is about other Services."""
        return msgspec.structs.replace(self, services=services, keeps=keeps)


class SourceFacts(msgspec.Struct, frozen=True):
    """The source of Services, and whether it can be read."""

    kind: str = ""
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str = ""
    """The API server's URL, or the path of the manifests."""
    is_synced: Annotated[
        bool, gauge("source_synced", "", "1 once everything has been read from the source")
    ] = False
    problems: Annotated[
        Sequence[str], gauge("source_problems", "problems", "Problems of the source now")
    ] = ()
    """Current problems, one line each; objects that can't be read keep their last state."""
    restarts: Annotated[
        int, counter("source_restarts", "restarts", "Watches that restarted with a list")
    ] = 0
    """The number of times that a watch was restarted with a list."""
    rejected: Sequence[RejectedFacts] = ()
    """The problems of single objects; all other problems concern the source as a whole."""

    def rejected_of(self, service: str) -> Sequence[RejectedFacts]:
        """Return the rejected objects of a Service, given by its name or the name of a port."""
        key = service.partition(":")[0]
        return [item for item in self.rejected if key in item.services]


class SteeringState(msgspec.Struct, frozen=True):
    """How traffic reaches the proxy, and the state of the steering rules."""

    name: str = ""
    problem: Annotated[str, gauge("steering_problems", "", "1 while steering fails")] = ""
    has_drifted: Annotated[
        bool,
        gauge("steering_drift", "", "1 while rules may differ from the plan and can't be repaired"),
    ] = False
    """Whether another program has changed the kernel's state, and ``problem`` prevents the
    repair."""
    repairs: Annotated[
        int,
        counter("steering_repairs", "repairs", "Frontends and guard rules repaired after drift"),
    ] = 0
    repaired_last_minute: int = 0
    """The number of repairs in the last minute."""
    helper_restarts: Annotated[
        int,
        counter("steering_helper_restarts", "restarts", "Helper processes restarted after a crash"),
    ] = 0
    """The number of helper processes that crashed and were replaced."""
    unguarded: Annotated[
        str, gauge("unguarded", "", "1 if, after a crash, another process could take proxy ports")
    ] = ""
    """Why another process could take the proxy's ports after a crash; empty if no process could."""


class SyncFacts(msgspec.Struct, frozen=True):
    """The sync rounds (plan, diff, apply); times are Unix times, or 0 for never."""

    rounds: Annotated[int, counter("sync_rounds", "rounds", "Rounds of plan, diff and apply")] = 0
    failures: Annotated[int, counter("sync_failures", "rounds", "Rounds that failed")] = 0
    partial_failures: int = 0
    """The number of failed rounds that should have written only changes."""
    last_s: float = 0.0
    """How long the last round took, in seconds."""
    last_queued: float = 0.0
    """When the last change arrived."""
    last_done: float = 0.0
    """When all changes were last applied."""
    waiting_since: float = 0.0
    """When the oldest change that isn't applied yet arrived; 0 if none is pending. Health depends
    on it: ``last_queued`` stays recent while changes arrive, even if every round fails."""
    service_changes: int = 0
    """The number of times since startup that a Service differed from the last snapshot."""
    service_changes_pending: int = 0
    """Changed Services that aren't applied yet."""
    endpoint_changes: int = 0
    """The number of times since startup that an EndpointSlice differed from the last snapshot."""
    endpoint_changes_pending: int = 0
    """Changed EndpointSlices that aren't applied yet."""
    turned_s_ago: float = 0.0
    """Seconds since the sync loop began its last iteration, whether or not it succeeded."""
    problem: str = ""
    """Why the last round failed, as the kernel or server reported it; empty if it succeeded."""


class LastStateFacts(msgspec.Struct, frozen=True):
    """The saved state: kept on disk, and served after a restart until the source answers."""

    path: str = ""
    """The file's path; empty if no state is kept."""
    served_at: Annotated[
        float,
        gauge(
            "last_state_served_timestamp_seconds",
            "seconds",
            "When the saved state that is served was current; 0 once the source has answered",
        ),
    ] = 0.0
    """The Unix time when the saved state was current; 0 once the source has answered."""
    problem: str = ""
    """Why the state isn't kept; empty if it is kept."""
    failing_since: float = 0.0
    """The Unix time since which the state hasn't been kept; 0 if it is kept."""
    failures: Annotated[
        int,
        counter(
            "last_state_failures", "failures", "Times the saved state could not be written to disk"
        ),
    ] = 0
    """The number of times that the file couldn't be written."""
    age_s: float | None = None
    """The age of the served state in seconds; null if the saved state isn't served."""

    def age_at(self, now: float) -> float | None:
        """Return ``age_s`` at a Unix time; None if the saved state isn't served."""
        return max(0.0, now - self.served_at) if self.served_at else None


class BridgeFacts(msgspec.Struct, frozen=True):
    """A bridge on which endpoints don't see clients' addresses."""

    name: str = ""
    """The bridge's interface."""
    family: str = ""
    """The IP family, ``IPv4`` or ``IPv6``."""
    cause: str = ""
    """Why endpoints on the bridge don't see client addresses."""
    hint: str = ""
    """The remedy."""


class ClientAddressFacts(msgspec.Struct, frozen=True):
    """Whether endpoints see client addresses, if replies return through this node."""

    is_on: Annotated[
        bool,
        gauge(
            "preserves_client_address", "", "1 while endpoints see client addresses where possible"
        ),
    ] = False
    """Whether endpoints see client addresses."""
    reason: str = ""
    """Why endpoints see the node's address; empty if they see client addresses, or if these weren't
    requested."""
    problem: Annotated[
        str, gauge("client_address_problems", "", "1 while endpoints can't see client addresses")
    ] = ""
    """The fault that can't be repaired at the moment; empty if there is none."""
    repairs: int = 0
    """The number of repairs since startup."""
    bridges: Annotated[
        Sequence[BridgeFacts],
        gauge("client_address_bridges", "", "Bridges whose endpoints can't see client addresses"),
    ] = ()
    """Bridges on which client addresses don't work while ``is_on``."""


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
    """The size of the table; 0 if nothing is tracked."""
    drops: Annotated[
        int, counter("conntrack_drops", "packets", "Packets that conntrack dropped since boot")
    ] = 0
    is_full: Annotated[
        bool,
        gauge(
            "conntrack_full",
            "",
            "1 while the kernel's conntrack table is full, so new connections may fail",
        ),
    ] = False
    is_dropping: bool = False
    """Whether the table is full, and has dropped packets since it became full."""


class SocketLbFacts(msgspec.Struct, frozen=True):
    """BPF programs that translate this node's connect() calls, before the kernel path's rules."""

    is_attached: Annotated[
        bool | None,
        gauge("socket_lb_attached", "", "1 while connect() of this node's programs is translated"),
    ] = None
    """Whether the translation works; null if it isn't requested."""
    problem: Annotated[
        str, gauge("socket_lb_problems", "", "1 while connect() can't be translated everywhere")
    ] = ""
    """Why the translation doesn't work, or not everywhere; the kernel path's rules serve other
    clients."""
    cgroup: str = ""
    """The cgroup of the processes whose connect() calls are translated."""
    frontends: Annotated[
        int,
        gauge("socket_lb_frontends", "frontends", "Frontends at which connect() is translated"),
    ] = 0
    """The number of frontends that are translated."""
    repairs: Annotated[
        int,
        counter(
            "socket_lb_repairs",
            "repairs",
            "BPF programs and maps put back after another program had removed them",
        ),
    ] = 0
    """The number of parts restored after another program had removed them."""
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
    """The number of endpoints that are probed."""
    interval_s: Annotated[
        float,
        gauge(
            "path_probe_interval_seconds",
            "seconds",
            "Measured average time between two probes of an endpoint that answers; 0 while unknown",
        ),
    ] = 0.0
    """The measured interval: average seconds between the last two probes of endpoints that answer;
    0 until an endpoint that answers has been probed twice."""
    per_second: Annotated[
        int,
        gauge(
            "path_probe_budget",
            "probes",
            "Probes that may begin in a second; 0 while nothing is probed",
        ),
    ] = 0
    """The budget: the maximum number of probes that begin in a second; 0 before the first probe."""
    sent: Annotated[
        int,
        counter("path_probes", "probes", "Probes of endpoints of Services with the path auto"),
    ] = 0
    failed: Annotated[
        int, counter("path_probe_failures", "probes", "Of these, those without an answer")
    ] = 0
    """The number of probes that endpoints didn't answer."""


class KernelLackFacts(msgspec.Struct, frozen=True):
    """A feature that this kernel lacks."""

    part: str = ""
    """The feature's name."""
    fails: str = ""
    """The function that fails without it."""
    instead: str = ""
    """The substitute that is used, or can be used."""
    brings: str = ""
    """The modules, or the kernel option, that provide it."""

    @property
    def words(self) -> str:
        """The missing feature and its effect, as a sentence without a full stop."""
        return f"it lacks {self.part}, needed for {self.fails}; instead: {self.instead}"


class KernelFacts(msgspec.Struct, frozen=True):
    """The kernel, and the features that the proxy found missing at startup."""

    release: str = ""
    """The kernel's release, as ``uname -r`` prints it."""
    lacks: Sequence[KernelLackFacts] = ()
    """Missing features that the proxy would use; with ``none`` steering only socket features."""
    forbidden: Sequence[str] = ()
    """Features that the proxy wasn't permitted to try."""
    is_partly_asked: bool = False
    """Whether only features for sockets were tried, because the steering needs no others."""

    @property
    def words(self) -> str:
        """What ``lacks`` doesn't show: that nothing is missing, what wasn't tried; may be empty."""
        is_whole = not (self.forbidden or self.is_partly_asked)
        nothing = "lacks nothing" if is_whole else "lacks nothing that was tried"
        said = [] if self.lacks else [nothing]
        if self.forbidden:
            said.append(f"no permission to try {len(self.forbidden)} of its parts")
        if self.is_partly_asked:
            said.append("only what sockets need was tried")
        return "; ".join(said)


class FirewallFacts(msgspec.Struct, frozen=True):
    """A chain of another program that drops packets to the proxy, or its answers to clients."""

    chain: str = ""
    why: str = ""
    hint: str = ""
    family: str = ""
    """The packets' family, ``IPv4`` or ``IPv6``; empty for both."""
    is_of_answers: bool = False
    """Whether it drops answers to clients."""
    protocol: str = ""
    """The packets' protocol, ``TCP`` or ``UDP``; empty for both."""


class PodRuleFacts(msgspec.Struct, frozen=True):
    """A chain of another program that may drop packets to or from pods."""

    ip: str = ""
    """The pod's address, or pods' network."""
    what: str = ""
    """The chain and the rule, as a clause."""
    hint: str = ""
    """The remedy."""

    def is_about(self, ip: str) -> bool:
        """Return whether the rule may drop packets of a pod; False if the facts aren't valid."""
        try:
            return contains((self.ip,), ip)
        except ValueError:
            return False


class UnservedFacts(msgspec.Struct, frozen=True):
    """A status address that can't be served."""

    problem: str = ""
    """Why the address can't be served."""
    hint: str = ""
    """The remedy."""


class IgnoredFacts(msgspec.Struct, frozen=True):
    """A Service, or one of its ports, without a listener."""

    service: str
    """The Service, ``namespace/name``."""
    port: str
    """The port's name or number; empty when the whole Service is ignored."""
    cause: Cause
    """Why the Service or port gets no listener."""
    is_conflict: bool = False
    """Whether it should be served, but can't be, as when another Service owns its address."""

    @property
    def key(self) -> ServiceKey:
        """The Service, or the Service of the port."""
        return ServiceKey.read(self.service)


class HealthCheckFacts(msgspec.Struct, frozen=True):
    """The health check node port of one Service."""

    service: str = ""
    """The Service, ``namespace/name``."""
    port: int = 0
    """The ``healthCheckNodePort``."""
    local_endpoints: int = 0
    """Number of ready endpoints on this node."""
    problem: str = ""
    """Why the port doesn't answer on some or all addresses; empty if it answers on all."""

    @property
    def key(self) -> ServiceKey:
        return ServiceKey.read(self.service)


class Unencoded(BesideJson):
    """Facts for answers other than the JSON of the status."""

    __slots__ = ()
    demand: Mapping[ServiceKey, int] = MappingProxyType({})
    """This node's demand for pods of each Service with ``hold``: waiting clients, open connections
    and flows; at least 1 for some time after the last of them."""
    cluster_demand: Mapping[ServiceKey, int] | None = None
    """The demand of all nodes; None if unknown here."""
    config: Sequence[tuple[str, object, str]] = ()
    """Settings for ``/configz``: name, value, origin (``default``, ``file``, ``flag``)."""
    given: str = ""
    """Settings other than the defaults, as the user wrote them: flags, and fields of the file."""
    announcing: Sequence[str] = ()
    """Networks whose TCP connections begin with a PROXY header (``--accept-proxy-protocol``)."""
    digests: Sequence[Mapping[str, str]] = ()
    """Digests of Services, ``namespace/name``, by bucket; ``plan`` has digests of buckets."""
    dropped: Mapping[str, Taken] = MappingProxyType({})
    """By family and protocol, ``IPv4/TCP``, what drops packets of some or all pods."""


class PlanFacts(msgspec.Struct, frozen=True):
    """Digests of the applied Services, without anything specific to this node."""

    form: int = 0
    """Version of the digests; only equal versions can be compared."""
    digest: str = ""
    """Digest of all Services; empty before it is known, or if the source has no EndpointSlices."""
    services: int = 0
    """Number of Services in the digest."""
    buckets: Sequence[str] = ()
    """Digests of buckets, into which Services are distributed by name; ``/api/v1/plan`` has the
    digests of single Services."""


class StatusFacts(Unencoded, msgspec.Struct, kw_only=True, dict=True):
    """All facts about one proxy at one moment. Counters grow until the process exits."""

    now: float = 0.0
    """Unix time of the answer."""
    level: Level = Level.OK
    """The worst level of all problems."""
    verdict: str = ""
    """The state in one sentence."""
    problems: Sequence[Problem] = ()
    """The problems of the node and of all Service ports, regardless of the selection: trouble
    first; within a level, problems of the node, then of Service ports, by name."""
    incidents: Sequence[IncidentFacts] = ()
    """The causes of Service ports that need attention, each once: the worst first, then the causes
    that affect the most Services. They cover all Service ports, regardless of the selection; for a
    Service or a namespace, only the causes that affect it."""
    version: str = ""
    """The proxy's version."""
    commit: str = ""
    """The commit that the proxy was built from, abbreviated; empty if unknown."""
    is_compiled: bool = False
    """Whether the data plane is compiled, as in the image."""
    node: str = ""
    """This node's name."""
    started: float = 0.0
    """Unix time of the proxy's start."""
    revision: int = 0
    """Revision of the applied snapshot; grows with each change."""
    source: SourceFacts = SourceFacts()
    """The source of Services."""
    steering: SteeringState = SteeringState()
    """How traffic reaches the proxy."""
    sync: SyncFacts = SyncFacts()
    """The sync rounds."""
    last_state: LastStateFacts = LastStateFacts()
    """The saved state, which is kept for the next start."""
    client_address: ClientAddressFacts = ClientAddressFacts()
    """Whether endpoints see client addresses, and why not."""
    tracking: TrackingFacts = TrackingFacts()
    """The kernel's connection tracking."""
    socket_lb: SocketLbFacts = SocketLbFacts()
    """The translation of connect() for this node's processes."""
    probes: ProbesFacts = ProbesFacts()
    """The probes for all Services with the path ``auto``; all 0 without such Services."""
    firewalls: Sequence[FirewallFacts] = ()
    """Chains of other programs that drop packets of Services."""
    pod_rules: Sequence[PodRuleFacts] = ()
    """The rules about pods or networks, one for each; for a selection, about its endpoints."""
    unserved: Annotated[
        Sequence[UnservedFacts], gauge("unserved", "", "Status addresses that can't be served")
    ] = ()
    """Status addresses that can't be served."""
    unrouted: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Cluster IPs to which this node's programs, except pods, have no route, and why."""
    ports: Annotated[
        Sequence[PortFacts],
        gauge("service_ports", "ports", "Service ports that are served, by family and side"),
    ] = ()
    """The selected Service ports: problems first, or in the order of ``sort``."""
    totals: TotalsFacts = msgspec.field(default_factory=TotalsFacts)
    """Sums over all Service ports, including former Service ports."""
    ignored: Annotated[
        Sequence[IgnoredFacts], gauge("ignored", "", "Services and ports that get no listener")
    ] = ()
    """The selected Services and ports that aren't served."""
    health_checks: Sequence[HealthCheckFacts] = ()
    """The selected health checks; health checks with a problem come first."""
    descriptors: Annotated[
        int, gauge("descriptors", "descriptors", "Descriptors in use by the data plane")
    ] = 0
    """Descriptors in use by the data plane."""
    descriptor_limit: Annotated[
        int, gauge("descriptors_limit", "descriptors", "Limit of the descriptors of this process")
    ] = 0
    """The limit of descriptors of the processes that carry traffic."""
    is_accepting: Annotated[
        bool,
        gauge(
            "accepting",
            "",
            "0 while accepting is paused because no descriptors or too little memory is left",
        ),
    ] = True
    """Whether connections are accepted; false at the limit of descriptors or memory."""
    memory: MemoryFacts = MemoryFacts()
    """Memory in use, and its nearest limit."""
    is_ready: Annotated[
        bool, gauge("ready", "", "1 while the first plan is applied and nothing drains")
    ] = True
    """Whether the first plan is applied, a worker is running, and the proxy isn't draining."""
    is_draining: bool = False
    """Whether the proxy is shutting down."""
    workers: Sequence[WorkerFacts] = ()
    """The processes that carry traffic."""
    worker_problems: Sequence[str] = ()
    """The missing workers, each with the reason, one line each."""
    dropped_log_lines: Annotated[
        int,
        counter(
            "log_lines_dropped",
            "lines",
            "Log lines dropped because stderr was not read, or could not be written",
        ),
    ] = 0
    """Number of log lines that were dropped."""
    node_is_eligible: Annotated[
        bool, gauge("node_eligible", "", "0 while the Node is to be deleted")
    ] = True
    """Whether the node is eligible for traffic: false while its Node object is being deleted."""
    no_node: Cause | None = None
    """The finding that the cluster has no Node of this name; null if it has, or if unknown."""
    network_namespace: int = 0
    """The inode of the proxy's network namespace (``/proc/PID/ns/net``); 0 if unknown."""
    kernel: KernelFacts = KernelFacts()
    """The kernel and its missing features."""
    plan: PlanFacts = PlanFacts()
    """Digests to compare nodes with each other, and with the API server."""
    process: ProcessFacts = ProcessFacts()
    """The CPU time and memory that the proxy uses."""
    settings: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Settings other than the defaults, by their names in ``/configz``."""
    kube_proxy: Sequence[str] = ()
    """The places where kube-proxy also has rules; empty if it has none, or if this proxy serves
    other Services than kube-proxy (``--service-proxy-name``)."""
    served: int = 0
    """Number of Service ports that are ok, which a summary omits."""

    @property
    def program(self) -> str:
        """The program in words: version and commit, whether it is compiled, and given settings."""
        runs = f"userspace-proxy {format_version(self.version, self.commit)}"
        runs += ", compiled" if self.is_compiled else ""
        # A program that embeds the proxy has no settings.
        return f"{runs}, run with {self.given or 'the defaults'}" if self.config else runs

    def only(self, service: str) -> StatusFacts:
        """Return a copy with only one Service, ``namespace/name``, or only one of its ports.

        A port is given by name or number. A name without a slash selects a namespace.
        """
        if "/" not in service:
            inside = f"{service}/"
            return self.part(
                [port for port in self.ports if port.namespace == service],
                [item for item in self.ignored if item.service.startswith(inside)],
                [item for item in self.health_checks if item.service.startswith(inside)],
            )
        named = [port for port in self.ports if service in port.names]
        return self.part(
            named or [port for port in self.ports if port.has_number(service)],
            [item for item in self.ignored if item.service == service],
            [item for item in self.health_checks if item.service == service],
        )

    def summarised(self, also: Collection[str] = ()) -> StatusFacts:
        """Return a copy, for views of many nodes, without Service ports that are known to work.

        Args:
            also: Services, ``namespace/name``, to include anyway.
        """
        part = self.part(
            [
                port
                for port in self.ports
                if port.state.level is not Level.OK
                or (port.connections and port.is_without_answer)
                or (port.neutral_reason and (port.last_minute.cause or port.doubt) is not None)
                or (also and port.names[0] in also)
            ],
            [item for item in self.ignored if item.is_conflict or item.service in also],
            [check for check in self.health_checks if check.problem or check.service in also],
        )
        # Omit durations of iterations: they always change, so a stream would always contain them.
        part.workers = [
            msgspec.structs.replace(one, iterations=(), iterations_s=0.0) for one in self.workers
        ]
        return part

    def pod_rules_of(self, ports: Sequence[PortFacts]) -> Sequence[PodRuleFacts]:
        """Return the rules about endpoints of ``ports``."""
        # Cost: nearly all nodes have no such rules.
        known = ports if self.pod_rules else ()
        ips = {ip_of(one.address) for port in known for one in port.endpoints}
        return tuple(one for one in self.pod_rules if any(map(one.is_about, ips)))

    def part(
        self,
        ports: Sequence[PortFacts],
        ignored: Sequence[IgnoredFacts],
        health_checks: Sequence[HealthCheckFacts],
    ) -> StatusFacts:
        """Return the facts with only these Service ports and Services."""
        part = msgspec.structs.replace(
            self, ports=ports, ignored=ignored, health_checks=health_checks
        )
        part.pod_rules = self.pod_rules_of(ports)
        for name in Unencoded.__annotations__:
            setattr(part, name, getattr(self, name))
        return part
