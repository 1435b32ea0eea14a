"""Decides which Service port gets a listener, and which gives one up, when there are no more.

    one namespace above an eighth ──▶ it gives listeners up, for namespaces below an eighth
    in it, one Service above an eighth ──▶ also for its own Services below an eighth

Rule 1: below the limit, a namespace or a Service may have all listeners.
Rule 2: what becomes free goes to the namespace, and in it to the Service, with the fewest.
Rule 3: the Service with the most gives up the Service port that was opened last, with all its
listeners. Its clients are refused from then on; its open connections continue.
Rule 4: no giver falls below an eighth, so a Service port with too many listeners for that keeps
them, and only those below an eighth receive: nothing goes to and fro.

The shares are those of connections (ADR 0015), with a namespace in place of a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...model import PortKey, ServiceKey
from ...policy.shares import client_share


class _Tree:
    """Numbers of Service ports, added up by Service and by namespace."""

    def __init__(self) -> None:
        self.total = 0
        self.of_namespace: Counter[str] = Counter()
        self.of_service: Counter[ServiceKey] = Counter()
        self.services: dict[str, dict[ServiceKey, dict[PortKey, int]]] = {}
        """Without those whose number is 0; the one that was added last is the last."""

    def put(self, key: PortKey, number: int) -> None:
        service, namespace = key.name.service, key.name.namespace
        services = self.services.setdefault(namespace, {})
        ports = services.setdefault(service, {})
        change = number - ports.get(key, 0)
        self.total += change
        self.of_namespace[namespace] += change
        self.of_service[service] += change
        ports[key] = number
        if not number:
            del ports[key]
            if not ports:
                del services[service], self.of_service[service]
            if not services:
                del self.services[namespace], self.of_namespace[namespace]


class ListenerShares:
    """The Service ports of one proxy that have listeners, and those that lack one.

    A decision costs as much as there are namespaces, and Services of one namespace; where Service
    ports have several listeners, at most as much as there are listeners.
    """

    def __init__(self) -> None:
        self._held, self._waiting = _Tree(), _Tree()

    def others_wait(self, key: PortKey) -> bool:
        return self._waiting.total > self.is_waiting(key)

    def is_waiting(self, of: PortKey | ServiceKey) -> bool:
        """Return whether a Service port, or a port of a Service, lacks a listener."""
        if isinstance(of, ServiceKey):
            return of in self._waiting.of_service
        return of in self._waiting.services.get(of.name.namespace, {}).get(of.name.service, {})

    def hold(self, key: PortKey, listeners: int) -> None:
        """Note how many listeners a Service port has."""
        self._held.put(key, listeners)

    def wait(self, key: PortKey) -> None:
        """Note that a Service port lacks a listener. Idempotent."""
        self._waiting.put(key, 1)

    def end(self, key: PortKey) -> None:
        """Note that a Service port lacks none, or is gone. Idempotent."""
        self._waiting.put(key, 0)

    def next_waiting(self) -> PortKey | None:
        """Return the Service port that gets the next listener; None: none lacks one."""
        services = self._waiting.services
        if not services:
            return None
        namespace = min(services, key=self._held.of_namespace.__getitem__)
        service = min(services[namespace], key=self._held.of_service.__getitem__)
        return next(iter(services[namespace][service]))

    def givers(self) -> Iterator[PortKey]:
        """Yield Service ports that are to give up their listeners for others that wait.

        The caller notes that each of them has none before it takes the next.
        """
        held, waiting = self._held, self._waiting
        share = client_share(held.total)
        if held.total <= share:
            return
        for namespace in sorted(waiting.services, key=held.of_namespace.__getitem__):
            room = share - held.of_namespace[namespace]
            if room <= 0:
                yield from self._givers_within(namespace, share)
                continue
            for _ in range(min(room, waiting.of_namespace[namespace])):
                giver = self._giver(share)
                if giver is None:
                    return
                yield giver

    def excess(self, key: PortKey) -> str:
        """Return that the Service or namespace of a Service port has its share; empty if not."""
        held, (namespace, service) = self._held, (key.name.namespace, key.name.service)
        share = client_share(held.total)
        if held.of_service[service] >= share:
            return f"Service {service} has {held.of_service[service]:,} of {held.total:,} listeners"
        if held.of_namespace[namespace] >= share:
            count = held.of_namespace[namespace]
            return f"namespace {namespace} has {count:,} of {held.total:,} listeners"
        return ""

    def _givers_within(self, namespace: str, share: int) -> Iterator[PortKey]:
        """Yield Service ports of a Service above its share, for others of its namespace."""
        held, waiting = self._held.of_service, self._waiting
        for service in sorted(waiting.services[namespace], key=held.__getitem__):
            for _ in range(min(share - held[service], waiting.of_service[service])):
                giver = self._giver_within(namespace, share)
                if giver is None:
                    return
                yield giver

    def _giver(self, share: int) -> PortKey | None:
        """Return a Service port without which its namespace still has its share."""
        held = self._held.of_namespace
        for namespace in sorted(held, key=held.__getitem__, reverse=True):
            excess = held[namespace] - share
            if excess <= 0:
                break
            for service in self._largest_first(namespace):
                if giver := self._last_of(service, excess):
                    return giver
        return None

    def _giver_within(self, namespace: str, share: int) -> PortKey | None:
        """Return a Service port without which its Service still has its share."""
        for service in self._largest_first(namespace):
            excess = self._held.of_service[service] - share
            if excess <= 0:
                break
            if giver := self._last_of(service, excess):
                return giver
        return None

    def _largest_first(self, namespace: str) -> list[ServiceKey]:
        """Return the Services by their listeners; of those that have as many, the newest first."""
        services = self._held.services[namespace]
        return sorted(services, key=self._held.of_service.__getitem__)[::-1]

    def _last_of(self, service: ServiceKey, excess: int) -> PortKey | None:
        """Return the Service port opened last that has at most that many listeners."""
        ports = self._held.services[service.namespace][service]
        return next((port for port in reversed(ports) if ports[port] <= excess), None)
