"""Records the last minute's traffic of all nodes' Service ports, while pages are open.

    each view ──growth since the last──▶ Lately ──Minute──▶ pages

Rule 1: the chart shows rates in steps of one second, like a proxy's page. Failed and saved clients
are counted exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from userspace_proxy.facts.units import format_count
from userspace_proxy.status.chart import Sparkline, draw
from userspace_proxy.status.history import COVERED_S, Figures, History, added

from ..merged import MergedKey

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Minute:
    """The traffic of one Service port, or of all Service ports together, in the last minute."""

    picture: Sparkline | None = None
    """The chart of the minute; None if there was no traffic."""
    failed: int = 0
    """Clients that got no answer."""
    saved: int = 0
    """Connections whose first dial failed and that another endpoint served."""
    span_s: float = field(default=_MINUTE_S, compare=False)
    """The seconds that were counted: less than a minute soon after the first page was opened."""

    @property
    def span(self) -> str:
        return "last minute" if self.span_s >= _MINUTE_S else f"last {self.span_s:.0f} s"

    @property
    def words(self) -> str:
        """The failures, as ``3 failed, 12 saved``; empty without failures."""
        counts = {"failed": self.failed, "saved": self.saved}
        return ", ".join(f"{format_count(n)} {word}" for word, n in counts.items() if n)


class Lately:
    """The traffic of the last minute, recorded for one dashboard."""

    def __init__(self) -> None:
        self._history = History()
        self._at = float("-inf")
        """The time of the last sample, in monotonic seconds."""
        self._since = self._at
        """The time of the first sample since the last gap."""
        self._carried: dict[MergedKey, Figures] = {}
        """Traffic since the first sample."""
        self._wrong: deque[tuple[float, Mapping[MergedKey, Figures]]] = deque()
        """The times of samples with failed or saved clients, and the affected Service ports."""

    def note(
        self, keys: Iterable[MergedKey], growth: Mapping[MergedKey, Figures], at: float
    ) -> None:
        """Add a sample with its time in monotonic seconds.

        Args:
            keys: All Service ports in the sample.
            growth: The counts since the last sample.
        """
        if at - self._at > COVERED_S:
            # Drop this traffic: no page was open since the last sample, so it may be older than a
            # minute.
            growth = {}
            self._wrong.clear()
            self._since = at
        self._at = at
        known, none = self._carried, Figures()
        self._carried = {key: added((known.get(key, none), growth.get(key, none))) for key in keys}
        self._history.record(list(self._carried.items()), at)
        wrong = {key: one for key, one in growth.items() if one.failed or one.saved}
        if wrong:
            self._wrong.append((at, wrong))
        while self._wrong and at - self._wrong[0][0] >= _MINUTE_S:
            self._wrong.popleft()

    @property
    def has_rates(self) -> bool:
        return self._history.has_rates

    def rates(self, key: MergedKey | None = None) -> Figures:
        """Return the current rates of a Service port; with key None, of all Service ports."""
        return self._history.rates(key)

    def minute(self, key: MergedKey | None = None) -> Minute:
        """Return the last minute of a Service port; with key None, of all Service ports."""
        curves = self._history.minute(key)
        found = added(
            one
            for _, wrong in self._wrong
            for one in (wrong.values() if key is None else [wrong.get(key, Figures())])
        )
        picture = draw(curves) if curves is not None else None
        span_s = self._at - self._since
        return Minute(picture, int(found.failed), int(found.saved), span_s)
