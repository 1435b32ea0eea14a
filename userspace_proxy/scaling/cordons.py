"""Cordons Services: this node sends no new clients to their current endpoints for some time.

    answer to a round ──▶ cordoned ──scaled to zero──▶ asleep ──its pods are gone──▶ served again
                             │ not scaled, or                └──woken, its pods stay──▶ served again
                             └──expired──▶ served again

Rule 1: a workload isn't woken while its pods may be about to terminate: a controller that sees both
changes together keeps the cordoned pods, and clients would wait for a new pod until a timeout.
Rule 2: pods of a workload that was scaled to zero serve again only if they still exist once the
workload has a replica: until then, its controller may delete them at any moment.
Rule 3: a terminating pod receives no client even after the acknowledgement has expired.
Rule 4: an acknowledgement is written to disk before the answer is sent, and the next process of
this node restores it before it opens a listener. The acknowledgements of a round without effect are
removed from disk. Earlier acknowledgements stay, each with its own time, while their Services are
cordoned.
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
from .lease_notes import NodeAnswer, Vote
from .served import ServedByName, WorkloadKey, ready_endpoints, workload_of

_log = FieldLogger("userspace_proxy.agent")

CORDON_S = 20.0
"""How long an acknowledgement is valid: longer than the holder takes for a round and its update."""
ENDS_S = 10.0
"""How long a workload that was scaled to zero isn't woken while it has pods: its controller deletes
the pods within a second, or within a few seconds if it is busy."""


class _Cordon(NamedTuple):
    """A Service that is cordoned for a round whose result isn't known yet."""

    number: str
    """The round's number."""
    until: float
    """When the cordon expires, in monotonic seconds."""


@dataclass(slots=True)
class _Sleep:
    """A Service whose workload was scaled to zero."""

    since: float
    """When the workload was scaled, in monotonic seconds."""
    is_woken: bool = False
    """Whether the workload has a replica again, and its pods have stayed."""


class _KeptCordon(NamedTuple):
    """An acknowledgement on disk."""

    number: str
    """The round's number."""
    at: float
    """The Unix time when it was first written."""


