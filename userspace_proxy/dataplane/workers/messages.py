"""What the control process and its workers say to each other.

    control ──▶ worker   Start, Preserve, OpenGroup, ChangeGroup, CloseGroup, OpenListener,
                         MoveListener, PauseListener, ResumeListener, CloseListener, Ejected,
                         Returned, Report, Drain
    worker  ──▶ control  Running, Counted, ListenerClosed, Ejected, Returned, Logged, Drained

Rule 1: a change names what has changed, never all there is.
Rule 2: JSON, because a worker is the one that strangers' bytes meet: whatever it says can be
wrong, but reading it does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

Address = Sequence[Any]
"""IP and port: a ``SocketAddress`` when it is sent, a list of two when it arrives."""


class Start(NamedTuple):
    """The first message of all."""

    worker: int
    """Which worker this is, from 0; also where its turns of round robin begin."""
    tuning: dict[str, Any]
    log_levels: dict[str, int]
    """By logger."""
    keeps_net_raw: bool = False
    """It keeps CAP_NET_RAW, to dial in its clients' names."""


class Preserve(NamedTuple):
    """Where networks are, and so which clients' own addresses endpoints see."""

    is_on: bool
    """False: none; the networks are empty."""
    removed: Sequence[str]
    added: dict[str, int]
    """Each with its place; see ``policy.places``."""


class OpenGroup(NamedTuple):
    """A Service port is served from now on."""

    group: int
    label: str
    serving: dict[str, Any]
    """The fields of a ``Serving``."""


class ChangeGroup(NamedTuple):
    """Its endpoints, or its affinity, are others from now on."""

    group: int
    removed: Sequence[Address]
    added: Sequence[tuple[int, Address]]
    """Each with its place in the new list, lowest first."""
    others: dict[str, Any]
    """The fields of the ``Serving`` that are others, apart from its endpoints."""


class CloseGroup(NamedTuple):
    """It isn't served any more; open connections go on."""

    group: int


class OpenListener(NamedTuple):
    """One listening socket of a group, which comes with this message."""

    listener: int
    group: int
    protocol: str
    ip: str
    port: int
    is_serving: bool
    """False while it refuses: leave it alone until it is resumed."""


class MoveListener(NamedTuple):
    """Its clients are another group's from now on; TCP connections go on, UDP flows end."""

    listener: int
    group: int


class PauseListener(NamedTuple):
    """The socket refuses; leave it alone."""

    listener: int


class ResumeListener(NamedTuple):
    """The socket listens again: accept."""

    listener: int


class CloseListener(NamedTuple):
    """Close the socket, and say so; TCP connections go on, UDP flows end."""

    listener: int


class Ejected(NamedTuple):
    """Dials to an endpoint failed; to a worker: those of another one."""

    group: int
    endpoint: Address
    is_silent: bool


class Returned(NamedTuple):
    """An endpoint that was ejected has answered; to a worker: another one's dial."""

    group: int
    endpoint: Address


class Report(NamedTuple):
    """Answer with what was counted since the last time."""

    number: int


class Drain(NamedTuple):
    """Wait until connections have ended, reset what is left, say so, and exit."""

    seconds: float


class Running(NamedTuple):
    """The worker has begun."""

    pid: int
    user: int


class Counted(NamedTuple):
    """The answer to a :class:`Report`."""

    number: int
    groups: Sequence[GroupReport]
    connections: int
    flows: int
    descriptors: int
    descriptor_limit: int
    is_accepting: bool
    turns: Sequence[int] = ()
    """How long its turns took since it began, by :data:`TURN_BOUNDS_S`."""
    turns_s: float = 0.0
    """Their sum."""


class GroupReport(NamedTuple):
    """What was counted for one group since the last report: differences."""

    group: int
    counts: Sequence[int]
    """Of the group itself, as ``counters.figures_of`` orders them."""
    endpoints: Sequence[Sequence[Any]]
    """Each: address, active, connections, failures, received bytes, sent bytes, and how many
    connections bore their client's own address."""
    ejected: Sequence[tuple[Address, float]]
    """All that are ejected now, each with the seconds until its probe is due."""


class ListenerClosed(NamedTuple):
    """The worker has closed its copy of a listener's socket."""

    listener: int


class Logged(NamedTuple):
    """A line for the log, which has one writer."""

    logger: str
    level: int
    created: float
    message: str
    fields: dict[str, Any]
    traceback: str


class Drained(NamedTuple):
    """No connection is left; the worker exits."""

    reset: int
    """How many had to be reset."""


Message = (
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
    | Running
    | Counted
    | ListenerClosed
    | Logged
    | Drained
)

_TYPES: dict[str, Any] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """Return a message as bytes."""
    return json.dumps([type(message).__name__, *message], separators=(",", ":")).encode()


def decode(data: bytes | bytearray) -> Message:
    """Return the message; nested ones, and addresses, are lists.

    Raises:
        ValueError: It is none.
    """
    try:
        words = json.loads(data)
        message: Message = _TYPES[words[0]](*words[1:])
    except (KeyError, IndexError, TypeError, RecursionError) as exc:
        raise ValueError(f"not a message: {bytes(data[:80])!r}") from exc
    return message
