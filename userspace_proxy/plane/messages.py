"""Defines the messages between control processes and workers.

    control ──▶ worker   Beat, Start, Keep, Preserve, OpenGroup, ChangeGroup, CloseGroup, Prefer,
                         OpenListener, MoveListener, CloseListener, Ejected, Returned, Report,
                         Observe, AffinityEntries, Drain, End
    worker  ──▶ control  Running, Counted, Observed, Called, ListenerClosed, Ejected, Returned,
                         WaitBegan, Logged, Drained

    next control ──▶ worker   HandOver, Proved, Drain, End
    worker ──▶ next control   Prove, HandOverRefused, HandedOver, AffinityEntries,
                              AffinityEntriesSent

Rule 1: a change contains only the changed fields, not the whole state.
Rule 2: messages between processes are JSON, validated against these types: a worker handles
untrusted bytes, so its messages aren't trusted. A worker in the caller's loop receives the objects
themselves.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ..balance import AffinityEntry
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
"""An integer that every JSON parser can represent: workers aren't trusted."""

REPORT_S = 5.0
"""The seconds between two reports of a worker; a worker that dies loses its unreported counts."""
MAX_GROUP_BYTES = 2_621_440
"""The maximum size of a message that opens a group; a larger group isn't served.

10,000 IPv6 endpoints with weights, priorities and other endpoints for clients from outside take 2.1
MB. A change lists removed endpoints, and added endpoints with their indexes: it takes at most three
times as much, which fits into a channel's frame (``channel.MAX_FRAME_BYTES``).
"""

OBSERVED_MAX = 128
"""How many connections a worker records between two Observe messages, which are a quarter of a
second apart: more than a person can read, for less than 1 % of a core."""

_BOUNDS = len(TIMES_BOUNDS_S)


def _as_many_as(counters: type[Counters]) -> msgspec.Meta:
    """Return the constraint that a list has one number for each counter."""
    return msgspec.Meta(min_length=len(counters.names), max_length=len(counters.names))


class _Message(msgspec.Struct, tag=True, array_like=True, forbid_unknown_fields=True):
    """A message, encoded as a list that begins with the name of its type."""


class Start(_Message):
    """The first message to a worker process after Beat.

    Attached are the socket on which the worker waits for the next control process after this one
    has exited, and proofs of that socket's origin. Without a socket, the worker exits instead.
    """

    worker: int
    """The worker's index, from 0, at which its round robin begins."""
    tuning: Tuning
    log_levels: dict[str, int]
    """Log levels by the names of loggers."""
    keeps_net_raw: bool = False
    """Whether to keep CAP_NET_RAW, to dial from client addresses."""


class Beat(_Message):
    """Start heartbeats on the attached eventfd, which show the watchdog that the loop iterates."""


class Preserve(_Message):
    """Update the networks whose clients keep their address; see ``policy.locality``."""

    is_on: bool
    """Whether any client keeps its address; if not, no networks are left."""
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
    """Endpoints with their index in the new list, lowest first."""
    others: Serving | None = None
    """The ``Serving`` without endpoints; None if only the endpoints have changed."""


class AffinityEntries(_Message):
    """Affinity entries of a Service port, from a previous worker for the new workers."""

    label: str
    entries: list[AffinityEntry]
    """Some of the entries, most recently used first; later messages contain older entries."""


class Prefer(_Message):
    """Route the next connection of a Service port to an endpoint; for embedding."""

    group: int
    endpoint: SocketAddress


class CloseGroup(_Message):
    """Stop serving a Service port; open connections continue."""

    group: int


class OpenListener(_Message):
    """Accept a group's clients on the listening socket that comes with this message."""

    listener: int
    group: int
    protocol: Protocol
    at: SocketAddress


class MoveListener(_Message):
    """Move a listener to another group; TCP connections continue, UDP flows end."""

    listener: int
    group: int


class CloseListener(_Message):
    """Stop using a listener's socket, and confirm; TCP connections continue, UDP flows end."""

    listener: int


class Ejected(_Message):
    """A worker has begun or prolonged an ejection; forwarded to the other workers."""

    group: int
    endpoint: SocketAddress
    is_silent: bool


class Returned(_Message):
    """An ejection has ended, usually because the endpoint answered; forwarded like Ejected."""

    group: int
    endpoint: SocketAddress


class WaitBegan(_Message):
    """A client found no endpoint: the first since the group's queue in this worker was empty."""

    group: int


class Report(_Message):
    """Answer with the counts since the last report.

    One answer covers all reports that were requested before the worker began the answer, so a
    worker that lags catches up.
    """

    number: int


class Observe(_Message):
    """Answer with observations since the last request; apply new filters, or stop without any."""

    filters: Annotated[list[ConnectionFilter], msgspec.Meta(max_length=FILTERS_MAX)]
    """A connection is observed if a filter matches it."""


class Keep(_Message):
    """Keep the attached socket for the next control process."""

    name: str


class HandOver(_Message):
    """Send copies of all sockets, after Proved if a proof is required; continue to serve."""


class Proved(_Message):
    """The answer to Prove, sent after HandOver."""

    proof: bytes


