"""Decides which Services of a namespace are left out because it has too much of something.

    count of each Service ──▶ smallest first, up to a bound ──▶ served
                                      └── beyond it ──────────▶ left out

Endpoints and frontends are counted: a Service with too many endpoints is refused, and one with too
many frontends isn't planned.

Rule 1: a small Service is never left out because of a larger one of its namespace.
Rule 2: which ones are left out depends on the Services alone, so it is the same on all nodes.
Rule 3: the cost of a change depends on the number of Services in its namespace, and only while the
namespace is above its bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..model import ServiceKey

SERVICE_MAX = 100_000
"""Endpoints and source ranges of one Service, counted for each of its ports, families and sides.

Five ports with 10,000 endpoints of both families; a change of all of them takes less than a second.
"""
NAMESPACE_MAX = 500_000
"""Those of all Services of one namespace, counted likewise.

10,000 Services with 20 endpoints of both families have 400,000, and five of the largest Services
have as many; they take some 130 MiB.
"""
FRONTENDS_OF_SERVICE_MAX = 10_000
"""Frontends of one Service: its ports times their addresses."""
FRONTENDS_OF_NAMESPACE_MAX = 30_000
"""Frontends of all Services of one namespace.

10,000 Services with one port, both families and one load-balancer IP have as many; the default
range of proxy ports has 13,000.
"""


class ServiceCounts:
    """How many of something each Service has, by namespace."""

    def __init__(self) -> None:
        self.total = 0
        self.totals: dict[str, int] = {}
        """By namespace; none is 0."""
        self._counts: dict[str, dict[ServiceKey, int]] = {}
        """By namespace; none is empty."""

    def change(self, gone: Iterable[ServiceKey], counts: Mapping[ServiceKey, int]) -> set[str]:
        """Take the counts that some Services have now; return the namespaces that differ."""
        differing: set[str] = set()
        for key, count in {**counts, **dict.fromkeys(gone, 0)}.items():
            namespace = key.namespace
            services = self._counts.get(namespace, {})
            more = count - services.get(key, 0)
            if not more:
                continue
            differing.add(namespace)
            self.total += more
            self.totals[namespace] = self.totals.get(namespace, 0) + more
            if count:
                self._counts.setdefault(namespace, services)[key] = count
            else:
                del services[key]
                if not services:
                    del self._counts[namespace], self.totals[namespace]
        return differing

    def divide(self, namespace: str, room: int) -> tuple[frozenset[ServiceKey], int]:
        """Return the Services for which there is no room, and how much of it the others take.

        The smallest come first.
        """
        left, left_out = room, set[ServiceKey]()
        for key, count in sorted(self._counts[namespace].items(), key=lambda it: (it[1], it[0])):
            if count > left:
                left_out.add(key)
            else:
                left -= count
        return frozenset(left_out), room - left


class NamespaceShares:
    """How many endpoints, or frontends, each Service has, and which ones are left out.

    Args:
        service_max: Of a Service no more counts: it has none beyond that.
        namespace_max: What all Services of a namespace together may have.
    """

    def __init__(self, service_max: int, namespace_max: int) -> None:
        self._service_max = service_max
        self._namespace_max = namespace_max
        self._counts = ServiceCounts()
        self._left_out: dict[str, frozenset[ServiceKey]] = {}
        """By namespace; none is empty."""

    def is_left_out(self, key: ServiceKey) -> bool:
        return key in self._left_out.get(key.namespace, ())

    def change(
        self, gone: Iterable[ServiceKey], counts: Mapping[ServiceKey, int]
    ) -> set[ServiceKey]:
        """Take the counts that some Services have now.

        Returns:
            The Services that are left out now and weren't before, or the reverse.
        """
        counted = {key: min(count, self._service_max) for key, count in counts.items()}
        changed: set[ServiceKey] = set()
        for namespace in self._counts.change(gone, counted):
            before = self._left_out.pop(namespace, frozenset())
            now = self._choose(namespace)
            if now:
                self._left_out[namespace] = now
            changed |= before ^ now
        return changed

    def _choose(self, namespace: str) -> frozenset[ServiceKey]:
        if self._counts.totals.get(namespace, 0) <= self._namespace_max:
            return frozenset()
        left_out, _ = self._counts.divide(namespace, self._namespace_max)
        return left_out
