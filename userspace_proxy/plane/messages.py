"""The messages between the control half and its workers.

    control ──▶ worker   Start, Preserve, OpenGroup, ChangeGroup, CloseGroup, OpenListener,
                         MoveListener, PauseListener, ResumeListener, CloseListener, Ejected,
                         Returned, Report, Drain
    worker  ──▶ control  Running, Counted, ListenerClosed, Ejected, Returned, Logged, Drained

Rule 1: a change names what has changed, never all there is.
Rule 2: between processes they are JSON, read against these types: a worker handles untrusted
bytes, so whatever it sends can be wrong. A worker in the caller's loop gets the values themselves.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ..dataplane import Serving, Tuning
from ..model import Protocol, SocketAddress
from ..policy.locality import Networks

Count = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""A number that stays one that every reader of JSON can print, whatever a worker sends."""


class _Message(msgspec.Struct, tag=True, array_like=True, forbid_unknown_fields=True):
    """A list that begins with the name of its type."""


class Start(_Message):
    """The first message to a worker process."""

    worker: int
    """Which worker this is, from 0; also where its turns of round robin begin."""
    tuning: Tuning
    log_levels: dict[str, int]
    """By logger."""
    keeps_net_raw: bool = False
    """It keeps CAP_NET_RAW, to dial at its clients' addresses."""


class Preserve(_Message):
    """Where networks are, and so which clients keep their address."""

    is_on: bool
    """False: none does; the networks are empty."""
    removed: list[str]
    added: Networks
    """Each with its place; see ``policy.locality``."""


class OpenGroup(_Message):
    """A Service port is served from now on."""

    group: int
    label: str
    serving: Serving


class ChangeGroup(_Message):
    """A Service port has other endpoints, or is served in another way."""

    group: int
    removed: list[SocketAddress]
    added: list[tuple[int, SocketAddress]]
    """Each with its place in the new list, lowest first."""
    others: Serving | None = None
    """All but the endpoints; None where nothing else has changed."""


class CloseGroup(_Message):
    """A Service port isn't served any more; open connections go on."""

    group: int


class OpenListener(_Message):
    """One listening socket of a group, which comes with this message."""

    listener: int
    group: int
    protocol: Protocol
    at: SocketAddress
    is_serving: bool
    """False while it refuses: accept nothing until it is resumed."""


class MoveListener(_Message):
    """Its clients are another group's from now on; TCP connections go on, UDP flows end."""

    listener: int
    group: int


class PauseListener(_Message):
    """The socket refuses: accept nothing."""

    listener: int


class ResumeListener(_Message):
    """The socket listens again: accept."""

    listener: int


class CloseListener(_Message):
    """Use the socket no more, and confirm it; TCP connections go on, UDP flows end."""

    listener: int


class Ejected(_Message):
    """Dials to an endpoint failed; to a worker: those of another one."""

    group: int
    endpoint: SocketAddress
    is_silent: bool


class Returned(_Message):
    """An endpoint that was ejected has answered; to a worker: another one's dial."""

    group: int
    endpoint: SocketAddress


class Report(_Message):
    """Answer with what was counted since the last time."""

    number: int


class Drain(_Message):
    """Wait until connections have ended, reset what is left, and confirm it."""

    seconds: float


class Running(_Message):
    """The worker process has begun."""

    pid: int
    user: int


class Status(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a worker is doing."""

    connections: Count = 0
    """Open ones."""
    flows: Count = 0
    """Live UDP flows."""
    descriptors: Count = 0
    descriptor_limit: Count = 0
    is_accepting: bool = True
    iterations: list[Count] = []
    """How long its loop iterations took since it started, by :data:`ITERATION_BOUNDS_S`."""
    iterations_s: float = 0.0
    """Their sum."""


class EndpointReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was counted for one endpoint of a group since the last report."""

    endpoint: SocketAddress
    figures: tuple[Count, Count, Count, Count, Count, Count]
    """In the order of :class:`EndpointCounters`."""


class GroupReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was counted for one group since the last report: differences."""

    group: int
    figures: tuple[Count, Count, Count, Count, Count, Count, Count]
    """Of the group itself, in the order of :class:`GroupCounters`."""
    endpoints: list[EndpointReport] = []
    ejected: list[tuple[SocketAddress, Annotated[float, msgspec.Meta(ge=0, le=1e9)]]] = []
    """All that are ejected now, each with the seconds until its probe is due."""


class Counted(_Message):
    """The answer to a :class:`Report`."""

    number: int
    groups: list[GroupReport]
    status: Status


class ListenerClosed(_Message):
    """The worker doesn't use a listener's socket any more."""

    listener: int


class Logged(_Message):
    """A line for the log, which has one writer."""

    logger: str
    level: int
    created: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    message: str
    fields: dict[str, Any]
    traceback: str


class Drained(_Message):
    """No connection is left; a worker process exits."""

    reset: Count
    """How many had to be reset."""


ToWorker = (
    Start
    | Preserve
    | OpenGroup
    | ChangeGroup
    | CloseGroup
    | OpenListener
    | MoveListener
    | PauseListener
    | ResumeListener
    | CloseListener
    | Ejected
    | Returned
    | Report
    | Drain
)
FromWorker = Running | Counted | ListenerClosed | Ejected | Returned | Logged | Drained