class Cordons:
    """The acknowledgements of one node, stored in a file for the next process."""

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
        self._cordons: dict[ServiceKey, _Cordon] = {}
        self._asleep: dict[ServiceKey, _Sleep] = {}
        self._kept: dict[ServiceKey, _KeptCordon] = {}
        """The acknowledgements that the next process would restore, the latest round last."""

    async def restore(self) -> NodeAnswer:
        """Restore the previous process's unexpired acknowledgements; return an answer with them.

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
            _log.warning(
                "cannot read saved cordon acknowledgements, ignoring them: %(cause)s",
                extra={"cause": str(exc)},
            )
            return NodeAnswer()
        for service, (cordon, cordoned) in kept.items():
            left_s = min(CORDON_S, cordon.at + CORDON_S - self._wall_clock())
            if left_s > 0:
                self._served_ports.cordoned.set(service, cordoned)
                self._cordons[service] = _Cordon(cordon.number, self._clock() + left_s)
                self._kept[service] = cordon
        return NodeAnswer(*_latest(self._kept))

    async def keep(self, number: str) -> None:
        """Write a round's acknowledgements to disk, for the next process of this node.

        Raises:
            UserspaceProxyError: The write failed; the round's acknowledgements are withdrawn.
        """
        cordoned_now = [key for key, cordon in self._cordons.items() if cordon.number == number]
        if self._file is None or not cordoned_now:
            return
        kept = {
            key: before for key, before in self._still_kept().items() if key not in cordoned_now
        }
        kept |= dict.fromkeys(cordoned_now, _KeptCordon(number, self._wall_clock()))
        try:
            await self._write(kept)
        except UserspaceProxyError:
            for service in cordoned_now:
                self.release(service)
            raise
        self._kept = kept

    async def forget_ended(self) -> None:
        """Remove Services that are no longer cordoned from disk."""
        kept = self._still_kept()
        if len(kept) == len(self._kept):
            return
        self._kept = kept
        try:
            await self._write(kept)
        except UserspaceProxyError as exc:
            text = "cannot remove ended cordons from disk, so a restart restores them: %(cause)s"
            _log.warning(text, extra={"cause": str(exc)})

    def cordon(self, service: ServiceKey, number: str, until: float) -> None:
        """Send no new clients to a Service's endpoints until the vote ends or ``until`` has passed.

        Args:
            until: Monotonic seconds from which :meth:`release_late` may uncordon the Service.
        """
        self._served_ports.cordon(service, is_cordoned=True)
        self._asleep.pop(service, None)
        self._cordons[service] = _Cordon(number, until)

    def end(self, over: Vote | None) -> list[ServiceKey]:
        """End a vote (None: all votes); return the Services whose workload it scaled to zero."""
        asleep = []
        for service, cordon in list(self._cordons.items()):
            if over is not None and over.number != cordon.number:
                continue
            if over is not None and service in over.services:
                del self._cordons[service]
                self._asleep[service] = _Sleep(self._clock())
                asleep.append(service)
            else:
                self.release(service)
        return asleep

    def release(self, service: ServiceKey) -> None:
        """Uncordon a Service."""
        self._cordons.pop(service, None)
        self._asleep.pop(service, None)
        self._served_ports.cordon(service, is_cordoned=False)

    def release_late(self) -> None:
        """Uncordon Services whose endpoints have all left, or whose cordon expired without effect.

        Unexpired cordons stay. Services at zero are also uncordoned once no port names a workload.
        Call this about once a second, even while the API server is down.
        """
        for service in (*self._cordons, *self._asleep):
            if self._is_late(service):
                self.release(service)

    def are_pods_ending(self, workload: WorkloadKey) -> bool:
        """Return whether a workload's pods may be about to terminate, which forbids waking it."""
        for service in self._services_of(workload):
            sleep = self._asleep.get(service)
            is_recent = sleep is None or self._clock() - sleep.since < ENDS_S
            if is_recent and self._is_ready(service):
                return True
        return False

    def note_woken(self, workload: WorkloadKey) -> None:
        """Record that a workload has a replica; the second call uncordons pods that have stayed."""
        for service in self._services_of(workload):
            sleep = self._asleep.get(service)
            if sleep is not None and self._is_ready(service):
                if sleep.is_woken:
                    self.release(service)
                sleep.is_woken = True

    def _still_kept(self) -> dict[ServiceKey, _KeptCordon]:
        """Return the acknowledgements on disk of Services that are still cordoned."""
        return {
            service: kept
            for service, kept in self._kept.items()
            if service in self._cordons or service in self._asleep
        }

    async def _write(self, kept: dict[ServiceKey, _KeptCordon]) -> None:
        if self._file is not None:
            endpoints = {service: self._served_ports.cordoned.of(service) for service in kept}
            ats = (cordon.at for cordon in reversed(kept.values()))
            at = next(ats, self._wall_clock())
            data = _encode(kept, endpoints)
            await asyncio.to_thread(self._file.write, data, current_at=at)

    def _services_of(self, workload: WorkloadKey) -> list[ServiceKey]:
        return [
            service
            for service in (*self._cordons, *self._asleep)
            if any(workload_of(port) == workload for port in self._served_ports.of_service(service))
        ]

    def _is_late(self, service: ServiceKey) -> bool:
        ports = self._served_ports.of_service(service)
        listed = (e for port in ports for e in port.plan.serving.all_endpoints)
        are_gone = self._served_ports.cordoned.of(service).isdisjoint(listed)
        if (cordon := self._cordons.get(service)) is not None:
            if self._clock() < cordon.until:
                # Endpoints that have gone may be listed again before the round is over.
                return False
            return are_gone or self._is_ready(service)
        # Nothing wakes a workload that no port names.
        return are_gone or not any(map(workload_of, ports))

    def _is_ready(self, service: ServiceKey) -> bool:
        """Return whether a cordoned endpoint is still listed as ready."""
        cordoned = self._served_ports.cordoned.of(service)
        ports = self._served_ports.of_service(service)
        return any(not cordoned.isdisjoint(ready_endpoints(port)) for port in ports)


def _latest(kept: dict[ServiceKey, _KeptCordon]) -> tuple[str, frozenset[ServiceKey]]:
    """Return the number of the latest stored round, and its Services; empty without a round."""
    number = next((kept[service].number for service in reversed(kept)), "")
    return number, frozenset(key for key, cordon in kept.items() if cordon.number == number)


def _encode(
    kept: dict[ServiceKey, _KeptCordon], endpoints: Mapping[ServiceKey, Iterable[SocketAddress]]
) -> bytes:
    """Return a file's content; the time of the latest round is stored separately.

    Versions without the field ``earlier`` read only the latest round.
    """
    number, services = _latest(kept)
    named = {str(service): sorted(endpoints[service]) for service in kept if service in services}
    earlier = {
        str(service): [cordon.number, cordon.at, sorted(endpoints[service])]
        for service, cordon in kept.items()
        if service not in services
    }
    return json.dumps({"round": number, "endpoints": named, "earlier": earlier}).encode()


def _read(file: StateBytes) -> dict[ServiceKey, tuple[_KeptCordon, list[SocketAddress]]]:
    found = json.loads(file.data)
    latest = _KeptCordon(str(found["round"]), file.current_at)
    kept = {
        name: (_KeptCordon(str(number), float(at)), endpoints)
        for name, (number, at, endpoints) in found.get("earlier", {}).items()
    }
    kept |= {name: (latest, endpoints) for name, endpoints in found["endpoints"].items()}
    return {
        ServiceKey(*name.split("/")): (
            cordon,
            [SocketAddress(str(ip), int(port)) for ip, port in endpoints],
        )
        for name, (cordon, endpoints) in kept.items()
    }
