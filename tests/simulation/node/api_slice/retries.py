"""How soon the requests of one kind follow each other.

Rule 1: a request that failed is followed by a wait that grows, as long as the server asks for at
least; a watch that lasted long enough, by the next one at once.
Rule 2: a wait ends early if another kind finds the server there again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .requests import RequestChecks

_BASE_S = 0.8
CAP_S = 5.0
"""Also of what a server in front of the API server asks for."""
_HEALTHY_S = 4.7
_RETRY_AFTER_MAX_S = 32.0
# Turns of an event loop, and the network.
_SOON_S = 0.3
# Waits of 0.8 to 1.6 s are the shortest, and others have been there again meanwhile.
_IN_A_MINUTE = 150


class End(NamedTuple):
    """How a request ended that was followed by another one."""

    over_at: float
    lasted_s: float
    """Of a watch, since its head came."""
    is_watch: bool
    is_healthy: bool
    """It was a watch that lasted long enough."""
    has_told: bool
    """It was a watch that has had events, which were read, and didn't fail."""
    is_failed: bool
    retry_after_s: float
    """What the server asked for; 0: it didn't."""


class Retries:
    """Those of one reflector."""

    def __init__(self, kind: str, checks: RequestChecks) -> None:
        self._kind = kind
        self._checks = checks
        self._failures = 0
        """Waits that grew for certain, since one that didn't."""
        self._waits = 0
        """Waits that may have grown, since they began anew for certain."""
        self._times: deque[float] = deque()

    def note_unknown(self, *, has_waited: bool) -> None:
        """Note a request whose end isn't known, or that has no wait after it."""
        self._failures = 0
        self._waits += has_waited

    def check_wait(self, end: End) -> None:
        """Judge the time between the end of a request and now, when the next one begins."""
        gap = self._checks.now() - end.over_at
        if end.is_healthy or end.has_told:
            self._waits = 0
        if end.is_watch and end.lasted_s >= _HEALTHY_S:
            # It lasted long enough, or may have.
            self._failures = 0
        retry_s = min(end.retry_after_s, _RETRY_AFTER_MAX_S)
        if retry_s:
            self._check("Retry-After", gap >= retry_s - 0.01, f"{gap:.3f} s after {retry_s:g} s")
        if end.is_failed:
            self._check_backoff(gap, end.over_at)
        elif not end.is_watch:
            return
        elif end.is_healthy:
            what = f"{gap:.3f} s after a watch of {end.lasted_s:.1f} s"
            self._check("at once", gap <= _SOON_S, what)
            self._failures = 0
            return
        else:
            self._failures = 0
        self._check_soon(gap, retry_s)

    def _check_soon(self, gap: float, retry_s: float) -> None:
        longest = max(2 * min(_BASE_S * 2**self._waits, CAP_S), retry_s) + _SOON_S
        self._waits += 1
        self._check(
            "retried soon", gap <= longest, f"after {gap:.3f} s, not {longest:g} s ({self._waits})"
        )

    def _check_backoff(self, gap: float, over_at: float) -> None:
        recovered_at = self._checks.recovered_at
        # Another kind is there again, so that waits begin anew, perhaps after this one.
        is_anew = recovered_at >= over_at - _SOON_S
        least = min(_BASE_S * 2 ** (0 if is_anew else self._failures), CAP_S) * 0.999
        what = f"{gap:.3f} s after failure {self._failures + 1}"
        self._failures = 0 if is_anew else self._failures + 1
        if gap < least and self._checks.now() - recovered_at <= _SOON_S:
            # Waits have begun anew for certain.
            self._waits = -1
            self._checks.judgements.excuse("backoff", "another kind was there again")
        else:
            self._check("backoff", gap >= least, what)

    def check_rate(self) -> None:
        """Judge how many requests there were in the last minute, with the one that begins now."""
        now = self._checks.now()
        self._times.append(now)
        while self._times[0] < now - 60.0:
            self._times.popleft()
        count = len(self._times)
        self._check("rate", count <= _IN_A_MINUTE, f"{count} requests in a minute")

    def _check(self, oracle: str, is_right: bool, what: str) -> None:
        self._checks.check(oracle, is_right, lambda: f"{self._kind}: {what}")
