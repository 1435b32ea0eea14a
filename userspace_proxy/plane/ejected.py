"""Finds out what has become of ejected endpoints that no client dials.

    ejected ──10 s without a dial──▶ probed ──answered──▶ the workers' ejections end
       │                                └──failed──▶ the failure is of now
       └──a dial met silence──▶ the neighbour table: has any host the address?

With ClientIP affinity, or a source hash, clients may keep to other endpoints for hours: nobody
would notice that an endpoint is back, and what failed would be shown as if it were so now.

Rule 1: an endpoint that clients dial is theirs to try: their dials say more than a probe's.
Rule 2: a probe ends an ejection and never prolongs one. A network policy may deny this node, whose
address a probe has, what it grants to clients at their own addresses.
Rule 3: an answer says nothing about an endpoint that accepts connections and resets them, nor about
UDP, where a probe would have to be a datagram. There the words say when it was true.
Rule 4: an endpoint by name isn't probed: only workers ask the kernel whether it is this node.
Rule 5: the neighbour table is read only while a failed dial met silence, and for a twentieth of the
time at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..kernel.neighbours import absent_hosts
from ..model import ServiceKey, SocketAddress
from ..model.serving import Serving
from ..policy.causes import NO_ANSWER, NO_HOST, RESETS
from .group import Group, keys_of_removed
from .messages import Returned
from .path_probes import Note, PathProbes
from .plane import Plane

QUIET_S = 10.0
"""Since the last failed dial of a client; twice the first ejection, after which one would dial."""
FOLLOWED_MAX = 1_000
"""Endpoints of Service ports; more are left to their clients. A look takes 1 ms for them."""
_SHARE = 0.05
# The number of no worker: a message of this process is for all of them.
_NO_WORKER = -1


@dataclass(slots=True, eq=False)
class _Ejected:
    """An endpoint of one Service port, from its ejection to its next answer."""

    group: Group
    endpoint: SocketAddress
    at: float
    """Monotonic seconds of the last failed dial of a client, as far as is known."""
    serving: Serving | None = None
    """The last one that contained the endpoint."""
    probed_for: ServiceKey | None = None
    """The Service for which it is probed; None: it isn't."""


class EjectedEndpoints:
    """The ejected endpoints of one proxy; its owner calls :meth:`look` once a second.

    Args:
        plane: Reports ejections, and takes answers of probes.
        probed_for: Returns the Service of a group whose endpoints can be probed; None: they can't.
        open_probes: Opens what probes endpoints, once the first one has to be.
        absent_hosts: Reads the neighbour table.
    """

    def __init__(
        self,
        plane: Plane,
        probed_for: Callable[[Group], ServiceKey | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        open_probes: Callable[[Note], PathProbes] = PathProbes,
        absent_hosts: Callable[[], Mapping[str, str]] = absent_hosts,
    ) -> None:
        self._plane = plane
        self._probed_for = probed_for
        self._clock = clock
        self._open_probes = open_probes
        self._absent_hosts = absent_hosts
        self._followed: dict[tuple[int, SocketAddress], _Ejected] = {}
        self._probed: dict[SocketAddress, dict[int, _Ejected]] = {}
        """Of these, those that are probed, by the number of their group."""
        self._probes: PathProbes | None = None
        self._read_at = 0.0
        """When the neighbour table may be read again."""
        plane.on_ejection.append(self._note_ejection)

    def close(self) -> None:
        """End all probes."""
        if self._probes is not None:
            self._probes.close()

    def look(self) -> None:
        """Probe what no client has dialled for a while, and look for hosts that aren't there."""
        now = self._clock()
        for key in keys_of_removed(self._followed):
            self._forget(key)
        for one in self._followed.values():
            if one.probed_for is None and now - one.at >= QUIET_S:
                self._probe(one)
        silent = [one for one in self._followed.values() if self._is_silent(one)]
        if silent and now >= self._read_at:
            absent = self._absent_hosts()
            took = self._clock() - now
            self._read_at = now + took / _SHARE
            for one in silent:
                one.group.note_absent(one.endpoint, absent.get(one.endpoint.ip, ""))

    def note(self, endpoint: SocketAddress, number: int) -> None:
        """Take the result of a probe.

        Args:
            number: The error; 0 for an answer.
        """
        now = self._clock()
        for number_of_group, one in list(self._probed.get(endpoint, {}).items()):
            dials = one.group.counters_of(endpoint).dials
            if number:
                dials.still_fails(now, number)
                one.group.revision += 1
            elif dials.number not in RESETS:
                dials.succeeded_at = now
                # It is forgotten by that, as by an answer to a worker.
                self._plane.receive(_NO_WORKER, Returned(number_of_group, endpoint))

    def _note_ejection(self, group: Group, endpoint: SocketAddress, is_ejected: bool) -> None:
        key = group.number, endpoint
        if not is_ejected:
            self._forget(key)
        elif (known := self._followed.get(key)) is not None:
            known.at = self._clock()
        elif len(self._followed) < FOLLOWED_MAX:
            self._followed[key] = _Ejected(group, endpoint, self._clock())

    def _forget(self, key: tuple[int, SocketAddress]) -> None:
        one = self._followed.pop(key, None)
        if one is None:
            return
        one.group.note_absent(one.endpoint, "")
        if one.probed_for is not None and self._probes is not None:
            self._probes.discard(one.endpoint, one.probed_for)
            probed = self._probed[one.endpoint]
            del probed[one.group.number]
            if not probed:
                del self._probed[one.endpoint]

    def _probe(self, one: _Ejected) -> None:
        service = self._probed_for(one.group)
        if service is None:
            return
        dials = one.group.counters_of(one.endpoint).dials
        serving = one.group.serving
        is_detoured = one.endpoint in dict(serving.detours)
        is_by_name = one.endpoint.ip in serving.handling.found_by_name
        if is_detoured or is_by_name or not dials.is_on or dials.number in RESETS:
            return
        if self._probes is None:
            self._probes = self._open_probes(self.note)
        one.probed_for = service
        self._probed.setdefault(one.endpoint, {})[one.group.number] = one
        self._probes.add(one.endpoint, one.probed_for)

    def _is_silent(self, one: _Ejected) -> bool:
        dials = one.group.counters_of(one.endpoint).dials
        return dials.is_on and dials.number in (NO_HOST, *NO_ANSWER)
