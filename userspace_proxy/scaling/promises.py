"""Services whose present endpoints get no new client at this node, and until when.

    answer to a round ──▶ promised ──scaled to zero──▶ asleep ──its pods are gone──▶ served again
                             │ not scaled, or                └──woken, and they stay──▶ served again
                             └──time is up──▶ served again

Rule 1: a workload isn't woken while its pods may be about to end: a controller that sees both
changes at once keeps them, and clients would wait for a pod that never comes.
Rule 2: pods of a workload that was scaled to zero serve again only once it has a replica, and they
have stayed nevertheless: until then they end whenever its controller gets to it.
Rule 3: a pod that terminates takes no client any more, although its time is up.
Rule 4: a promise is on disk before its answer is given, and the next process of this node keeps it
from its first listener on. Once its round has ended without effect, it is there no more. Those of
earlier rounds stay there, each with its own time, while their Services are quiesced.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..clocks import Clocks
from ..errors import UserspaceProxyError
from ..log_fields import FieldLogger
from ..model import ServiceKey, SocketAddress
from ..state_file import StateBytes, StateFile
from .lease_notes import NodeAnswer, Round
from .served import ServedByName, WorkloadKey, ready_endpoints, workload_of

_log = FieldLogger("userspace_proxy.agent")

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


class _KeptPromise(NamedTuple):
    """A promise that is on disk."""

    number: str
    """Of the round."""
    at: float
    """Unix time at which it was written first."""


class Promises:
    """What one node has promised about its Services; the next process knows it from a file."""

    def __init__(
        self,
        served_ports: ServedByName,
        file: StateFile | None = None,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        wall_clock: Callable[[], float] = Clocks.time,
    ) -> None:
        self._served_ports = served_ports
        self._file = file
        self._clock = clock
        self._wall_clock = wall_clock
        self._promised: dict[ServiceKey, _Promise] = {}
        self._asleep: dict[ServiceKey, _Sleep] = {}
        self._kept: dict[ServiceKey, _KeptPromise] = {}
        """What the next process would keep, those of the latest round last."""

    async def restore(self) -> NodeAnswer:
        """Keep what the last process of this node has promised; return its answer.

        Call it before any Service is served.
        """
        if self._file is None:
            return NodeAnswer()
        try:
            found = await asyncio.to_thread(self._file.read)
            if found is None:
                return NodeAnswer()
            kept = _read(found)
        except (UserspaceProxyError, ValueError, TypeError, KeyError, AttributeError) as exc:
            _log.warning("promises of the last run ignored: %(cause)s", extra={"cause": str(exc)})
            return NodeAnswer()
        for service, (promise, quiesced) in kept.items():
            left_s = min(PROMISE_S, promise.at + PROMISE_S - self._wall_clock())
            if left_s > 0:
                self._served_ports.quiesced.set(service, quiesced)
                self._promised[service] = _Promise(promise.number, self._clock() + left_s)
                self._kept[service] = promise
        return NodeAnswer(*_latest(self._kept))

    async def keep(self, number: str) -> None:
        """Have the next process of this node keep what was promised for a round.

        Raises:
            UserspaceProxyError: It wouldn't; nothing is promised any more for that round.
        """
        promised = [key for key, promise in self._promised.items() if promise.number == number]
        if self._file is None or not promised:
            return
        kept = {key: before for key, before in self._still_kept().items() if key not in promised}
        kept |= dict.fromkeys(promised, _KeptPromise(number, self._wall_clock()))
        try:
            await self._write(kept)
        except UserspaceProxyError:
            for service in promised:
                self.release(service)
            raise
        self._kept = kept

    async def forget_ended(self) -> None:
        """Have the next process keep nothing of Services that aren't quiesced any more."""
        kept = self._still_kept()
        if len(kept) == len(self._kept):
            return
        self._kept = kept
        try:
            await self._write(kept)
        except UserspaceProxyError as exc:
            text = "a restart would still keep promises of a round that is over: %(cause)s"
            _log.warning(text, extra={"cause": str(exc)})

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

    def are_pods_ending(self, workload: WorkloadKey) -> bool:
        """Return whether a workload's pods may be about to end, so that waking is too early."""
        for service in self._services_of(workload):
            sleep = self._asleep.get(service)
            is_recent = sleep is None or self._clock() - sleep.since < ENDS_S
            if is_recent and self._is_ready(service):
                return True
        return False

    def note_woken(self, workload: WorkloadKey) -> None:
        """Note that a workload has a replica; the second time, its pods stay."""
        for service in self._services_of(workload):
            sleep = self._asleep.get(service)
            if sleep is not None and self._is_ready(service):
                if sleep.is_woken:
                    self.release(service)
                sleep.is_woken = True

    def _still_kept(self) -> dict[ServiceKey, _KeptPromise]:
        """Return what is on disk about Services that are quiesced now."""
        return {
            service: kept
            for service, kept in self._kept.items()
            if service in self._promised or service in self._asleep
        }

    async def _write(self, kept: dict[ServiceKey, _KeptPromise]) -> None:
        if self._file is not None:
            endpoints = {service: self._served_ports.quiesced.of(service) for service in kept}
            ats = (promise.at for promise in reversed(kept.values()))
            at = next(ats, self._wall_clock())
            data = _encode(kept, endpoints)
            await asyncio.to_thread(self._file.write, data, current_at=at)

    def _services_of(self, workload: WorkloadKey) -> list[ServiceKey]:
        return [
            service
            for service in (*self._promised, *self._asleep)
            if any(workload_of(port) == workload for port in self._served_ports.of_service(service))
        ]

    def _is_late(self, service: ServiceKey) -> bool:
        ports = self._served_ports.of_service(service)
        listed = (e for port in ports for e in port.plan.serving.all_endpoints)
        are_gone = self._served_ports.quiesced.of(service).isdisjoint(listed)
        if (promise := self._promised.get(service)) is not None:
            if self._clock() < promise.until:
                # Endpoints that have gone may be listed again before the round is over.
                return False
            return are_gone or self._is_ready(service)
        # Without one that names a workload, nothing wakes it any more.
        return are_gone or not any(map(workload_of, ports))

    def _is_ready(self, service: ServiceKey) -> bool:
        """Return whether a quiesced endpoint is still listed as ready."""
        quiesced = self._served_ports.quiesced.of(service)
        ports = self._served_ports.of_service(service)
        return any(not quiesced.isdisjoint(ready_endpoints(port)) for port in ports)


