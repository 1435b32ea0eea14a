"""Judges whether the endpoint of a UDP flow has stopped answering.

    answered in 3 seconds ──▶ a conversation ──asked, nothing back: 3 checks, 11 s──▶ stalled
                                           ◀───────────── answered ────────────

Each report of counters checks the flow. Answers are counted by the second, because a one-way stream
may begin with several answers (a handshake) within less time. The flow counts as stalled only after
a silence much longer than any that the endpoint has broken before.
"""

from __future__ import annotations

# The limits at which a conversation counts as stalled. _SILENT_S: a peer that only receives may
# answer after 10 s, like WireGuard. Datagrams more than _KEEP_ALIVE_S apart aren't questions: they
# may be keep-alives, which WireGuard sends 25 s apart, IPsec 20 s, ICE 15 s. Source: RFC 3948, 4;
# RFC 8445, 11; WireGuard 6.5.
_FURTHER_S = 2
_LOOKS = 3
_SILENT_S = 11.0
_TIMES_LONGER = 3
_KEEP_ALIVE_S = 12.0


class Conversation:
    """The state of one flow's answers after the first answer."""

    __slots__ = (
        "_asked", "_asked_at", "_longest_s", "_silent_at", "further_seconds", "is_stalled",
        "is_unanswered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.further_seconds = 0
        """The number of seconds in which answers arrived, without the first second."""
        self.is_unanswered = False
        """Whether the endpoint was counted as not answering in time."""
        self.is_stalled = False
        """Whether the endpoint has stopped answering."""
        self._longest_s = 0.0
        """The longest silence that an answer has broken."""
        self._asked = 0
        """How many consecutive checks found datagrams of the client, but none of the endpoint."""
        self._silent_at = self._asked_at = 0.0
        """Monotonic seconds of the first and the last of these checks."""

    def look(self, now: float, *, is_asked: bool, is_answered: bool) -> None:
        """Update ``is_stalled`` by whether each side has sent datagrams since the last check."""
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
