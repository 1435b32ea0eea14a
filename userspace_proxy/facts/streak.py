"""Counts failures since the last success, with their kinds and times.

    success ──▶ failure ──▶ failure ──▶ success: the streak is over
                └ first_at           └ last_at, failure   └ succeeded_at

Rule 1: recording a success is one assignment to ``succeeded_at``, because it is on the traffic
path.
Rule 2: several processes each see parts of a streak. The parts are summed, and a success in any
process ends the streak: all processes of a node share the monotonic clock.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from ..model import DialFailure, Failure
from .last_minute import LAST_MINUTE_S

CLIENTS_MAX = 64
"""The maximum number of clients remembered per endpoint: an access rule rejects only a few."""

Moment: TypeAlias = Annotated[float, msgspec.Meta(ge=-1, le=1e11)]
"""Monotonic seconds; negative for never."""
_NEVER = -1.0
"""Earlier than any monotonic time, but valid in JSON."""


class LateByte(NamedTuple):
    """First bytes that arrived after their clients had left."""

    waited_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    """How long the last such byte took, in seconds."""
    is_at_end: bool
    """Whether each such byte in the streak arrived right after the client's FIN."""


class StreakPart(NamedTuple):
    """An addition to a streak, within a process or in a worker's report.

    The bounds of fields are for reports, which aren't trusted.
    """

    succeeded_at: Moment = _NEVER
    failures: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """The number of consecutive failures; if 0, only ``succeeded_at`` and ``late`` are valid."""
    first_at: Moment = _NEVER
    last_at: Moment = _NEVER
    failure: Failure = Failure.OTHER
    number: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 0
    """The errno of a failed dial; 0 for other failures, or if unknown."""
    client: Annotated[str, msgspec.Meta(max_length=64, pattern="^[0-9a-zA-Z.:%_-]*$")] = ""
    late: LateByte | None = None
    """The last record of a late first byte; None if there was none."""
    turned_at: Moment = _NEVER
    """When refusals became other failures, or other failures refusals; negative for never."""

    def since(self, before: StreakPart) -> StreakPart:
        """Return the part that was added since an earlier state of the streak."""
        is_same = self.first_at == before.first_at
        return self._replace(failures=self.failures - before.failures if is_same else self.failures)

    def not_after(self, now: float) -> StreakPart:
        """Return a copy in which times in the future are replaced by ``now``."""
        names = "succeeded_at", "first_at", "last_at", "turned_at"
        return self._replace(**{name: min(getattr(self, name), now) for name in names})

    def followed_by(self, last: StreakPart, failures: int, first_at: float) -> StreakPart:
        """Return the streak after more failures; keep a client or late byte that ``last`` lacks."""
        client, late = last.client or self.client, last.late or self.late
        have, turned_at = (self, self.turned_at) if self.failures else (last, last.turned_at)
        if (have.failure is Failure.REFUSED) is not (last.failure is Failure.REFUSED):
            turned_at = last.last_at
        return StreakPart(
            _NEVER, failures, first_at, last.last_at, *last[4:6], client, late, turned_at
        )


_NO_FAILURE = StreakPart()


class Streak:
    """The latest streak of failures of one kind of attempt with one endpoint."""

    __slots__ = "before_at", "part", "succeeded_at"

    def __init__(self) -> None:
        self.succeeded_at = _NEVER
        """Monotonic seconds of the last success; negative if there was none."""
        self.before_at = _NEVER
        """Monotonic seconds of the previous streak's last failure; negative if unknown."""
        # Cost: nearly all streaks are empty, and share this value.
        self.part = _NO_FAILURE
        """The failures, without the last success."""

    @property
    def dial_failure(self) -> DialFailure:
        """The last failure of a dial."""
        return DialFailure(self.part.failure, self.part.number)

    @property
    def is_on(self) -> bool:
        """Whether the last attempt failed, so that the streak continues."""
        return self.part.last_at > self.succeeded_at

    def failed(
        self,
        now: float,
        failure: Failure = Failure.OTHER,
        client: str = "",
        late: LateByte | None = None,
    ) -> None:
        self.add(StreakPart(_NEVER, 1, now, now, failure, 0, client, late))

    def dial_failed(self, now: float, failed: DialFailure, client: str = "") -> None:
        self.add(StreakPart(_NEVER, 1, now, now, *failed, client))

    def still_fails(
        self,
        now: float,
        failure: Failure,
        client: str = "",
        late: LateByte | None = None,
        number: int = 0,
    ) -> None:
        """Update the last failure if the streak continues, without counting it again."""
        if self.is_on:
            have = self.part
            last = StreakPart(_NEVER, 0, now, now, failure, number, client, late)
            self.part = have.followed_by(last, have.failures, have.first_at)

    def end(self) -> None:
        """End the streak like a success, because connections are sent elsewhere now."""
        self.succeeded_at = max(self.succeeded_at, self.part.last_at)

    def whole(self) -> StreakPart:
        return self.part._replace(succeeded_at=self.succeeded_at)

    def add(self, part: StreakPart) -> None:
        """Add an increment from any process; a success may already have ended the streak."""
        self.succeeded_at = max(self.succeeded_at, part.succeeded_at)
        have = self.part
        if part.late and not part.failures and self.is_on:
            self.part = have._replace(late=part.late)
        if not part.failures or part.last_at <= min(self.succeeded_at, have.last_at):
            return
        first_at = part.first_at
        if self.is_on:
            first_at = min(have.first_at, first_at)
        else:
            self.before_at, have = have.last_at, _NO_FAILURE
        failures = have.failures + part.failures
        if part.last_at >= have.last_at:
            self.part = have.followed_by(part, failures, first_at)
        else:
            self.part = have._replace(failures=failures, first_at=first_at)


class Exclusions(Streak):
    """The streak of clients that an endpoint disconnects without a byte, while it answers others.

        A ended ──▶ B answered ──▶ A ended ──▶ B answered ──▶ A ended     two in a row, of A
                                      └──▶ A answered: a success, as it ends connections by chance

    Rule 1: a connection counts if the endpoint has answered other clients since it closed the same
    client's previous one, within a minute. So the failure depends on the client, not on the time.
    Rule 2: an answer costs only the check whether any client was excluded.
    Rule 3: each process sees only some of a client's connections, and counts only these.
    """

    __slots__ = ("clients",)

    def __init__(self) -> None:
        super().__init__()
        self.clients: dict[str, float] | None = None
        """Monotonic seconds when each client was last disconnected, in order; None if none."""

    def ended(self, client: str, now: float, failure: Failure, answered_at: float) -> None:
        """Record a connection that the endpoint closed without sending a byte.

        Args:
            answered_at: When the endpoint last answered a connection, in monotonic seconds.
        """
        if self.clients is None:
            self.clients = {}
        before = self.clients.pop(client, None)
        if len(self.clients) >= CLIENTS_MAX:
            del self.clients[next(iter(self.clients))]
        self.clients[client] = now
        if before is None or now - before >= LAST_MINUTE_S:
            return
        if answered_at >= before:
            self.failed(now, failure, client)
        else:
            self.still_fails(now, failure, client)

    def answered(self, client: str, now: float) -> None:
        ended_at = self.clients.pop(client, None) if self.clients else None
        if ended_at is not None and now - ended_at < LAST_MINUTE_S:
            self.succeeded_at = now
