"""The messages between the control half and its workers.

    control ──▶ worker   Start, Beat, Preserve, OpenGroup, ChangeGroup, CloseGroup, OpenListener,
                         MoveListener, CloseListener, Ejected, Returned, Report, Observe, Drain
    worker  ──▶ control  Running, Counted, Observed, Called, ListenerClosed, Ejected, Returned,
                         WaitBegan, Logged, Drained

    worker  ──▶ next control process   Prove, HandedOver, Pins, PinsSent

Rule 1: a change contains what has changed, not the whole state.
Rule 2: between processes messages are JSON, validated against these types: a worker handles
untrusted bytes, so whatever it sends may be wrong. A worker in the caller's loop gets the values.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ..balance import Pin
from ..dataplane import Tuning
from ..facts import (
    STREAKS,
    TIMES_BOUNDS_S,
    ClientMistake,
    EndpointCounters,
    GroupCounters,
    StreakPart,
)
from ..facts.connection import FILTERS_MAX, ConnectionFacts, ConnectionFilter, LeftOut
from ..facts.counters import Counters
from ..facts.edges import CALLS_MAX, Calls
from ..model import PortKey, Protocol, SocketAddress
from ..model.serving import Serving
from ..policy.locality import Networks

Count = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""Bounded to what every reader of JSON can represent, whatever a worker sends."""

REPORT_S = 5.0
"""Workers report this often: counters that are lost with a dying one are no older."""
MAX_GROUP_BYTES = 2_621_440
"""How large the message that opens a group may be; a group that needs more isn't served.

10,000 endpoints of IPv6 with weights, priorities and another choice for clients from outside take
2.1 MB. A change removes what is there and adds what is new, each with an index: it takes three
times as much at most, and a channel takes that (``channel.MAX_FRAME_BYTES``).
"""

OBSERVED_MAX = 128
"""How many connections a worker keeps between two questions, which is a quarter of a second: more
than can be read, and less than 1 % of a core."""

_BOUNDS = len(TIMES_BOUNDS_S)


def _as_many_as(counters: type[Counters]) -> msgspec.Meta:
    """Return what bounds a list to one number for each name."""
    return msgspec.Meta(min_length=len(counters.names), max_length=len(counters.names))


class _Message(msgspec.Struct, tag=True, array_like=True, forbid_unknown_fields=True):
    """A list whose first item is the name of the type."""


class Start(_Message):
    """The first message to a worker process, except Beat.

    With it comes the socket on which the worker waits for the next control process when this one
    has ended, and what vouches for that socket; without one, the worker ends then.
    """

    worker: int
    """Its index, from 0; also the position where its round robin begins."""
    tuning: Tuning
    log_levels: dict[str, int]
    """By logger."""
    keeps_net_raw: bool = False
    """Keep CAP_NET_RAW, to dial at client addresses."""


class Beat(_Message):
    """Beat from now on, so that the watchdog sees that the loop iterates; comes with an eventfd."""


class Preserve(_Message):
    """Which clients keep their address; see ``policy.locality``."""

    is_on: bool
    """False: none; the networks are empty."""
    removed: list[str]
    added: Networks


class OpenGroup(_Message):
    """Serve a Service port."""

    group: int
    key: PortKey
    serving: Serving


class ChangeGroup(_Message):
    """Change a Service port's endpoints, or how it is served."""

    group: int
    removed: list[SocketAddress]
    added: list[tuple[int, SocketAddress]]
    """Each with its index in the new list, lowest first."""
    others: Serving | None = None
    """Everything but the endpoints; None if nothing else has changed."""


class Pins(_Message):
    """ClientIP affinity of a Service port: from a worker that hands over, and to its successor."""

    label: str
    pins: list[Pin]
    """Some of them, the last used first; what a later message adds was used before."""


class Prefer(_Message):
    """Have the next connection of a Service port use an endpoint; for embedding."""

    group: int
    endpoint: SocketAddress


class CloseGroup(_Message):
    """Forget a Service port; open connections continue."""

    group: int


class OpenListener(_Message):
    """Accept the clients of a socket of a group; it comes with this message, listening."""

    listener: int
    group: int
    protocol: Protocol
    at: SocketAddress


class MoveListener(_Message):
    """Serve another group's clients; TCP connections continue, UDP flows end."""

    listener: int
    group: int


class CloseListener(_Message):
    """Stop using the socket, and confirm it; TCP connections continue, UDP flows end."""

    listener: int


class Ejected(_Message):
    """Dials to an endpoint failed, in this worker or, to a worker, in another one."""

    group: int
    endpoint: SocketAddress
    is_silent: bool


class Returned(_Message):
    """An ejected endpoint has answered, this worker or, to a worker, another one."""

    group: int
    endpoint: SocketAddress


class WaitBegan(_Message):
    """A client has begun to wait for an endpoint, and no other waited in this worker."""

    group: int


class Report(_Message):
    """Answer with what was counted since the last report.

    One answer is for all that were asked for before it was begun: a worker that was behind makes no
    report for each.
    """

    number: int


class Observe(_Message):
    """Answer with what was observed since the last such message, and observe what is taken now.

    Without filters nothing is observed any more.
    """

    filters: Annotated[list[ConnectionFilter], msgspec.Meta(max_length=FILTERS_MAX)]
    """A connection is observed if one of them takes it."""


