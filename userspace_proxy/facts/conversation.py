"""Finds UDP flows that an endpoint has answered for a while, and answers no more.

    answered in 3 seconds ──▶ a conversation ──asked, nothing back: 3 looks, 12 s──▶ stalled
                                           ◀───────────── answered ────────────

Rule 1: a flow is looked at with each report; of its datagrams only seconds with answers count.
Rule 2: a stream in one direction may begin with answers (a handshake), which take less than that.
Rule 3: silence is longer than any that the endpoint has ended with an answer. It may be one of
WireGuard's: who only receives answers after 10 s.
Rule 4: keep-alives need no answer (WireGuard's are 25 s apart, IPsec's 20 s, ICE's 15 s), so
datagrams that are that far apart ask nothing. Source: RFC 3948, 4; RFC 8445, 11; WireGuard 6.5.
"""

from __future__ import annotations

_FURTHER_S = 2
_LOOKS = 3
_SILENT_S = 11.0
_TIMES_LONGER = 3
_KEEP_ALIVE_S = 12.0


class Conversation:
    """What is noted of one flow's answers behind the first one, or before it."""

    __slots__ = (
        "_asked", "_asked_at", "_longest_s", "_silent_at", "further_seconds", "is_stalled",
        "is_unanswered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.further_seconds = 0
        """Seconds with answers behind that of the first one."""
        self.is_unanswered = False
        """Its endpoint was noted to have sent nothing in time."""
        self.is_stalled = False
        """Whether the endpoint doesn't answer it any more."""
        self._longest_s = 0.0
        """The longest silence that an answer has ended."""
        self._asked = 0
        """The looks that found datagrams of the client, and none of the endpoint since."""
        self._silent_at = self._asked_at = 0.0
        """The first and the last of these."""

    def look(self, now: float, *, is_asked: bool, is_answered: bool) -> None:
        """Note what has passed since the last look, from the client and from the endpoint."""
        if is_answered:
            if self._asked:
                self._longest_s = max(self._longest_s, now - self._silent_at)
            self._asked, self.is_stalled = 0, False
        elif is_asked:
            if not self._asked or now - self._asked_at > _KEEP_ALIVE_S:
                self._asked, self._silent_at = 0, now
            self._asked, self._asked_at = self._asked + 1, now
            least_s = max(_SILENT_S, _TIMES_LONGER * self._longest_s)
            is_silent = self._asked >= _LOOKS and now - self._silent_at >= least_s
            self.is_stalled |= self.further_seconds >= _FURTHER_S and is_silent
