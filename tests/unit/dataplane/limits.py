"""A memory limit with usage set by the test."""

from __future__ import annotations

MIB = 1024 * 1024


class Limit:
    """A limit of 200 MiB, with the interface of MemoryLimit."""

    limit = 200 * MIB
    counts_sockets = True

    def __init__(self, used_mib: int) -> None:
        self.used_mib = used_mib
        self.cache_mib = 0
        self.readings = self.estimates = 0

    def used(self) -> int:
        self.readings += 1
        return self.used_mib * MIB

    def estimate(self) -> int:
        self.estimates += 1
        return (self.used_mib + self.cache_mib) * MIB
