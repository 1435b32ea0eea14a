"""Since when the requests of one kind fail, by what has arrived: what the source has to say of it.

Rule 1: a failure lasts until a list is complete, or a watch is open and, where that was to be
asked, the server has answered about history.
Rule 2: when a client gave up by itself isn't seen, so a beginning may be a range of times.
"""

from __future__ import annotations

_LONG_S = 60.0
"""A list that takes longer is a failure until it is complete."""
# Turns of an event loop.
_SOON_S = 1.0
_WAITS_S = 0.05


class Outage:
    """That of one kind."""

    def __init__(self) -> None:
        self.since: tuple[float, float] | None = None
        """When it began, at the earliest and at the latest; None: nothing fails."""
        self.is_forbidden = False
        """The last refusal was 403, and nothing has succeeded since."""
        self.is_invalid = False
        """The last attempt had an answer before it failed, so that it is no sign of an outage."""
        self._is_unsure = False
        """The last attempt may have failed."""
        self._changed_at = self._before = float("-inf")
        self._has_answered = False
        """This attempt had an answer; an attempt is a list and the watch after it, or a watch."""
        self._failed_at: float | None = None
        """When this attempt failed, after which there is a wait."""
        self._retry_s = 0.0
        self._is_unread = False
        """The failure with which it began may not have been read."""

    def begin_attempt(self) -> None:
        """Note that a wait is over, if there was one."""
        self._has_answered, self._failed_at = False, None

    def succeed(self, now: float) -> bool:
        """Note an answer; return whether others needn't wait any more."""
        has_recovered = self.since is not None and not self.is_invalid and not self._is_unsure
        self._before = self.since[0] if self.since else now
        self.since, self.is_forbidden, self._is_unsure = None, False, False
        self._is_unread = False
        self._changed_at, self._has_answered = now, True
        return has_recovered

    def fail(self, now: float, *, code: int = 0, retry_s: float = 0.0) -> None:
        """Note that this attempt failed.

        Args:
            code: Of a response that was read; 0: there is none.
            retry_s: So long the server wants it to wait.
        """
        if code:
            self.is_forbidden = code == 403
        self._note(now, now)
        self.is_invalid = self._has_answered
        self._failed_at, self._retry_s = now, retry_s

    def give_up(self, began: float, now: float) -> None:
        """Note that the client gave up what began then."""
        self._note(began, now)
        self.is_invalid = self._has_answered

    def end(self) -> None:
        """Note that this attempt ended as a watch may."""
        self.is_invalid = False

    def doubt(self) -> None:
        """Note that this attempt may have failed."""
        self._is_unsure = True

    def doubt_failure(self) -> None:
        """Note that this attempt broke off, perhaps before its failure was read."""
        self._is_unsure = True
        if self.since is not None and self.since[1] == self._failed_at:
            # Else an earlier attempt had failed.
            self._is_unread = True

    def note_list(self, began: float, now: float) -> bool:
        """Note that a list is under way, since then; return whether that may be a failure."""
        lasts_s = now - began
        if lasts_s > _LONG_S + _WAITS_S and self.since is None:
            self.since = began + _LONG_S, began + _LONG_S
            self._changed_at = self.since[1]
        elif abs(lasts_s - _LONG_S) <= _WAITS_S:
            self.doubt()
        return lasts_s > _LONG_S - _WAITS_S

    def _note(self, earliest: float, now: float) -> None:
        if self._is_unsure and self.since is None:
            earliest = self._before
        if self._is_unread and self.since is not None:
            self.since = self.since[0], now
        self.since = self.since or (earliest, now)
        self._changed_at, self._is_unsure, self._is_unread = now, False, False

    def is_certain(self, now: float) -> bool:
        """Return whether the source knows it, too, by now."""
        return not self._is_unsure and now - self._changed_at > _SOON_S

    def waits(self, now: float) -> bool:
        """Return whether the next attempt waits, and may begin at once if the server is there."""
        at = self._failed_at
        is_long = at is not None and now - at > _WAITS_S
        return is_long and not self._retry_s and not self.is_invalid and not self._is_unsure
