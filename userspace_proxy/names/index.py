"""What is looked up among all Services: namespaces, and the names of addresses.

Rule 1: an index follows the snapshot that a question is about by what differs from the last one,
so its cost after a change is that of the objects that have changed.
Rule 2: names of addresses are indexed once the first is asked for, because few clients do.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from ..cluster import ServiceState, Snapshot, differing_keys
from ..model import EndpointSlice, ServiceKey
from .endpoints import NamedEndpoints
from .question import hostname_of

_EMPTY = Snapshot({})


class NameIndex:
    """Indexes that successive snapshots share; may be used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = _EMPTY
        self._namespaces: Counter[str] = Counter()
        self._services: dict[ServiceKey, NamedEndpoints] = {}
        self._addresses = _AddressIndex()

    def of_service(self, snapshot: Snapshot, key: ServiceKey) -> NamedEndpoints | None:
        """Return the index of a Service; None if it doesn't exist."""
        state = snapshot.services.get(key)
        if state is None:
            return None
        with self._lock:
            self._follow(snapshot)
            index = self._services.get(key)
            if index is None:
                index = self._services[key] = NamedEndpoints(state)
            return index

    def has_namespace(self, snapshot: Snapshot, namespace: str) -> bool:
        with self._lock:
            self._follow(snapshot)
            return namespace in self._namespaces

    def names_of(self, snapshot: Snapshot, ip: str) -> list[str]:
        """Return the names of an address, like ``web.shop``: a Service's, or else endpoints'."""
        with self._lock:
            self._addresses.follow(snapshot)
            return self._addresses.names_of(ip)

    def _follow(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is snapshot:
            return
        for key in differing_keys(before.services, snapshot.services):
            self._services.pop(key, None)
            change = (key in snapshot.services) - (key in before.services)
            self._namespaces[key.namespace] += change
            if not self._namespaces[key.namespace]:
                del self._namespaces[key.namespace]


class _AddressIndex:
    """The names of each address, with how often each is listed."""

    def __init__(self) -> None:
        self._snapshot = _EMPTY
        self._of_services: dict[str, dict[str, int]] = {}
        self._of_endpoints: dict[str, dict[str, int]] = {}

    def names_of(self, ip: str) -> list[str]:
        services = self._of_services.get(ip)
        return [max(services)] if services else list(self._of_endpoints.get(ip, ()))

    def follow(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is snapshot:
            return
        for key in differing_keys(before.services, snapshot.services):
            old, new = before.services.get(key), snapshot.services.get(key)
            name = f"{key.name}.{key.namespace}"
            for state, count in ((old, -1), (new, 1)):
                for ip in state.service.cluster_ips if state is not None else ():
                    _count(self._of_services, ip, name, count)
            gone, added = _slices_of(old), _slices_of(new)
            for slices, others, count in ((gone, added, -1), (added, gone, 1)):
                for ip, label in _labels(slices[each] for each in slices.keys() - others.keys()):
                    _count(self._of_endpoints, ip, f"{label}.{name}", count)


def _slices_of(state: ServiceState | None) -> dict[int, EndpointSlice]:
    """Return slices by identity: what hasn't changed is the same object in both states."""
    return {id(item): item for item in (state.slices if state is not None else ())}


def _labels(slices: Iterable[EndpointSlice]) -> Iterator[tuple[str, str]]:
    for item in slices:
        for endpoint in item.endpoints:
            if endpoint.ready:
                yield endpoint.ip, hostname_of(endpoint.ip, endpoint.hostname)


def _count(names: dict[str, dict[str, int]], ip: str, name: str, count: int) -> None:
    of_ip = names.setdefault(ip, {})
    of_ip[name] = of_ip.get(name, 0) + count
    if not of_ip[name]:
        del of_ip[name]
        if not of_ip:
            del names[ip]
