"""Why a connection ended, and which side ended it."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """Why a connection or flow ended, as the connection log states it."""

    is_sound: bool
    """It is no failure, whichever side it is of."""

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
"""With which a connection or flow ends that no endpoint has answered, if its client was waiting."""


class EndedBy(enum.StrEnum):
    """Which side ended a connection: for a clean end, the one that sent its FIN first.

    An endpoint that has sent no byte has been first unless its kernel had acknowledged the client's
    FIN.
    """

    NONE = ""
    """It goes on."""
    CLIENT = "client"
    ENDPOINT = "endpoint"
    PROXY = "proxy"