class Drain(_Message):
    """Stop accepting, wait for connections to end, reset the rest, and answer with Drained."""

    seconds: float


class End(_Message):
    """Reset all connections and exit; without this order, workers outlive a control process."""


class Running(_Message):
    """The worker process has started."""

    pid: int
    user: int


class Status(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The state of one worker."""

    connections: Count = 0
    """Open TCP connections."""
    flows: Count = 0
    """Open UDP flows."""
    descriptors: Count = 0
    descriptor_limit: Count = 0
    is_accepting: bool = True
    iterations: list[Count] = []
    """The number of loop iterations since startup, by duration: see :data:`ITERATION_BOUNDS_S`."""
    iterations_s: float = 0.0
    """The total duration of these iterations, in seconds."""
    memory_bytes: Count = 0
    """The memory that counts towards the nearest limit, in bytes; 0 without a limit."""
    memory_limit_bytes: Count = 0
    is_short_of_memory: bool = False
    was_short_of_memory: bool = False
    """Whether memory is low, or was low in the last seconds."""


class EndpointReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The counts for one endpoint of a group since the last report."""

    endpoint: SocketAddress
    figures: Annotated[tuple[Count, ...], _as_many_as(EndpointCounters)]
    """Figures in the order of :class:`EndpointCounters`."""
    dials: StreakPart | None = None
    """Changes to the streak of failed dials; None without changes."""
    ends: StreakPart | None = None
    denials: StreakPart | None = None
    cuts: StreakPart | None = None
    exclusions: StreakPart | None = None

    def streaks(self) -> dict[str, StreakPart]:
        """Return the changed streaks of failures, by their names in ``STREAKS``."""
        parts = {name: getattr(self, name) for name in STREAKS}
        return {name: part for name, part in parts.items() if part is not None}


class DurationReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Durations since the last report; the last count covers durations beyond all bounds."""

    counts: Annotated[list[Count], msgspec.Meta(min_length=_BOUNDS + 1, max_length=_BOUNDS + 1)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class WaitingReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The clients that wait for an endpoint now; the fields are described in ``Waiting``."""

    clients: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    longest_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class GroupReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The counts for one group since the last report."""

    group: int
    figures: Annotated[tuple[Count, ...], _as_many_as(GroupCounters)]
    """The group's own figures, in the order of :class:`GroupCounters`."""
    endpoints: list[EndpointReport] = []
    ejected: list[tuple[SocketAddress, Annotated[float, msgspec.Meta(ge=0, le=1e9)]]] = []
    """All endpoints that are ejected now, each with the seconds until its next probe."""
    connect_times: DurationReport | None = None
    """New connect times; None without new times."""
    first_byte_times: DurationReport | None = None
    waiting: WaitingReport | None = None
    """The clients that wait; None if no client waits."""
    client_mistakes: dict[ClientMistake, StreakPart] = {}
    """The changed streaks of rejected clients, by the mistake."""


class Counted(_Message):
    """The answer to a :class:`Report`, or one part of it."""

    number: int
    """The report's number, which also answers earlier requests; 0 if more parts follow."""
    groups: list[GroupReport]
    status: Status


class Observed(_Message):
    """The answer to :class:`Observe`."""

    records: Annotated[list[ConnectionFacts], msgspec.Meta(max_length=OBSERVED_MAX)]
    left_out: Annotated[list[LeftOut], msgspec.Meta(max_length=FILTERS_MAX)]
    """The number of connections that didn't fit into the ring, for each filter."""


class Called(_Message):
    """The calls that clients made since the last report."""

    calls: Annotated[list[Calls], msgspec.Meta(max_length=CALLS_MAX)]
    left_out: Count
    """How many calls didn't fit into the worker's table."""


class ListenerClosed(_Message):
    """The worker has stopped using a listener's socket."""

    listener: int


class Prove(_Message):
    """A request to prove CAP_NET_ADMIN with the attached socket (``kernel.net_admin_proof``)."""


class HandOverRefused(_Message):
    """The answer to a rejected HandOver or proof, before the connection is closed."""

    cause: str


class NodeHandedOver(_Message):
    """A control process's answer to HandOver: it has released its lock."""


class HandedOver(_Message):
    """Copies of some of a worker's sockets; kept sockets come last, in the order of ``kept``."""

    worker: int
    """The index of the worker that owns these sockets: the sender, or a worker for which the sender
    substitutes."""
    kept: list[str]
    is_last: bool
    """Whether this is the sender's last HandedOver message."""


class AffinityEntriesSent(_Message):
    """The last message of a hand-over: no more affinity entries follow."""


class Logged(_Message):
    """A log record for the control process to write."""

    logger: str
    level: int
    created: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    message: str
    fields: dict[str, Any]
    traceback: str


class Drained(_Message):
    """The answer to Drain: no connection is left, and a worker process exits."""

    reset: Count
    """The number of connections that had to be reset."""


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
    | AffinityEntries
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
    | AffinityEntries
    | Prove
    | HandOverRefused
    | HandedOver
    | AffinityEntriesSent
    | Logged
    | Drained
)
