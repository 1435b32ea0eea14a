"""Requests at fixed times: decides at which rate they are sent, and which runs count.

In a closed loop, a client sends a request when it has the answer to the previous request. A slow
answer therefore delays requests that would have been slow, too, and the quantiles lack them
(coordinated omission). In an open loop, a schedule decides when each request is due, and its
latency counts from that time, whenever it is sent: ``goload/schedule.go``. Source: wrk2,
perf-gauge.

Rule 1: the rate is the same for all ways, and in all rounds.
Rule 2: the load generator's own delay, between the time at which a request could be sent and the
time at which it is sent, doesn't count. On two cores, a timer is often late by more than a proxy
adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .metrics import Values
from .samples import Samples

QUANTILES = ("p50_us", "p99_us", "p999_us")
CONNECTIONS = 64
"""The number of connections, the same as in the closed loop (wrk's ``-c64``)."""
LENGTH = 1.5
"""The length of a run, as a multiple of other loads' runs. All runs take about ten minutes with
thirteen ways and five rounds of 2 s, and the slowest rate has enough requests for a p99.9."""


def slowest_rate(samples: Samples, load: str, metric: str, ways: Iterable[str]) -> float | None:
    """Return the lowest rate of these ways in the first round; None if there is none."""
    rates = (samples.values(load, way, metric).get(0) for way in ways)
    return min(filter(None, rates), default=None)


def read_open(said: Mapping[str, Any]) -> Values:
    """Return the values from a report of goload's command ``open``."""
    return {
        "requests": (said["count"] - said["errors"]) / said["seconds"],
        **{name: said[name] for name in (*QUANTILES, "errors")},
        "late_percent": 100 * said["late"] / said["count"],
    }
