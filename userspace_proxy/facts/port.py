"""The facts about one Service port: what the JSON contains, and page, text and metrics show.

    plan ──facts_of_plan──▶ PortFacts ◀── frontends, endpoints, figures, path (agent), state (judge)

Rule 1: a field here is one of the JSON; within a version fields are only added. All have a default,
because ``explain`` also reads the JSON of older proxies.
Rule 2: facts are made anew when something changes, and never changed once they are shown.
Rule 3: fields by position precede those by name, and those of a base its own: the JSON's order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from ..causes.cause import Cause, CauseCode
from ..model import DataPath, port_of
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
    """Return the worst level; ok without any."""
    found = set(levels)
    return next((level for level in WORST_FIRST if level in found), Level.OK)


class FrontendFacts(msgspec.Struct, frozen=True, gc=False):
    """One address that clients dial."""

    address: str = ""
    """With its port: ``10.96.7.1:80``, ``[fd00::1]:80``."""
    kind: str = ""
    """``ClusterIP``, ``NodePort``, ``LoadBalancer``, ``ExternalIP``."""
    target: str = ""
    """Where it leads, in words: ``proxy port 20001``, ``refused``, ``dropped``, …"""
    is_reached: bool = True
    """False where clients can't reach this proxy."""
    only_at: str = ""
    """The address that clients must dial instead, without steering; empty: this one."""


class EndpointVerdictFacts(TrafficByCause):
    """The facts of an endpoint that precede its figures."""

    address: str = ""
    """With its port."""
    state: str = ""
    """``ready``, ``not ready``, ``terminating``, or why it isn't used, in words."""
    is_usable: bool = False
    """Whether it may serve from this node now."""
    code: CauseCode | None = None
    """Why it isn't used, as a code; null where it is ready or terminating."""
    weight: int = 0
    """Its share of new connections, in proportion to the others' weights; 0: it takes none."""
    priority: int = 0
    """0 is first; endpoints of a higher number serve while none of a lower one can."""
    is_standby: bool = False
    """It is usable, and so is an endpoint of a priority before its own."""
    starting: float | None = None
    """What it has of its share while it starts slowly, below 1; null: all of it."""
    preference: str = ""
    """Priority, weight and slow start in words; empty if it has none of them."""
    node: str = ""
    """Where it runs; empty if unknown."""
    ejected_for_s: float | None = None
    """Seconds until it is tried again, because dials to it failed; null if it isn't left out."""
    cause: Cause | None = None
    """Why dials fail now; null once it has answered."""


class EndpointFacts(EndpointVerdictFacts, kw_only=True, gc=False):
    """One endpoint of a Service port."""

    host: str = ""
    """The name that it was found by, of a host outside the cluster; empty: it is an address."""
    pod: str = ""
    """The pod's name, in the Service's namespace; empty if it is none, or unknown."""
    answered_at: float = 0.0
    """Unix time at which it last answered a dial; 0 if it never did."""
    is_past: bool = False
    """Its cause is of a while ago, and nothing has tried it since."""
    sent_at: float = 0.0
    """Unix time at which it last sent a client the first byte, or a first datagram, even an empty
    one; 0 if it never did."""

    @property
    def has_sent(self) -> bool:
        """Whether it has ever answered a client, beyond the handshake."""
        return bool(self.sent_bytes or self.sent_at)

    @property
    def is_left_out(self) -> bool:
        """Whether only traffic policy or hints keep this node's clients from it."""
        return self.code in (CauseCode.NOT_LOCAL, CauseCode.NOT_FOR_THIS_NODE)

    @property
    def is_refused(self) -> bool:
        """Whether the proxy never dials it: its address is reserved, or this node's."""
        return self.code is CauseCode.ENDPOINT_NOT_ALLOWED

    @property
    def serves(self) -> bool:
        """Whether clients get there: it is usable, and connections to it don't fail.

        A fault on purpose is no failure. One that denies some clients serves others, and one that
        resets connections has answered them.
        """
        is_fine = self.cause is None or self.cause.code.traits.serves
        return self.is_usable and self.ejected_for_s is None and is_fine

    @property
    def level(self) -> Level | None:
        """How it serves, for all observers; None where this node leaves it out by design."""
        if self.is_usable:
            is_well = self.state == EndpointState.READY and self.cause is None
            # What was seen of it is no failure, or a former one.
            is_seen = self.cause is not None and self.cause.code.traits.is_unanswered
            fails = not (self.serves or self.is_past or is_seen)
            return Level.TROUBLE if fails else Level.OK if is_well else Level.ATTENTION
        return None if self.is_left_out or self.state == EndpointState.READY else Level.ATTENTION

    def without_cause(self) -> EndpointFacts:
        return msgspec.structs.replace(self, cause=None, is_past=False)


