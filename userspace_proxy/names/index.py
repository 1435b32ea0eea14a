"""Indexes all Services by key and namespace, and their names by address.

Rule 1: an index is updated by the differences between snapshots, so the cost of a change depends
only on the changed slices.
Rule 2: names of addresses are indexed at the first reverse look-up, because few clients make one.
Rule 3: slow work is done in a thread before a question is answered: see :meth:`NameIndex.prepare`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from ..cluster import Snapshot, count_new, differing_keys, differing_slices
from ..model import EndpointSlice, ServiceKey
from ..shares import add_to
from .endpoints import AT_ONCE, NamedEndpoints
from .question import hostname_of

_EMPTY = Snapshot({})


class NameIndex:
    """Indexes that successive snapshots share; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = _EMPTY
        self._namespaces: Counter[str] = Counter()
        self._services: dict[ServiceKey, NamedEndpoints] = {}
        self._addresses = _AddressIndex()
        self._preparing = threading.Lock()
        """Held during slow work, and for access to the names of addresses."""

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
        """Return an address's names, such as ``web.shop``: of one Service, or else of endpoints."""
        with self._preparing:
            self._addresses.follow(snapshot)
            return self._addresses.names_of(ip)

    def has_addresses(self, snapshot: Snapshot) -> bool:
        """Return whether :meth:`names_of` takes at most a few milliseconds without ``prepare``."""
        return self._addresses.is_near(snapshot)

    def prepare(
        self, snapshot: Snapshot, key: ServiceKey | None = None, port: str = "", protocol: str = ""
    ) -> None:
        """Do the slow work for a question about a Service; without ``key``, about an address."""
        with self._preparing:
            if key is None:
                self._addresses.follow(snapshot)
            elif (index := self.of_service(snapshot, key)) is not None:
                index.endpoints(port, protocol)

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
    """The names of each address, and the number of times that each name is listed."""

    def __init__(self) -> None:
        self._snapshot = _EMPTY
        self._of_services: dict[str, dict[str, int]] = {}
        self._of_endpoints: dict[str, dict[str, int]] = {}
        self._only: dict[str, str] = {}
        """Names of addresses that are listed once, to save memory; ``.suffix`` for derived
        labels."""

    def names_of(self, ip: str) -> list[str]:
        if services := self._of_services.get(ip):
            return [max(services)]
        label = hostname_of(ip, "")
        names = [self._only[ip]] if ip in self._only else self._of_endpoints.get(ip, ())
        full = (f"{label}{name}" if name[0] == "." else name for name in names)
        return list(dict.fromkeys(full))

    def is_near(self, snapshot: Snapshot) -> bool:
        """Return whether a snapshot differs so little from the last one that updates are fast."""
        left, before, now = AT_ONCE, self._snapshot.services, snapshot.services
        for key in differing_keys(before, now):
            left -= 1 + count_new(before.get(key), now.get(key))
            if left < 0:
                return False
        return True

    def follow(self, snapshot: Snapshot) -> None:
        before = self._snapshot
        if before is snapshot:
            return
        for key in differing_keys(before.services, snapshot.services):
            old, new = before.services.get(key), snapshot.services.get(key)
            name = f"{key.name}.{key.namespace}"
            for state, count in ((old, -1), (new, 1)):
                for ip in state.service.cluster_ips if state is not None else ():
                    add_to(self._of_services, ip, name, count)
            for gone, added in differing_slices(old, new):
                for item, count in ((gone, -1), (added, 1)):
                    for ip, full in _names(item, f".{name}"):
                        self._count(ip, full, count)
        # Set this last: until then, ``is_near`` tells other threads to prepare.
        self._snapshot = snapshot

    def _count(self, ip: str, name: str, count: int) -> None:
        only = self._only.pop(ip, "")
        if count > 0 and not only and ip not in self._of_endpoints:
            self._only[ip] = name
        elif count > 0 or only != name:
            if only:
                add_to(self._of_endpoints, ip, only, 1)
            add_to(self._of_endpoints, ip, name, count)


def _names(item: EndpointSlice | None, behind: str) -> Iterator[tuple[str, str]]:
    for endpoint in item.endpoints if item is not None else ():
        if endpoint.ready:
            # Memory: for an endpoint without a hostname, this is ``behind`` itself, not a copy.
            yield endpoint.ip, endpoint.hostname + behind
