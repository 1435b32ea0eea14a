"""Cordons endpoints, which get no new clients, before their workload is scaled to zero.

Rule 1: open connections and flows continue, regardless of ``on-endpoint-removal``.
Rule 2: a cordon applies only to endpoints that existed when it began; newer endpoints serve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import msgspec

from .addresses import SocketAddress
from .names import ServiceKey
from .serving import Serving


class Cordoned:
    """The cordoned endpoints of one proxy, by Service."""

    def __init__(self) -> None:
        self._of: dict[ServiceKey, frozenset[SocketAddress]] = {}

    def set(self, service: ServiceKey, endpoints: Iterable[SocketAddress]) -> None:
        """Replace the cordoned endpoints of a Service; without any, it is served as planned."""
        self._of[service] = frozenset(endpoints)
        if not self._of[service]:
            del self._of[service]

    def of(self, service: ServiceKey) -> frozenset[SocketAddress]:
        return self._of.get(service, frozenset())

    def lead(self, service: ServiceKey, serving: Serving) -> Serving:
        """Return a ``Serving`` whose cordoned endpoints are leaving; unchanged without ``hold``."""
        cordoned = self._of.get(service)
        # Without ``hold``, clients would be refused instead of waiting.
        if not cordoned or serving.handling.hold is None:
            return serving

        def others(endpoints: tuple[SocketAddress, ...]) -> tuple[SocketAddress, ...]:
            return tuple(endpoint for endpoint in endpoints if endpoint not in cordoned)

        present = tuple(e for e in serving.all_endpoints if e in cordoned)
        return msgspec.structs.replace(
            serving,
            endpoints=others(serving.endpoints),
            outside=None if serving.outside is None else others(serving.outside),
            weights=tuple(pair for pair in serving.weights if pair[0] not in cordoned),
            standbys=tuple(pair for pair in serving.standbys if pair[0] not in cordoned),
            leaving=tuple(dict.fromkeys((*serving.leaving, *present))),
            handling=dataclasses.replace(serving.handling, removal_s=None),
        )
