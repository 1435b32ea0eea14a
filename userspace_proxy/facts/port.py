"""Declares the facts about one Service port, for the JSON, the page, the text and the metrics.

    plan ──facts_of_plan──▶ PortFacts ◀── frontends, endpoints, figures, path (agent), state (judge)

Rule 1: the JSON has these fields; within a version, fields are only added. All have defaults,
because ``explain`` also reads the JSON of older proxies.
Rule 2: changed facts are replaced; facts are immutable once they are shown.
Rule 3: in the JSON, positional fields precede keyword-only fields; inherited fields come first.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from ..causes.cause import Cause, CauseCode, When
from ..model import DataPath, Taken, port_of
from ..model.addresses import FrontendKind, at_port
from ..plan import PortPlan
from ..policy.usable import EndpointState
from .figures import PortFigures, TrafficByCause, counter
from .last_minute import LastMinuteFacts
from .states import PortState


class Level(enum.StrEnum):
    """The severity of a state."""

    OK = "ok"
    ATTENTION = "attention"
    TROUBLE = "trouble"


WORST_FIRST = (Level.TROUBLE, Level.ATTENTION, Level.OK)


def worst(levels: Iterable[Level | None]) -> Level:
    """Return the worst level; ok if there is none."""
    found = set(levels)
    return next((level for level in WORST_FIRST if level in found), Level.OK)


class FrontendFacts(msgspec.Struct, frozen=True, gc=False):
    """One address that clients dial."""

    address: str = ""
    """Address and port: ``10.96.7.1:80``, ``[fd00::1]:80``."""
    kind: str = ""
    """``ClusterIP``, ``NodePort``, ``LoadBalancer``, ``ExternalIP``."""
    target: str = ""
    """The target, in words: ``proxy port 20001``, ``refused``, ``dropped``, …"""
    is_reached: bool = True
    """Whether clients that dial it reach this proxy."""
    only_at: str = ""
    """The address that clients must dial instead, without steering; empty for this address."""

    @property
    def of_any_node(self) -> str:
        """The address for readers of all nodes: a node port has other addresses on each node."""
        is_node_port = self.kind == FrontendKind.NODE_PORT
        return f"any node's address, port {port_of(self.address)}" if is_node_port else self.address


class EndpointVerdictFacts(TrafficByCause):
    """The fields of an endpoint that precede its figures."""

    address: str = ""
    """The endpoint's address and port."""
    state: str = ""
    """``ready``, ``not ready``, ``terminating``, or the reason why it isn't used."""
    is_usable: bool = False
    """Whether this node's clients may use it now."""
    code: CauseCode | None = None
    """Why the endpoint isn't used, as a code; null if ``state`` isn't an obstacle."""
    weight: int = 0
    """Its share of new connections, relative to other weights; 0 if it gets no new connections."""
    priority: int = 0
    """0 is the highest priority; endpoints with a higher number serve only if no lower one can."""
    is_standby: bool = False
    """Whether it is on standby: usable, while other usable endpoints have a lower number."""
    starting: float | None = None
    """The fraction of its share during slow start, below 1; null if it has its full share."""
    preference: str = ""
    """Priority, weight and slow start in words; empty without any."""
    node: str = ""
    """The node that it runs on; empty if unknown."""
    ejected_for_s: float | None = None
    """Seconds until an ejected endpoint is tried again; null if it isn't ejected."""
    cause: Cause | None = None
    """Why connections to it failed last, or the fault injected into it; null if neither."""


_READY = (EndpointState.READY, EndpointState.PUBLISHED)


