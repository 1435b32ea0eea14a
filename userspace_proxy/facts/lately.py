"""The clients of one Service port in the last minute, and those that got no answer in time.

    workers ──counts by endpoint──▶ LastMinute ──▶ Lately ──why, where──▶ LatelyFacts (JSON)

Rule 1: a field is one of the JSON, and of what is added up: within a version they are only added.
"""

from __future__ import annotations

from operator import attrgetter

import msgspec

from ..causes.cause import Cause
from .figures import counted_names


class Lately(msgspec.Struct, frozen=True, gc=False):
    """What was counted in the last minute, or a part of it."""

    connections: int = 0
    """Connections (flows), as counted since the start, without those of ``queued``."""
    refused: int = 0
    """Clients that no endpoint answered, without those of ``queued``."""
    unanswered: int = 0
    """Of the connections, those that the endpoint ended or reset before its first byte; of the
    flows, those without an answer for two seconds."""
    client_aborts: int = 0
    """Of the connections, those that clients left after they had waited for the first byte; 0 if
    all left at one moment."""
    endpoint_aborts: int = 0
    """Of the connections, those that the endpoint reset after it had sent bytes, or that clients
    left as packets were lost."""
    queued: int = 0
    """Clients that got no answer as they had to wait for an endpoint: they left, or their time was
    up, in their wait or after it."""
    late: int = 0
    """Of the flows, those whose first datagram came, but after two seconds; no others count it. Of
    the connections, those that were saved from an endpoint that was silent."""
    removed: int = 0
    """Connections that were reset because their endpoint had left (``ended_by_removal``)."""
    idle: int = 0
    """Connections that this proxy reset as they were idle (``ended_idle``)."""
    unanswered_requests: int = 0
    """Of the connections, those that ended while a further answer was due."""
    flaps: int = 0
    """No clients: how often the last endpoint left, so that clients are refused (no ``hold``)."""

    def counts(self) -> tuple[int, ...]:
        """Return all counts in their order."""
        return _counts_of(self)


LATELY_NAMES = counted_names(Lately)
"""The names of the counts, in their order."""
_counts_of = attrgetter(*LATELY_NAMES)


class LatelyFacts(Lately, frozen=True, gc=False, kw_only=True):
    """The clients of the last minute if some got no or a late answer, or there were flaps."""

    cause: Cause | None = None
    """Why most of them failed, by the last such failure of an endpoint that has answered since;
    null if it isn't known."""
    was_many: bool = False
    """The state before was ``partly answering``: half of the share that begins it keeps it up."""
    is_unusual: bool = False
    """Of ``unanswered_requests``: before, few connections to its endpoints ended so."""
    have_left: bool = False
    """The endpoints at which most of them failed aren't used any more: they have left the Service,
    or aren't ready."""
