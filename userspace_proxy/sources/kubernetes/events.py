"""Decides which Kubernetes Events to send, when, and with which content; pure.

    record ─▶ a series per reason and object ─▶ first time: an Event ─▶ again: its count

Rule 1: each series causes at most one request a minute, however often it occurs. A series that was
sent within the last minute is therefore never dropped: a new one would be sent at once.
Rule 2: the number of series is limited, per namespace and in total. At a limit, the series that has
been quiet for longest is dropped, from the same namespace or from the namespace with the most
series; if no series may be dropped, the new series is dropped.
Rule 3: namespaces take turns.

Source: events.k8s.io/v1; client-go's tools/events, which ends a series after 6 minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...model import ServiceKey
from ...secrets import without_secrets
from ...turns import Turns
from ..base import Happening
from .api_paths import join

EVERY_S = 60.0
SERIES_END_S = 360.0
NAMESPACE_MAX = 50
"""The maximum number of series per namespace, so that a namespace causes less than one request per
second."""
SERIES_MAX = 500
"""The maximum number of series: more than there are requests in a minute, so that there is always a
series that may be dropped."""
APART_S = 0.25
"""Seconds between two requests of a node."""
CONTROLLER = "userspace-proxy"
# Source: k8s.io/kubernetes/pkg/apis/core/validation, ValidateEventUpdate and NoteLengthLimit.
_NOTE_BYTES_MAX = 1024
_NODE_NAMESPACE = "default"

SeriesKey = tuple[str, ServiceKey | None]


@dataclass(slots=True)
class Series:
    """The occurrences of one reason for one object."""

    happening: Happening
    """The latest occurrence."""
    began: float
    """The Unix time of the first occurrence."""
    last: float
    count: int = 1
    sent: int = 0
    """The number of occurrences sent to the API server."""
    not_before: float = 0.0
    """Unix time before which nothing is sent."""
    name: str = ""
    """The Event's name; empty unless the server is known to have the Event."""
    asked_at: float = float("-inf")
    """The Unix time of the last request; minus infinity before the first."""

    @property
    def is_owed(self) -> bool:
        return self.sent < self.count


class Correlator:
    """The Events of one node, in series, with the times at which to send them."""

    def __init__(self) -> None:
        self._series: dict[SeriesKey, Series] = {}
        """All series, in the order of their last occurrences."""
        self._turns = Turns[str]()

    def note(self, happening: Happening, now: float) -> None:
        """Record an occurrence at a Unix time, unless there is no room for a new series."""
        key = happening.reason, happening.service
        known = self._series.pop(key, None)
        if known is None:
            if not self._make_room(_namespace_of(key), now):
                return
            known = Series(happening, now, now)
        elif not known.is_owed and now - known.last > SERIES_END_S:
            series = Series(happening, now, now)
            series.not_before, series.asked_at = known.not_before, known.asked_at
            known = series
        else:
            known.happening, known.last = happening, now
            known.count += 1
        self._series[key] = known

    def due(self, now: float) -> Iterator[Series]:
        """Yield the series to send at a Unix time; each one uses a turn of its namespace."""
        found = [s for s in self._series.items() if s[1].is_owed and s[1].not_before <= now]
        order = self._turns.order(found, lambda item: _namespace_of(item[0]))
        return (series for _, series in order)

    def next_due_s(self, now: float) -> float | None:
        """Return the seconds until a series is due; None if every occurrence was sent."""
        owed = [series.not_before for series in self._series.values() if series.is_owed]
        return max(0.0, min(owed) - now) if owed else None

    def _make_room(self, namespace: str, now: float) -> bool:
        """Drop a series if there is no room for a new one; return whether there is room."""
        counts = Counter(map(_namespace_of, self._series))
        is_full = counts[namespace] >= NAMESPACE_MAX
        if not is_full and len(self._series) < SERIES_MAX:
            return True
        old = (key for key, one in self._series.items() if now - one.asked_at >= EVERY_S)
        if is_full:
            old = (key for key in old if _namespace_of(key) == namespace)
        dropped = max(old, key=lambda key: counts[_namespace_of(key)], default=None)
        if dropped is not None:
            del self._series[dropped]
        return dropped is not None


def _namespace_of(key: SeriesKey) -> str:
    """Return the namespace of a series; empty for Events of the node."""
    return "" if key[1] is None else key[1].namespace


def new_event(series: Series, node_name: str, uid: str) -> dict[str, Any]:
    """Return the first Event of a series; its name is the same in each call.

    Args:
        uid: The object's uid; empty if unknown. For a Node, its name, as in the kubelet's Events.
    """
    service = series.happening.service
    kind, name = ("Node", node_name) if service is None else ("Service", service.name)
    namespace = _NODE_NAMESPACE if service is None else service.namespace
    regarding = {"apiVersion": "v1", "kind": kind, "name": name}
    if service is not None:
        regarding["namespace"] = namespace
    if uid:
        regarding["uid"] = uid
    event: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{name}.{int(series.began * 1e9):x}",
            "namespace": namespace,
        },
        "eventTime": micro_time(series.began),
        "reportingController": CONTROLLER,
        "reportingInstance": node_name,
        "action": series.happening.action,
        "reason": series.happening.reason,
        "regarding": regarding,
        "note": _short(series.happening.note),
        "type": "Warning" if series.happening.is_warning else "Normal",
    }
    if series.count > 1:
        event |= series_patch(series)
    return event


def series_patch(series: Series) -> dict[str, Any]:
    """Return the patch for an Event that has occurred again."""
    return {"series": {"count": series.count, "lastObservedTime": micro_time(series.last)}}


def path_of(series: Series) -> str:
    """Return the URL path of the Events of a series."""
    service = series.happening.service
    namespace = _NODE_NAMESPACE if service is None else service.namespace
    return join("/apis/events.k8s.io/v1/namespaces", namespace, "events")


def micro_time(now: float) -> str:
    """Return a Unix time as Kubernetes' MicroTime."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _short(note: str) -> str:
    return without_secrets(note).encode(errors="replace")[:_NOTE_BYTES_MAX].decode(errors="ignore")
