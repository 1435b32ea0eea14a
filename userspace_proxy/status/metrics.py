"""Renders the metrics page, with kube-proxy's metric names where they exist.

observe() in the loop ──▶ SyncMetrics ──┐ copied
StatusFacts, immutable ─────────────────┼──▶ render_metrics(), in a thread
answers to probes ──▶ HealthCheckCounts ┘ copied
"""

from __future__ import annotations

import gzip
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder, gzip_accepted

from ..facts import Detail, StatusFacts
from .exposition import Buckets, Family, counter, histogram, write_families
from .families import families_of

# kube-proxy's buckets: ExponentialBuckets(0.001, 2, 15), 1 ms to 16 s.
SYNC_BUCKETS_S = tuple(0.001 * 2**step for step in range(15))
# kube-proxy's buckets, 0.25 s to 5 min.
PROGRAMMING_BUCKETS_S = (
    *(0.25, 0.5),
    *map(float, range(1, 60)),
    *map(float, range(60, 120, 5)),
    *map(float, range(120, 301, 30)),
)
_OPEN_METRICS = "application/openmetrics-text"


class _Histogram:
    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self) -> Family:
        """Return the histogram as a family; later observations don't change it."""
        series = Buckets("", self._bounds, tuple(self._counts), self._sum)
        return histogram(f"kubeproxy_{self._name}_duration_seconds", self._text, [series])


class SyncMetrics:
    """Histograms of the duration of sync rounds, and of the delay until changes took effect."""

    def __init__(self) -> None:
        text = "Time that one round of plan, diff and apply took"
        self._all = _Histogram("sync_proxy_rules", text, SYNC_BUCKETS_S)
        self._full = _Histogram(
            "sync_full_proxy_rules", f"{text} that compared everything", SYNC_BUCKETS_S
        )
        self._partial = _Histogram(
            "sync_partial_proxy_rules", f"{text} that wrote only what changed", SYNC_BUCKETS_S
        )
        self._programming = _Histogram(
            "network_programming",
            "Time from the change of a pod or Service, which the EndpointSlice's annotation "
            "contains, until it was applied here",
            PROGRAMMING_BUCKETS_S,
        )

    def observe(self, duration_s: float, is_full: bool, programmed_s: Iterable[float] = ()) -> None:
        """Record one sync round.

        Args:
            is_full: Whether the round compared everything, not only changes.
            programmed_s: Seconds until each slice took effect.
        """
        self._all.observe(duration_s)
        (self._full if is_full else self._partial).observe(duration_s)
        for seconds in programmed_s:
            self._programming.observe(seconds)

    def families(self) -> list[Family]:
        """Return a copy of each histogram."""
        kinds = (self._all, self._full, self._partial, self._programming)
        return [kind.family() for kind in kinds]


class HealthCheckCounts:
    """The answers of ``/healthz`` and ``/livez``, by status code."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, probe: str, status: int) -> None:
        """Count one answer of ``healthz`` or ``livez``."""
        self._counts[probe, status] += 1

    def families(self) -> Iterator[Family]:
        """Yield a copy of each probe's counter."""
        for probe in ("healthz", "livez"):
            yield counter(
                f"kubeproxy_proxy_{probe}",
                f"Answers of /{probe} by HTTP status",
                [(f'{{code="{code}"}}', self._counts[probe, code]) for code in (200, 503)],
            )


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """One rendered metrics page."""

    headers: Mapping[str, str]
    body: bytes


class MetricsForm(NamedTuple):
    """The text form and the encoding of a metrics page."""

    content_type: str
    is_gzip: bool

    @classmethod
    def accepted(cls, accept: str, accept_encoding: str) -> MetricsForm:
        """Choose the form that a scraper accepts.

        Args:
            accept: The ``Accept`` header; empty for the plain text form.
            accept_encoding: The ``Accept-Encoding`` header.
        """
        content_type = choose_encoder(accept)[1]
        if content_type.startswith(_OPEN_METRICS):
            # The library echoes any version that a scraper requests, so state the version that it
            # writes.
            content_type = re.sub("version=[^;]*", "version=1.0.0", content_type)
        return cls(content_type, gzip_accepted(accept_encoding))


def render_metrics(
    view: StatusFacts,
    taken: Iterable[Family],
    *,
    detail: Detail = "service",
    form: MetricsForm | None = None,
) -> MetricsPage:
    """Return a page with all metrics.

    Call it in a thread, one call at a time. It reads only its arguments and /proc.

    Args:
        view: The current state.
        taken: The families of :class:`SyncMetrics` and :class:`HealthCheckCounts`.
        detail: Which series of Service ports and endpoints to include.
        form: The form of the page; None for plain text.
    """
    content_type, is_gzip = form or MetricsForm.accepted("", "")
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    # choose_encoder expects an Accept header; a content type has the same form.
    encode, _ = choose_encoder(content_type)
    open_metrics = content_type.startswith(_OPEN_METRICS)
    own = write_families(chain(taken, families_of(view, detail)), open_metrics=open_metrics)
    # The library's metrics come last, because the library writes OpenMetrics' EOF marker.
    body, headers = own + encode(registry), {"Content-Type": content_type}
    if is_gzip:
        # Labels repeat, so even the fastest level compresses to a fifteenth; compressing releases
        # the GIL.
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    return MetricsPage(headers, body)
