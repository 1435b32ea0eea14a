"""Defines why connections end, and which side ends them."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """Why a connection or flow ended, as the connection log states it."""

    is_sound: bool
    """Whether the end isn't a failure, whichever side ended the connection."""

    COMPLETE = "complete", True
    IDLE = "idle", True
    LEFT = "left", True
    ENDPOINT_REMOVED = "endpoint removed", True
    LISTENER_CLOSED = "listener closed", True
    HANDED_OVER = "listener handed over", True
    SHUTDOWN = "shutdown", True
    RESET = "reset"
    TIMED_OUT = "timed out"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    EVICTED = "evicted"
    NO_HEADER = "no PROXY header"
    TOO_MANY_WAITING = "too many waiting"
    WAITED_TOO_LONG = "waited too long"

    def __new__(cls, value: str, is_sound: bool = False) -> EndReason:
        end = str.__new__(cls, value)
        end._value_, end.is_sound = value, is_sound
        return end


UNSERVED = frozenset(
    (
        EndReason.UNANSWERED,
        EndReason.LEFT,
        EndReason.TOO_MANY_WAITING,
        EndReason.WAITED_TOO_LONG,
    )
)
"""Reasons for the end of a connection or flow that no endpoint answered while its client waited."""


class EndedBy(enum.StrEnum):
    """The side that ended a connection: for a clean end, the side that sent its FIN first.

    An endpoint that sent no byte counts as first unless its kernel acknowledged the client's FIN.
    """

    NONE = ""
    """The connection is still open."""
    CLIENT = "client"
    ENDPOINT = "endpoint"
    PROXY = "proxy"
