"""What workers have counted for all Service ports together, former ones included."""

from __future__ import annotations

from ..facts import TIMES_BOUNDS_S, Durations, EndpointCounters, GroupCounters
from .group import add_durations
from .messages import GroupReport


class Totals:
    """Sums that never fall, whatever Service ports and endpoints go: metrics rely on that."""

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.endpoints = EndpointCounters()
        """Over all endpoints; ``GAUGES`` aren't meaningful, as they aren't corrected when a worker
        ends."""
        self.connect_times = Durations(TIMES_BOUNDS_S)
        self.first_byte_times = Durations(TIMES_BOUNDS_S)

    def add(self, report: GroupReport) -> None:
        """Add what a worker has counted for one group."""
        self.counters.add(report.figures)
        add_durations(self.connect_times, report.connect_times)
        add_durations(self.first_byte_times, report.first_byte_times)
        for each in report.endpoints:
            self.endpoints.add(each.figures)
