"""The metrics page: kube-proxy's metric names where they exist, own names otherwise.

observe() in the loop ──▶ SyncMetrics ──┐ copied
StatusView, immutable ──────────────────┼──▶ render_metrics(), in a thread
answers to probes ──▶ ProbeCounts ──────┘ copied
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .families import families_of
from .view import StatusView

# kube-proxy's buckets: ExponentialBuckets(0.001, 2, 15), 1 ms to 16 s.
SYNC_BUCKETS_S = tuple(0.001 * 2**step for step in range(15))


class SyncMetrics:
    """The durations of the sync rounds of this process, as a histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SYNC_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one sync round."""
        self._counts[bisect_left(SYNC_BUCKETS_S, duration_s)] += 1
        self._sum_s += duration_s

    def family(self) -> Metric:
        """Return a copy of the histogram."""
        bounds = (*map(str, SYNC_BUCKETS_S), "+Inf")
        return HistogramMetricFamily(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time that one round of plan, diff and apply took",
            buckets=list(zip(bounds, accumulate(self._counts), strict=True)),
            sum_value=self._sum_s,
        )


class ProbeCounts:
    """The answers of ``/healthz`` and ``/livez``, by status code."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, probe: str, status: int) -> None:
        """Count one answer of ``healthz`` or ``livez``."""
        self._counts[probe, status] += 1

    def families(self) -> Iterator[Metric]:
        """Yield a copy of each probe's counter."""
        for probe in ("healthz", "livez"):
            family = CounterMetricFamily(
                f"kubeproxy_proxy_{probe}", f"Answers of /{probe} by HTTP status", labels=["code"]
            )
            for status in (200, 503):
                family.add_metric([str(status)], self._counts[probe, status])
            yield family


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """One rendered metrics page."""

    content_type: str
    body: bytes


def render_metrics(view: StatusView, taken: Iterable[Metric], *, accept: str = "") -> MetricsPage:
    """Render everything, in the text form that the scraper accepts.

    Costs 6 µs of CPU per series, so about a second for 10,000 Service ports with two
    endpoints each: call it in a thread, one at a time. It reads nothing but its
    arguments and /proc.

    Args:
        view: The state at this moment.
        taken: The families of :class:`SyncMetrics` and :class:`ProbeCounts`.
        accept: The ``Accept`` header; empty for the plain text form.
    """
    # One registry per scrape: a permanent one would fetch the view from the thread,
    # while the loop changes its parts.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OneScrape(view, list(taken)))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return MetricsPage(content_type, encode(registry))


class _OneScrape(Collector):
    """Yields family after family, so that only one is in memory as samples."""

    def __init__(self, view: StatusView, taken: list[Metric]) -> None:
        self._view = view
        self._taken = taken

    def collect(self) -> Iterator[Metric]:
        """Part of Collector."""
        yield from self._taken
        yield from families_of(self._view)