class ClauseFacts(msgspec.Struct, frozen=True, gc=False):
    """A part of the sentence about a state: parts are joined by semicolons."""

    text: str = ""
    causes: Sequence[int] = ()
    """The causes that it states, by their places in ``causes`` of the state."""
    is_dated: bool = False
    """It is about a moment, whose age is shown with it."""


class StateFacts(msgspec.Struct, frozen=True, gc=False):
    """How the clients of a Service port are served."""

    level: Level = Level.OK
    """``trouble``: this proxy, or something below it, doesn't work as it should; ``attention``: the
    cluster asks for something that has no effect."""
    word: PortState = PortState("")
    """The state."""
    sentence: str = ""
    """The same with its reason."""
    causes: Sequence[Cause] = ()
    """All that is known to go wrong, or to have no effect; the first one decides the state."""
    hint: str = ""
    """What to do about the first cause, or without one to find out what isn't known."""
    code: CauseCode | None = None
    """The first cause's; null without a cause."""
    clauses: Sequence[ClauseFacts] = ()
    """The parts of the sentence."""

    @property
    def stated(self) -> Sequence[Cause]:
        """The causes that the sentence states."""
        places = [place for clause in self.clauses for place in clause.causes]
        return [self.causes[place] for place in places if place < len(self.causes)]

    @property
    def is_problem(self) -> bool:
        """Whether some clients that should be served aren't."""
        return self.level is not Level.OK and not self.word.serves


class PortPlanFacts(PortFigures):
    """The facts of a Service port that precede its figures."""

    namespace: str = ""
    """The Service's."""
    service: str = ""
    """Its name."""
    port: str = ""
    """The port's name; empty if it has none."""
    family: str = ""
    """``IPv4``, ``IPv6``."""
    protocol: str = ""
    """``TCP``, ``UDP``."""
    side: str = ""
    """Empty for all frontends, or those of the cluster's inside; ``external``, ``load balancer``
    where these have a policy of their own."""
    frontends: Sequence[FrontendFacts] = ()
    """ClusterIPs first, node ports last."""
    endpoints: Sequence[EndpointFacts] = ()
    """By address."""
    cause: Cause | None = None
    """Why clients are refused, wait or are dropped; null when an endpoint is usable."""
    is_dropping: bool = False
    """Some clients get no answer, because only other nodes have endpoints for them."""
    policy: str = ""
    """Which endpoints serve, in words; empty where all serve all clients."""
    admits: Sequence[str] | None = None
    """Networks whose clients are admitted; null: all are."""
    balance: str = ""
    """How endpoints are chosen; empty for round robin."""
    slow_start_s: float = 0.0
    """Seconds in which new endpoints reach their share of connections; 0: they have it at once."""
    max_connections: int | None = None
    """The limit of each endpoint for this node; null: none."""
    hold_s: float | None = None
    """Seconds that clients wait for an endpoint; null: they are refused without one."""
    path: DataPath = DataPath.USERSPACE
    """``userspace``: connections pass through the proxy; ``kernel``: the kernel translates them
    straight to an endpoint, and only ``kernel_connections`` counts them, but for those of
    ``socket_connections``; ``auto``, in a plan that isn't served: one of them, as probes show."""
    path_since: float = 0.0
    """Unix time at which new connections began to take this path; 0 if unknown."""
    path_why: str = ""
    """Why it is this one, in words; empty for the default."""
    kernel_connections: int | None = None
    """Connections (flows) since the start that rules have led straight to endpoints; null where
    they never could, or aren't counted. At most some seconds old."""
    is_probed: bool = False
    """Probes of its endpoints choose the path; see ``probes``."""
    affinity_timeout_s: int | None = None
    """Of ``sessionAffinity: ClientIP``; null without."""
    notes: Sequence[Cause] = ()
    """What this Service port asks for and doesn't get; at the first one of a Service, also what the
    Service and its EndpointSlices do."""
    problem: str = ""
    """Why it isn't served although it should be, or empty."""
    hint: str = ""
    """What to do about the problem."""


class BesideJson:
    """Attributes of a Struct that the JSON doesn't contain, but another process gets (pickle)."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), vars(self))


class Planned(BesideJson):
    """What a Service port's facts are made from."""

    __slots__ = ()
    plan: PortPlan
    """Absent where facts were read from JSON."""
    taken_by = ""
    """The chain of another program that is the problem; empty if none is known to be."""
    is_unsteered = False
    """The problem is that rules don't lead clients here: it doesn't name the address."""
    planned = ""
    """Of a plan: the sentence about its state as of clients who aren't there yet, as a clause."""
    judged: tuple[object, PortFacts | None] | None = None
    """What its state was judged by beside these facts, and the copy with that; None: it wasn't."""


