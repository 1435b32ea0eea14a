"""Checks by probes whether an endpoint to which a client's dial failed also fails for this node.

    a client's dial failed ──▶ a probe (Rule 2) ──answered──▶ the client alone is affected
                                                └─failed────▶ the endpoint fails for all

Any program can make its own dials fail: by its source address, its TTL or its own firewall. A
failed dial therefore doesn't affect other clients until a probe has failed.

Rule 1: one probe covers all dials that failed before it completed.
Rule 2: at most ``PER_SECOND`` probes begin in a second; namespaces of Services take turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ...model import DialFailure, Failure, PortKey, ServiceKey, SocketAddress
from ...plane.path_probes import Note, PathProbes
from ...plane.probe_schedule import ProbeSchedule
from ..rounds.served_port import ServedPort

PER_SECOND = 100
"""The maximum number of probes that begin in a second, which take less than 1 % of a core."""


@dataclass(slots=True, eq=False)
class Suspect:
    """A suspected endpoint of one Service port, while its probe is pending."""

    served: ServedPort
    endpoint: SocketAddress
    failure: Failure
    """The failure of the last dial."""
    service: ServiceKey
    """The Service for which the endpoint is probed."""
    failures: int = 1
    """The number of failed dials."""


def make_probes(note: Note) -> PathProbes:
    """Return the object that probes suspected endpoints."""
    return PathProbes(note, ProbeSchedule(random.random, per_second=PER_SECOND))


class Suspects:
    """Probes the suspected endpoints of one proxy.

    Args:
        note: Called once per suspect with the failure of its probe, or None for an answer.
    """

    def __init__(
        self,
        note: Callable[[Suspect, DialFailure | None], None],
        make_probes: Callable[[Note], PathProbes],
    ) -> None:
        self._note = note
        self._probes = make_probes(self._take)
        self._by_endpoint: dict[SocketAddress, dict[PortKey, Suspect]] = {}
        """Suspects by endpoint and Service port."""

    def add(
        self, served: ServedPort, endpoint: SocketAddress, failure: Failure, failures: int = 1
    ) -> None:
        """Suspect an endpoint of a Service port because dials to it have failed, and probe it."""
        of_endpoint = self._by_endpoint.setdefault(endpoint, {})
        if (known := of_endpoint.get(served.group.key)) is not None:
            known.failure = failure
            known.failures += failures
            return
        service = served.plan.key.name.service
        of_endpoint[served.group.key] = Suspect(served, endpoint, failure, service, failures)
        self._probes.add(endpoint, service)

    def close(self) -> None:
        """Stop all probes. Idempotent."""
        self._probes.close()

    def _take(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        for suspect in self._by_endpoint.pop(endpoint, {}).values():
            self._probes.discard(endpoint, suspect.service)
            self._note(suspect, failed)