class Keep(_Message):
    """Keep a socket that comes with this message, for the next control process."""

    name: str


class HandOver(_Message):
    """Send copies of all sockets, and continue to serve; if that asks for a proof, after Proved."""


class Proved(_Message):
    """The answer to Prove, which asks again for what HandOver does."""

    proof: bytes


class Drain(_Message):
    """Accept nothing more, wait until connections have ended, reset the rest, and confirm it."""

    seconds: float


class End(_Message):
    """Reset all connections and exit; a control process that ends without it has a successor."""


class Running(_Message):
    """The worker process has started."""

    pid: int
    user: int


class Status(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one worker."""

    connections: Count = 0
    """Open TCP connections."""
    flows: Count = 0
    """Open UDP flows."""
    descriptors: Count = 0
    descriptor_limit: Count = 0
    is_accepting: bool = True
    iterations: list[Count] = []
    """Loop iterations since the start by duration: see :data:`ITERATION_BOUNDS_S`."""
    iterations_s: float = 0.0
    """Sum of their durations."""
    memory_bytes: Count = 0
    """Used of the nearest limit; 0 without one."""
    memory_limit_bytes: Count = 0
    is_short_of_memory: bool = False
    was_short_of_memory: bool = False
    """In the last seconds, or now."""


class EndpointReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was counted for one endpoint of a group since the last report."""

    endpoint: SocketAddress
    figures: Annotated[tuple[Count, ...], _as_many_as(EndpointCounters)]
    """In the order of :class:`EndpointCounters`."""
    dials: StreakPart | None = None
    """None if nothing is new."""
    ends: StreakPart | None = None
    denials: StreakPart | None = None
    cuts: StreakPart | None = None
    exclusions: StreakPart | None = None

    def streaks(self) -> dict[str, StreakPart]:
        """Return what is new of failures in a row, by their names among ``STREAKS``."""
        parts = {name: getattr(self, name) for name in STREAKS}
        return {name: part for name, part in parts.items() if part is not None}


class DurationReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is new of :class:`Durations`; the last count is of those beyond all bounds."""

    counts: Annotated[list[Count], msgspec.Meta(min_length=_BOUNDS + 1, max_length=_BOUNDS + 1)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class WaitingReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The clients that wait for an endpoint now; its fields are those of :class:`Waiting`."""

    clients: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    longest_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class GroupReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was counted for one group since the last report."""

    group: int
    figures: Annotated[tuple[Count, ...], _as_many_as(GroupCounters)]
    """For the group itself, in the order of :class:`GroupCounters`."""
    endpoints: list[EndpointReport] = []
    ejected: list[tuple[SocketAddress, Annotated[float, msgspec.Meta(ge=0, le=1e9)]]] = []
    """All that are ejected now, each with the seconds until its probe is due."""
    connect_times: DurationReport | None = None
    """None if nothing is new."""
    first_byte_times: DurationReport | None = None
    waiting: WaitingReport | None = None
    """None if no client waits."""
    client_mistakes: dict[ClientMistake, StreakPart] = {}
    """What is new of clients that were turned away because of what they sent."""


class Counted(_Message):
    """The answer to a :class:`Report`, or a part of it."""

    number: int
    """The report's, and those before it are answered, too; 0: another part follows."""
    groups: list[GroupReport]
    status: Status


class Observed(_Message):
    """The answer to :class:`Observe`."""

    records: Annotated[list[ConnectionFacts], msgspec.Meta(max_length=OBSERVED_MAX)]
    left_out: Annotated[list[LeftOut], msgspec.Meta(max_length=FILTERS_MAX)]
    """By filter, the connections that the ring had no room for."""


class Called(_Message):
    """The calls of clients since the last report."""

    calls: Annotated[list[Calls], msgspec.Meta(max_length=CALLS_MAX)]
    left_out: Count
    """Calls that the worker's table had no place for."""


class ListenerClosed(_Message):
    """The worker doesn't use a listener's socket any more."""

    listener: int


class Prove(_Message):
    """Prove CAP_NET_ADMIN first, by the socket that comes with it (``kernel.net_admin_proof``)."""


class HandedOver(_Message):
    """Copies of some of a worker's sockets: those that it keeps come last, in this order."""

    worker: int
    """The index of the worker whose they are: its own, or, before, one that it stands in for."""
    kept: list[str]
    is_last: bool
    """No such message follows."""


class PinsSent(_Message):
    """No more Pins follow; neither does anything else."""


class Logged(_Message):
    """A line for the control process to log."""

    logger: str
    level: int
    created: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    message: str
    fields: dict[str, Any]
    traceback: str


class Drained(_Message):
    """No connection is left; a worker process exits."""

    reset: Count
    """How many connections had to be reset."""


ToWorker = (
    Start
    | Beat
    | Preserve
    | OpenGroup
    | ChangeGroup
    | Prefer
    | CloseGroup
    | OpenListener
    | MoveListener
    | CloseListener
    | Ejected
    | Returned
    | Report
    | Observe
    | Pins
    | Keep
    | HandOver
    | Proved
    | Drain
    | End
)
FromWorker = (
    Running
    | Counted
    | Observed
    | Called
    | ListenerClosed
    | Ejected
    | Returned
    | WaitBegan
    | Pins
    | Prove
    | HandedOver
    | PinsSent
    | Logged
    | Drained
)