class EndpointFacts(EndpointVerdictFacts, kw_only=True, gc=False):
    """One endpoint of a Service port."""

    host: str = ""
    """The DNS name that resolved to it; empty if it is listed by address."""
    pod: str = ""
    """The pod's name, in the Service's namespace; empty if unknown, or not a pod."""
    answered_at: float = 0.0
    """Unix time at which it last answered a dial; 0 if it never has."""
    is_past: bool = False
    """Whether ``cause`` was last seen over a minute ago, or half a minute if it denies clients."""
    sent_at: float = 0.0
    """Unix time at which it last sent a client a first byte or a first datagram, even an empty one;
    0 if it never has."""

    @property
    def has_sent(self) -> bool:
        """Whether the endpoint has ever sent a client a byte after the handshake, or a datagram."""
        return bool(self.sent_bytes or self.sent_at)

    @property
    def is_left_out(self) -> bool:
        """Whether only traffic policy or hints prevent this node's clients from using it."""
        return self.code in (CauseCode.NOT_LOCAL, CauseCode.NOT_FOR_THIS_NODE)

    @property
    def is_refused(self) -> bool:
        """Whether the proxy never dials it: its address is reserved, or belongs to this node."""
        return self.code is CauseCode.ENDPOINT_NOT_ALLOWED

    @property
    def serves(self) -> bool:
        """Whether it serves clients: it is usable, not ejected, and connections to it don't fail.

        An injected fault isn't a failure. An endpoint that denies some clients serves others, and
        an endpoint that resets connections has answered them.
        """
        is_fine = self.cause is None or self.cause.code.traits.serves
        return self.is_usable and self.ejected_for_s is None and is_fine

    @property
    def level(self) -> Level | None:
        """How well it serves; None if this node doesn't use it by design."""
        if self.is_usable:
            is_well = self.state in _READY and self.cause is None
            # Clients that leave unanswered are an observation, not a failure.
            is_seen = self.cause is not None and self.cause.code.traits.is_unanswered
            is_now = self.cause is None or self.cause.when is When.NOW
            fails = is_now and not (self.serves or self.is_past or is_seen)
            return Level.TROUBLE if fails else Level.OK if is_well else Level.ATTENTION
        return None if self.is_left_out or self.state in _READY else Level.ATTENTION

    def without_cause(self) -> EndpointFacts:
        return msgspec.structs.replace(self, cause=None, is_past=False)


class ClauseFacts(msgspec.Struct, frozen=True, gc=False):
    """A clause of the sentence about a state; clauses are joined by semicolons."""

    text: str = ""
    causes: Sequence[int] = ()
    """The causes that it states, as indexes into the state's ``causes``."""
    is_dated: bool = False
    """Whether the clause is about a past moment, whose age is shown with it."""


class StateFacts(msgspec.Struct, frozen=True, gc=False):
    """The state of a Service port: how its clients are served."""

    level: Level = Level.OK
    """``trouble``: this proxy, its node, or all endpoints of the Service port fail; ``attention``:
    anything else that needs a look, such as a Service without usable endpoints."""
    word: PortState = PortState("")
    """The state, as a word."""
    sentence: str = ""
    """The state and its reason, as a sentence."""
    causes: Sequence[Cause] = ()
    """Everything known to fail, or to have no effect; the first cause decides the state."""
    hint: str = ""
    """The remedy for the first cause; without a cause, how to find out more."""
    code: CauseCode | None = None
    """The first cause's code; null without a cause."""
    clauses: Sequence[ClauseFacts] = ()
    """The clauses of the sentence."""

    @property
    def stated(self) -> Sequence[Cause]:
        """The causes that the sentence states."""
        places = [place for clause in self.clauses for place in clause.causes]
        return [self.causes[place] for place in places if place < len(self.causes)]

    @property
    def is_problem(self) -> bool:
        """Whether some clients that should be served aren't served."""
        return self.level is not Level.OK and not self.word.serves


class PortPlanFacts(PortFigures):
    """The fields of a Service port that precede its figures."""

    namespace: str = ""
    """The Service's namespace."""
    service: str = ""
    """The name of the Service."""
    port: str = ""
    """The port's name; empty if it has none."""
    family: str = ""
    """The IP family, ``IPv4`` or ``IPv6``."""
    protocol: str = ""
    """The protocol, ``TCP`` or ``UDP``."""
    side: str = ""
    """Empty for all frontends, or for frontends inside the cluster; ``external`` or ``load
    balancer`` for frontends with a policy of their own."""
    frontends: Sequence[FrontendFacts] = ()
    """The frontends, ClusterIPs first and node ports last."""
    endpoints: Sequence[EndpointFacts] = ()
    """The endpoints, sorted by address."""
    cause: Cause | None = None
    """Why clients are refused, wait or are dropped; null if an endpoint is usable."""
    is_dropping: bool = False
    """Whether some clients' packets are dropped, because only other nodes have endpoints for
    them."""
    policy: str = ""
    """Which endpoints serve which clients, in words; empty if all endpoints serve all clients."""
    admits: Sequence[str] | None = None
    """Networks whose clients are admitted; null if all clients are."""
    balance: str = ""
    """How endpoints are chosen, in words; empty for round robin."""
    slow_start_s: float = 0.0
    """Seconds until a new endpoint gets its full share of connections; 0 if it gets all of it
    immediately."""
    max_connections: int | None = None
    """The maximum number of connections from this node to each endpoint; null for no limit."""
    hold_s: float | None = None
    """Seconds that clients wait for an endpoint; null if they don't wait but are refused."""
    path: DataPath = DataPath.USERSPACE
    """``userspace``: connections pass through the proxy; ``kernel``: the kernel translates them
    straight to an endpoint, and only ``kernel_connections`` and ``socket_connections`` count
    them; ``auto``, in a plan that isn't served: probes decide."""
    path_since: float = 0.0
    """Unix time at which new connections began to take this path; 0 if unknown."""
    path_reason: str = ""
    """Why the path isn't the default, in words; empty for the default."""
    kernel_connections: int | None = None
    """Connections (flows) since startup that rules sent straight to endpoints; null where that is
    impossible, or they aren't counted. A few seconds old at most."""
    is_probed: bool = False
    """Whether probes of the endpoints choose the path: see ``probes``."""
    affinity_timeout_s: int | None = None
    """Timeout of ``sessionAffinity: ClientIP`` in seconds; null without affinity."""
    notes: Sequence[Cause] = ()
    """Settings of this Service port that have no effect; a Service's first port also has the notes
    about the Service and its EndpointSlices."""
    problem: str = ""
    """Why the port isn't served although it should be; empty if it is served."""
    hint: str = ""
    """The remedy for the problem."""


