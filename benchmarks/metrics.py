"""The metrics of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured quantity."""

    head: str
    """The heading of the metric's column."""
    digits: int
    cpu: bool = False
    """Whether only ways with a process have this metric."""


METRICS = {
    "connections": Metric("connections/s", 0),
    "requests": Metric("requests/s", 0),
    "exchanges": Metric("exchanges/s", 0),
    "gbits": Metric("Gbit/s", 1),
    "cpu_us": Metric("proxy CPU, µs each", 1, cpu=True),
    "cpu_s_per_gb": Metric("proxy CPU, s/GB", 2, cpu=True),
    "machine_us": Metric("the machine's CPU, µs each", 1),
    "machine_s_per_gb": Metric("the machine's CPU, s/GB", 2),
    "p50_ms": Metric("p50 ms", 2),
    "p99_ms": Metric("p99 ms", 2),
    "p50_us": Metric("p50 µs", 0),
    "p99_us": Metric("p99 µs", 0),
    "p999_us": Metric("p99.9 µs", 0),
    "scheduled": Metric("scheduled/s", 0),
    "late_percent": Metric("late, %", 2),
    "max_ms": Metric("longest ms", 0),
    "errors": Metric("errors", 0),
    "bytes_each": Metric("user memory, bytes each", 0, cpu=True),
    "descriptors_each": Metric("descriptors each", 1, cpu=True),
    "base_mb": Metric("user memory before, MB", 1, cpu=True),
    "both_alive": Metric("connections/s, both alive", 0),
    "one_silent": Metric("connections/s, one silent", 0),
    "share": Metric("share kept", 3),
}


class NotMeasured(Exception):
    """A value can't be measured for a way; the report shows the message."""
