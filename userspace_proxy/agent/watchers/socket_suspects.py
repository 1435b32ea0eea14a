"""Finds out whether an endpoint that has failed a client's dial fails this node, too.

    a client's dial failed ──▶ a probe at once, in turn ──answered──▶ it is the client's own affair
                                                        └─failed────▶ the endpoint fails for all

Any program can have its own dials fail: by its source address, its TTL, a firewall of its own. So
one that has failed says nothing to others before a probe has.

Rule 1: one probe answers for all dials that had failed before its end.
Rule 2: no more probes begin in a second than ``PER_SECOND``; namespaces of Services have turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ...kernel.bpf.socket_maps import EventKind
from ...model import DialFailure, PortKey, ServiceKey, SocketAddress
from ...plane.path_probes import Note, PathProbes
from ...plane.probe_schedule import ProbeSchedule
from ..rounds.served_port import ServedPort

PER_SECOND = 100
"""They take less than a hundredth of a core, whatever clients do."""


@dataclass(slots=True, eq=False)
class Suspect:
    """An endpoint of one Service port, until the end of its probe."""

    served: ServedPort
    endpoint: SocketAddress
    kind: EventKind
    """How the last dial failed."""
    service: ServiceKey
    """For which it is probed."""
    failures: int = 1
    """Dials that have failed."""


def open_probes(note: Note) -> PathProbes:
    """Return what probes suspected endpoints."""
    return PathProbes(note, ProbeSchedule(random.random, per_second=PER_SECOND))


class Suspects:
    """The suspected endpoints of one proxy.

    Args:
        note: Called once for each, with why its probe failed, None for an answer.
        open_probes: Opens what probes endpoints, once the first one has to be.
    """

    def __init__(
        self,
        note: Callable[[Suspect, DialFailure | None], None],
        open_probes: Callable[[Note], PathProbes],
    ) -> None:
        self._note = note
        self._open_probes = open_probes
        self._probes: PathProbes | None = None
        self._by_endpoint: dict[SocketAddress, dict[PortKey, Suspect]] = {}
        """By the name of the Service port, too."""

    def add(
        self, served: ServedPort, endpoint: SocketAddress, kind: EventKind, failures: int = 1
    ) -> None:
        """Suspect an endpoint of a Service port, as dials have failed."""
        of_endpoint = self._by_endpoint.setdefault(endpoint, {})
        if (known := of_endpoint.get(served.group.key)) is not None:
            known.kind = kind
            known.failures += failures
            return
        service = served.plan.key.name.service
        of_endpoint[served.group.key] = Suspect(served, endpoint, kind, service, failures)
        if self._probes is None:
            self._probes = self._open_probes(self._take)
        self._probes.add(endpoint, service)

    def close(self) -> None:
        """End all probes. Idempotent."""
        if self._probes is not None:
            self._probes.close()

    def _take(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        for suspect in self._by_endpoint.pop(endpoint, {}).values():
            if self._probes is not None:
                self._probes.discard(endpoint, suspect.service)
            self._note(suspect, failed)
