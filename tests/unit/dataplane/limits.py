"""A limit of memory of which a test says how much is used."""

from __future__ import annotations

MIB = 1024 * 1024


class Limit:
    """A limit of 200 MiB. Part of MemoryLimit."""

    limit = 200 * MIB
    counts_sockets = True

    def __init__(self, used_mib: int) -> None:
        self.used_mib = used_mib
        self.cache_mib = 0
        self.readings = self.estimates = 0

    def used(self) -> int:
        """Part of MemoryLimit."""
        self.readings += 1
        return self.used_mib * MIB

    def estimate(self) -> int:
        """Part of MemoryLimit."""
        self.estimates += 1
        return (self.used_mib + self.cache_mib) * MIB
