"""Counts changes between snapshots, as kube-proxy's ``…_changes_total`` do."""

from __future__ import annotations

from typing import NamedTuple

from ..cluster import Snapshot, differing_keys


class ChangeCounts(NamedTuple):
    """How many objects were added, changed or removed."""

    services: int = 0
    endpoints: int = 0
    """EndpointSlices."""

    def plus(self, more: ChangeCounts) -> ChangeCounts:
        """Return the sum."""
        return ChangeCounts(self.services + more.services, self.endpoints + more.endpoints)


NO_CHANGES = ChangeCounts()


def count_changes(have: Snapshot | None, want: Snapshot) -> ChangeCounts:
    """Count the objects in which two snapshots differ: several changes of one object are one."""
    earlier = have.services if have is not None else {}
    services = endpoints = 0
    for key in differing_keys(earlier, want.services):
        old, new = earlier.get(key), want.services.get(key)
        services += (old and old.service) != (new and new.service)
        before = {item.key: item for item in old.slices} if old else {}
        after = {item.key: item for item in new.slices} if new else {}
        # A store keeps a slice's object unless the slice changes.
        endpoints += sum(before.get(k) is not after.get(k) for k in before.keys() | after.keys())
    return ChangeCounts(services, endpoints)