def _latest(kept: dict[ServiceKey, _KeptPromise]) -> tuple[str, frozenset[ServiceKey]]:
    """Return the number of the latest round of which something is kept, and its Services."""
    number = next((kept[service].number for service in reversed(kept)), "")
    return number, frozenset(key for key, promise in kept.items() if promise.number == number)


def _encode(
    kept: dict[ServiceKey, _KeptPromise], endpoints: Mapping[ServiceKey, Iterable[SocketAddress]]
) -> bytes:
    """Return a file's content: its time is that of the latest round.

    Versions before ``earlier`` was there read nothing else.
    """
    number, services = _latest(kept)
    named = {str(service): sorted(endpoints[service]) for service in kept if service in services}
    earlier = {
        str(service): [promise.number, promise.at, sorted(endpoints[service])]
        for service, promise in kept.items()
        if service not in services
    }
    return json.dumps({"round": number, "endpoints": named, "earlier": earlier}).encode()


def _read(file: StateBytes) -> dict[ServiceKey, tuple[_KeptPromise, list[SocketAddress]]]:
    found = json.loads(file.data)
    latest = _KeptPromise(str(found["round"]), file.current_at)
    kept = {
        name: (_KeptPromise(str(number), float(at)), endpoints)
        for name, (number, at, endpoints) in found.get("earlier", {}).items()
    }
    kept |= {name: (latest, endpoints) for name, endpoints in found["endpoints"].items()}
    return {
        ServiceKey(*name.split("/")): (
            promise,
            [SocketAddress(str(ip), int(port)) for ip, port in endpoints],
        )
        for name, (promise, endpoints) in kept.items()
    }
