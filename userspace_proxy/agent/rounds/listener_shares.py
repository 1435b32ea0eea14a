"""Decides, at the listener limit, which Service port gets a listener and which gives one up.

    one namespace above an eighth of all ──▶ gives up listeners, for namespaces below an eighth
    in it, one Service above an eighth ──▶ also for its own Services below an eighth

Rule 1: below the limit, a namespace or Service may use any number of listeners.
Rule 2: a freed listener goes to the namespace, and in it to the Service, with the fewest listeners.
Rule 3: the Service with the most listeners gives up its last opened Service port, with all
listeners of that port. Its clients are refused from then on; its open connections continue.
Rule 4: a giver keeps at least an eighth: no Service port is given up if that would leave less. Only
receivers below an eighth get listeners. Listeners therefore don't move back and forth.

Shares are computed as for connections (ADR 0015), with namespaces instead of clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from ...model import PortKey, ServiceKey
from ...policy.shares import client_share
from ...shares import Amounts

K = TypeVar("K")


class _Listeners:
    """Listener counts of Service ports, with sums by Service and by namespace."""

    def __init__(self) -> None:
        self.services = Amounts[ServiceKey, PortKey]()
        self.namespaces = Amounts[str, ServiceKey]()

    def put(self, key: PortKey, number: int) -> None:
        service = key.name.service
        self.services.put(service, key, number)
        self.namespaces.put(service.namespace, service, self.services.of_group[service])


class ListenerShares:
    """The Service ports of one proxy that have, or lack, listeners.

    A decision costs O(namespaces + Services in one namespace); if Service ports have several
    listeners, at most O(listeners).
    """

    def __init__(self) -> None:
        self._held, self._waiting = _Listeners(), _Listeners()

    def others_wait(self, key: PortKey) -> bool:
        return self._waiting.services.total > self.is_waiting(key)

    def is_waiting(self, of: PortKey | ServiceKey) -> bool:
        """Return whether a Service port, or any port of a Service, lacks a listener."""
        waiting = self._waiting.services
        if isinstance(of, ServiceKey):
            return of in waiting.holders
        return waiting.of(of.name.service, of) > 0

    def hold(self, key: PortKey, listeners: int) -> None:
        """Record the number of listeners of a Service port."""
        self._held.put(key, listeners)

    def wait(self, key: PortKey) -> None:
        """Record that a Service port lacks a listener. Idempotent."""
        self._waiting.put(key, 1)

    def end(self, key: PortKey) -> None:
        """Record that a Service port no longer lacks a listener, or was removed. Idempotent."""
        self._waiting.put(key, 0)

    def next_waiting(self) -> PortKey | None:
        """Return the Service port that gets the next listener; None if no port lacks one."""
        held, waiting = self._held, self._waiting
        if not waiting.services.total:
            return None
        namespace = min(waiting.namespaces.holders, key=held.namespaces.of_group.__getitem__)
        service = min(waiting.namespaces.holders[namespace], key=held.services.of_group.__getitem__)
        return next(iter(waiting.services.holders[service]))

    def givers(self) -> Iterator[PortKey]:
        """Yield Service ports that should give up their listeners for waiting Service ports.

        Before the next iteration, the caller records that the yielded port has no listeners.
        """
        share = client_share(self._held.services.total)
        for within, count in self._receivers(share):
            for _ in range(count):
                giver = self._giver(within, share)
                if giver is not None:
                    yield giver
                elif within:
                    break
                else:
                    return

    def excess(self, key: PortKey) -> str:
        """Return why a Service port may not get more listeners; empty if it may."""
        held, service = self._held, key.name.service
        total = held.services.total
        for scope, count in (
            (f"Service {service}", held.services.of_group[service]),
            (f"namespace {service.namespace}", held.namespaces.of_group[service.namespace]),
        ):
            if count >= client_share(total):
                return f"{scope} has {count:,} of {total:,} listeners"
        return ""

    def _receivers(self, share: int) -> Iterator[tuple[str, int]]:
        """Yield namespaces in which to find givers, and how many waiting ports they may supply.

        An empty namespace stands for all: the waiting ports are in a namespace below its share.
        """
        held, waiting = self._held, self._waiting
        namespaces, services = held.namespaces.of_group, held.services.of_group
        for namespace in sorted(waiting.namespaces.holders, key=namespaces.__getitem__):
            room = share - namespaces[namespace]
            if room > 0:
                yield "", min(room, waiting.namespaces.of_group[namespace])
                continue
            own = waiting.namespaces.holders[namespace]
            for service in sorted(own, key=services.__getitem__):
                yield namespace, min(share - services[service], own[service])

    def _giver(self, within: str, share: int) -> PortKey | None:
        """Return a Service port that should give up its listeners; None without such a port.

        Args:
            within: The namespace in which a Service has too many listeners; empty if a namespace
                has too many.
        """
        held = self._held
        largest = iter([("", 0)]) if within else _largest_first(held.namespaces.of_group)
        for namespace, total in largest:
            for service, number in _largest_first(held.namespaces.holders[within or namespace]):
                excess = (number if within else total) - share
                if excess <= 0:
                    return None
                ports = held.services.holders[service]
                if port := next((one for one in reversed(ports) if ports[one] <= excess), None):
                    return port
        return None


def _largest_first(amounts: dict[K, int]) -> Iterator[tuple[K, int]]:
    """Yield amounts, largest first; among equal amounts, the newest first."""
    # Cost: callers nearly always take only the first amount, so don't sort the rest for it.
    if amounts:
        yield max(reversed(amounts.items()), key=lambda item: item[1])
        yield from sorted(amounts.items(), key=lambda item: item[1])[-2::-1]