class PortFacts(Planned, PortPlanFacts, kw_only=True, dict=True):
    """One family and side of one Service port."""

    proxy_protocol: str | None = None
    """The version of the PROXY header that endpoints get, ``v1`` or ``v2``; null: none."""
    shared_number: str = ""
    """``53/UDP`` where its Service has this number for another protocol, too; else empty."""
    turned_away: Sequence[Cause] = ()
    """Clients that the kernel turned away, by cause; counts are of their packets."""
    client_mistakes: Sequence[Cause] = ()
    """Clients that were turned away because of what they sent, by cause: in the last minute, or
    since the start if none has been served."""
    is_out_of_ports: bool = False
    """In the last minute it had no source port left towards an endpoint."""
    is_out_of_client_ports: bool = False
    """In the last minute a client's own address had none left towards an endpoint."""
    last_minute: LastMinuteFacts = LastMinuteFacts()
    """Clients that got no answer in the last minute."""
    sent_at: float = 0.0
    """Unix time at which an endpoint last sent a client something, some seconds late at most; 0 if
    none ever did through the proxy."""
    is_quiet: bool = False
    """Clients were answered before, and none has been in the last minute; false on the kernel
    path, where that isn't known."""
    socket_connections: int | None = None
    """Of the connections since the start, those that programs of this node opened, and that were
    translated at connect(); null where none could be (``--socket-lb``)."""
    unanswered: Cause | None = None
    """Why clients that the kernel leads to endpoints get no answer; null where they do, where none
    came in the last minute, and on the userspace path."""
    state: StateFacts = StateFacts()
    """How its clients are served."""

    @property
    def name(self) -> str:
        """``shop/web:http``."""
        name = f"{self.namespace}/{self.service}"
        return f"{name}:{self.port}" if self.port else name

    @property
    def number(self) -> str:
        """``80``, that of its first frontend; empty without one."""
        return port_of(self.frontends[0].address) if self.frontends else ""

    @property
    def names(self) -> tuple[str, ...]:
        """What people call it: ``shop/web``, ``shop/web:http``, ``shop/web:80``."""
        service = f"{self.namespace}/{self.service}"
        return (service, self.name, *([f"{service}:{self.number}"] if self.number else ()))

    @property
    def title(self) -> str:
        """The name, with what tells it from a port of its number: ``shop/dns:udp 53/UDP``."""
        return f"{self.name} {self.shared_number}".rstrip()

    @property
    def is_holding(self) -> bool:
        """Whether clients wait, because no node has a usable endpoint."""
        return self.hold_s is not None and self.cause is not None and not self.is_dropping

    @property
    def mark(self) -> Level | None:
        """Its level, for all observers; None for a neutral mark."""
        return None if self.why_neutral else self.state.level

    @property
    def why_neutral(self) -> str:
        """What its neutral mark states; empty where it has another one."""
        return self.state.word.neutral if self.state.level is Level.OK else ""

    @property
    def is_unseen(self) -> bool:
        """Whether nothing shows if clients are answered: rules lead them straight to endpoints.

        A probe shows only that connections are accepted, which a hanging program's kernel does.
        What this node's programs got shows it, where their connections are followed.
        """
        is_followed = bool(self.socket_connections and self.sent_bytes)
        return self.path is DataPath.KERNEL and not is_followed

    @property
    def is_without_answer(self) -> bool:
        """Whether no endpoint has ever sent a byte through the proxy, or a datagram."""
        has_sent = self.sent_bytes or any(endpoint.sent_at for endpoint in self.endpoints)
        return not self.is_unseen and not has_sent

    @property
    def usable(self) -> int:
        """How many endpoints may serve from this node now, whether connections fail or not."""
        return sum(endpoint.is_usable for endpoint in self.endpoints)

    @property
    def serving(self) -> int:
        """How many endpoints serve from this node now: the figure that people see.

        Those on standby count once all others fail.
        """
        serving = [endpoint for endpoint in self.endpoints if endpoint.serves]
        return sum(not endpoint.is_standby for endpoint in serving) or len(serving)

    @property
    def standby(self) -> int:
        return sum(endpoint.is_standby for endpoint in self.endpoints)

    @property
    def has_default_path(self) -> bool:
        return self.path is DataPath.USERSPACE and not self.path_why and not self.kernel_connections


class TotalsFacts(PortFigures, kw_only=True):
    """What was counted for all Service ports, former ones included.

    The fields are those of :class:`PortFacts`.
    """

    kernel_connections: Annotated[
        int | None,
        counter(
            "node_kernel_path_connections",
            "connections",
            "Connections (UDP: flows) that the kernel led straight to endpoints; their bytes and "
            "failures aren't known",
        ),
    ] = None
    """Of the paths of all Service ports; null where they aren't counted."""
