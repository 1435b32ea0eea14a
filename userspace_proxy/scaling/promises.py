"""Services whose present endpoints get no new client at this node, and until when.

    answer to a round ──▶ promised ──scaled to zero──▶ asleep ──its pods are gone──▶ served again
                             │ not scaled, or                └──woken, and they stay──▶ served again
                             └──time is up──▶ served again

Rule 1: a workload isn't woken while its pods may be about to end: a controller that sees both
changes at once keeps them, and clients would wait for a pod that never comes.
Rule 2: pods of a workload that was scaled to zero serve again only once it has a replica, and they
have stayed nevertheless: until then they end whenever its controller gets to it.
Rule 3: a pod that terminates takes no client any more, although its time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..model import ServiceKey
from ..policy.usable import TERMINATING
from .lease_notes import Round
from .served import ServedByName

PROMISE_S = 20.0
"""How long an answer holds: longer than the holder takes for a round and its update."""
ENDS_S = 10.0
"""How long a workload that was scaled to zero isn't woken because its pods haven't ended: its
controller takes less than a second, and some when it is busy."""


class _Promise(NamedTuple):
    """A Service that is quiesced for a round whose result isn't known yet."""

    number: str
    """Of the round."""
    until: float
    """Monotonic seconds."""


@dataclass(slots=True)
class _Sleep:
    """A Service whose workload was scaled to zero."""

    since: float
    """Monotonic seconds."""
    is_woken: bool = False
    """The workload has had a replica again while its pods stayed."""


class Promises:
    """What one node has promised about its Services."""

    def __init__(
        self, served_ports: ServedByName, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._served_ports = served_ports
        self._clock = clock
        self._promised: dict[ServiceKey, _Promise] = {}
        self._asleep: dict[ServiceKey, _Sleep] = {}

    def promise(self, service: ServiceKey, number: str, until: float) -> None:
        """Lead no client to a Service's endpoints until the round is over, or the time is up."""
        self._served_ports.quiesce(service, is_quiesced=True)
        self._asleep.pop(service, None)
        self._promised[service] = _Promise(number, until)

    def end(self, over: Round | None) -> list[ServiceKey]:
        """End a round, or without one all of them; return Services that are asleep from now on."""
        asleep = []
        for service, promise in list(self._promised.items()):
            if over is not None and over.number != promise.number:
                continue
            if over is not None and service in over.services:
                del self._promised[service]
                self._asleep[service] = _Sleep(self._clock())
                asleep.append(service)
            else:
                self.release(service)
        return asleep

    def release(self, service: ServiceKey) -> None:
        """Serve the clients of a Service as planned again."""
        self._promised.pop(service, None)
        self._asleep.pop(service, None)
        self._served_ports.quiesce(service, is_quiesced=False)

    def release_late(self) -> None:
        """Serve clients as planned again where no endpoint is left, or the time is up.

        Call it about each second, whatever becomes of requests to the server.
        """
        for service in (*self._promised, *self._asleep):
            if self._is_late(service):
                self.release(service)

    def are_pods_ending(self, service: ServiceKey) -> bool:
        """Return whether a Service's pods may be about to end, so that waking is too early."""
        sleep = self._asleep.get(service)
        if sleep is None:
            return service in self._promised and self._is_ready(service)
        return self._clock() - sleep.since < ENDS_S and self._is_ready(service)

    def note_woken(self, service: ServiceKey) -> None:
        """Note that the workload of a Service has a replica; the second time, its pods stay."""
        sleep = self._asleep.get(service)
        if sleep is None or not self._is_ready(service):
            return
        if sleep.is_woken:
            self.release(service)
        sleep.is_woken = True

    def _is_late(self, service: ServiceKey) -> bool:
        ports = self._served_ports.of_service(service)
        listed = (e for port in ports for e in port.plan.serving.all_endpoints)
        if self._served_ports.quiesced.of(service).isdisjoint(listed):
            return True
        if (promise := self._promised.get(service)) is not None:
            return self._clock() >= promise.until and self._is_ready(service)
        # Nothing wakes it any more.
        return all(port.plan.serving.handling.wake is None for port in ports)

    def _is_ready(self, service: ServiceKey) -> bool:
        """Return whether a quiesced endpoint is still listed as ready."""
        quiesced = self._served_ports.quiesced.of(service)
        return any(
            verdict.code is None and verdict.reason != TERMINATING
            for port in self._served_ports.of_service(service)
            for verdict in port.plan.verdicts
            if verdict.address in quiesced
        )