class BesideJson:
    """Attributes of a Struct that aren't in the JSON, but are pickled for other processes."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), vars(self))


class Planned(BesideJson):
    """The inputs of a Service port's facts."""

    __slots__ = ()
    plan: PortPlan
    """The plan; absent if the facts were read from JSON."""
    taken_by = ""
    """The other program's chain that causes the problem; empty if none is known."""
    perhaps_taken: Taken | None = None
    """The other program's chain that may take clients' packets; None if none is known."""
    is_unsteered = False
    """Whether the problem is that no rules steer clients here; its text doesn't name the
    address."""
    planned = ""
    """For a plan: the state that clients would find, as a clause."""
    judged: tuple[object, PortFacts | None] | None = None
    """The other inputs of the verdict, and a copy of the facts with the verdict, or None if these
    facts contain it. The whole is None before the first verdict."""


class PortFacts(Planned, PortPlanFacts, kw_only=True, dict=True):
    """One Service port, for one IP family and side."""

    proxy_protocol: str | None = None
    """Version of the PROXY header sent to endpoints, ``v1`` or ``v2``; null if none is sent."""
    shared_number: str = ""
    """``53/UDP`` if its Service also has the number for another protocol; otherwise empty."""
    turned_away: Sequence[Cause] = ()
    """Clients that the kernel turned away, by cause; the counts are packets."""
    other_ports: Cause | None = None
    """Ports that the Service lacks, but that clients dialled at its ClusterIP in the last minute;
    only one port of a Service has this. Null with other steerings than ``nftables``."""
    client_mistakes: Sequence[Cause] = ()
    """Clients rejected because of their requests, by cause: in the last minute, or since startup if
    no client has been served."""
    is_out_of_ports: bool = False
    """Whether, in the last minute, no source port was free for an endpoint."""
    is_out_of_client_ports: bool = False
    """Whether, in the last minute, a client's own address had no free port for an endpoint."""
    last_minute: LastMinuteFacts = LastMinuteFacts()
    """Clients that got no answer, or a late answer, in the last minute."""
    sent_at: float = 0.0
    """Unix time at which an endpoint last sent data to a client, at most a few seconds late; 0 if
    none ever did through the proxy."""
    is_quiet: bool = False
    """Whether clients were answered before, but no client in the last minute; false on the kernel
    path, where that is unknown."""
    socket_connections: int | None = None
    """Connections of processes of this node since startup that were translated at connect(); null
    where that is impossible (``--socket-lb``)."""
    unanswered: Cause | None = None
    """Why clients on the kernel path get no answer; null if none is known to fail."""
    silent_endpoints: int = 0
    """The number of endpoints that ``unanswered`` describes if other endpoints answer clients on
    the kernel path; 0 if all clients get no answer."""
    state: StateFacts = StateFacts()
    """How the port's clients are served."""

    @property
    def name(self) -> str:
        """The name: ``shop/web:http``."""
        name = f"{self.namespace}/{self.service}"
        return f"{name}:{self.port}" if self.port else name

    @property
    def number(self) -> str:
        """The port number of its first frontend, ``80``; empty without a frontend."""
        return port_of(self.frontends[0].address) if self.frontends else ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names: ``shop/web``, ``shop/web:http``, ``shop/web:80``."""
        service = f"{self.namespace}/{self.service}"
        return (service, self.name, *([f"{service}:{self.number}"] if self.number else ()))

    def has_number(self, name: str) -> bool:
        """Return whether a name, such as ``shop/web:8001``, has a port in this port's range."""
        service, _, port = name.rpartition(":")
        is_own = service == f"{self.namespace}/{self.service}"
        return is_own and any(at_port(frontend.address, port) for frontend in self.frontends)

    @property
    def title(self) -> str:
        """The name, with ``shared_number`` if the number is ambiguous: ``shop/dns:udp 53/UDP``."""
        return f"{self.name} {self.shared_number}".rstrip()

    @property
    def is_holding(self) -> bool:
        """Whether clients wait, or would wait, because no node has a usable endpoint."""
        return self.hold_s is not None and self.cause is not None and not self.is_dropping

    @property
    def policy_drops(self) -> Cause | None:
        """The cause, with a count of packets, if the traffic policy drops clients; else None."""
        if not self.is_dropping or self.cause is None:
            return None
        code = self.cause.code
        return next((cause for cause in self.turned_away if cause.code is code), self.cause)

    @property
    def mark(self) -> Level | None:
        """The level that every view shows; None for a neutral mark."""
        return None if self.neutral_reason else self.state.level

    @property
    def neutral_reason(self) -> str:
        """The meaning of its neutral mark; empty if its mark isn't neutral."""
        return self.state.word.neutral if self.state.level is Level.OK else ""

    @property
    def is_unserved(self) -> bool:
        """Whether clients got, or may get, no answer although the port's mark is neutral."""
        has_failed = self.failed or self.turned_away or self.last_minute.cause or self.other_ports
        return bool(self.neutral_reason and (has_failed or self.doubt))

    @property
    def doubt(self) -> Cause | None:
        """A cause with a chain that may take packets; None without one, or with another mark."""
        chains = (cause for cause in self.state.causes if cause.get("chain"))
        return next(chains, None) if self.neutral_reason else None

    def mark_of(self, endpoint: EndpointFacts) -> Level | None:
        """Return the level that every view shows for an endpoint; None for a neutral mark.

        If a cause of the port's state names an endpoint with level ok, the endpoint failed clients
        in the last minute, and has the port's mark. The mark of any other ok endpoint is neutral if
        nothing has come back in its connections, if it has sent nothing while the port isn't ok, or
        if its answers aren't visible (:attr:`is_unseen`). The mark of an endpoint that failed so
        long ago that the port is ok is also neutral.
        """
        if endpoint.level is not Level.OK:
            is_over = endpoint.is_past and self.state.level is Level.OK
            return None if is_over else endpoint.level
        if any(cause.get("at") == endpoint.address for cause in self.state.causes):
            return self.mark
        is_asked = endpoint.connections or self.mark is not Level.OK
        is_unknown = self.is_unseen or (is_asked and not endpoint.has_sent)
        return None if is_unknown else Level.OK

    @property
    def is_unseen(self) -> bool:
        """Whether rules steer clients straight to endpoints, so that no answer is visible.

        A probe shows only that connections are accepted, which the kernel does even for a hung
        program. Answers to this node's own programs show more, where their connections are tracked.
        """
        is_followed = bool(self.socket_connections and self.sent_bytes)
        return self.path is DataPath.KERNEL and not is_followed

    @property
    def past_workers(self) -> int | None:
        """The counted connections (flows) from the kernel to endpoints; None if not counted."""
        known = [n for n in (self.kernel_connections, self.socket_connections) if n is not None]
        return sum(known) if known else None

    @property
    def is_without_answer(self) -> bool:
        """Whether no endpoint has ever sent a byte or datagram, although answers are visible."""
        has_sent = self.sent_bytes or any(endpoint.sent_at for endpoint in self.endpoints)
        return not self.is_unseen and not has_sent

    @property
    def usable(self) -> int:
        """Number of endpoints that this node's clients may use, whether or not connections fail."""
        return sum(endpoint.is_usable for endpoint in self.endpoints)

    @property
    def serving(self) -> int:
        """Number of endpoints that serve this node's clients now: the figure that users see.

        Standby endpoints count once all others fail.
        """
        serving = [endpoint for endpoint in self.endpoints if endpoint.serves]
        return sum(not endpoint.is_standby for endpoint in serving) or len(serving)

    @property
    def standby(self) -> int:
        return sum(endpoint.is_standby for endpoint in self.endpoints)

    @property
    def has_default_path(self) -> bool:
        return (
            self.path is DataPath.USERSPACE and not self.path_reason and not self.kernel_connections
        )


class TotalsFacts(PortFigures, kw_only=True):
    """Traffic of all Service ports together, including former Service ports.

    The fields mean the same as in :class:`PortFacts`.
    """

    kernel_connections: Annotated[
        int | None,
        counter(
            "node_kernel_path_connections",
            "connections",
            "Connections (UDP: flows) that the kernel translated to endpoints; their bytes and "
            "failures aren't known",
        ),
    ] = None
    """Connections (flows) on the kernel path, of all Service ports; null if they aren't counted."""
