"""Judges what is counted of TCP connections, per endpoint and Service port, by what happened.

    joined, dial failed ─▶ at once: connections, active, saved, failures by kind
    line of the log ─────▶ at rest: bytes, times, and what an end is counted as (``tcp_verdicts``)

A number that isn't sure has a least and a most.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from userspace_proxy.facts import EndpointCounters
from userspace_proxy.facts.histogram import TIMES_BOUNDS_S, Durations
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.connection_ends import EndedBy, EndReason

from .judging import SILENT_S
from .kernel import Watcher
from .model import Sure
from .streams import CONNECTING, OPEN, Stream
from .tcp_verdicts import Judged, inverse

if TYPE_CHECKING:
    from .network import Address
    from .services import Service
    from .sockets import SimulatedSocket
    from .tcp_ends import Relayed
    from .world import World

ORACLES = (
    "counted as it happens",
    "failures by kind",
    "end code",
    "counted ends",
    "counted bytes",
    "counted times",
    "counted waits",
)
_KINDS = {
    errno.ECONNREFUSED: "endpoint_refuses",
    errno.ETIMEDOUT: "endpoint_silent",
    errno.EHOSTUNREACH: "endpoint_unreachable",
    errno.ENETUNREACH: "endpoint_unreachable",
}
_KINDS_COUNTED = sorted(set(_KINDS.values()))
_NOT_COUNTED = EndpointCounters()
_ENDS = (
    "resets",
    "empty",
    "client_aborts",
    "endpoint_aborts",
    "unanswered",
    "unanswered_requests",
)
# Sums are of numbers that a line has with six digits.
_DIGIT_S = 1e-6

Key = tuple[int, SocketAddress]
"""A Service port's number, and one of its endpoints."""


class Range:
    """Numbers by name, each between a least and a most."""

    def __init__(self) -> None:
        self._of: dict[Any, tuple[int, int]] = {}

    def add(self, name: Any, found: Sure = Sure.YES) -> None:
        """Count something that has happened, or may have."""
        least, most = self.of(name)
        self._of[name] = least + (found is Sure.YES), most + (found is not Sure.NO)

    def of(self, name: Any) -> tuple[int, int]:
        """Return the least and the most."""
        return self._of.get(name, (0, 0))

    def found(self, name: Any, counted: int) -> None:
        """Note what was counted, which shows what has happened."""
        self._of[name] = counted, counted


class TcpCounts(Watcher):
    """What must have been counted in one run; passes on what the process does to ``choices``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._watcher: Watcher = world.choices
        self._joined: Counter[int] = Counter()
        self._preserved: Counter[int] = Counter()
        self._joined_at: Counter[Key] = Counter()
        self._active: Counter[Key] = Counter()
        self._failures = Range()
        self._ports = Range()
        self._ends = Range()
        self._answered: dict[Key, float] = {}
        """When a byte of an endpoint first arrived on any connection."""
        self._waited_s: dict[int, list[float]] = {}
        self._first_bytes_s: dict[int, list[float]] = {}
        self._bytes: Counter[tuple[int, str]] = Counter()
        self._waits: Counter[int] = Counter()
        self._has_waited: set[int] = set()

    # -- what happens ------------------------------------------------------------------------------

    def joined(self, relayed: Relayed) -> None:
        """Note that a client is connected to an endpoint."""
        key = relayed.service, relayed.endpoint_at
        self._joined[relayed.service] += 1
        self._joined_at[key] += 1
        self._active[key] += 1
        attempt = self._world.choices.attempts[relayed.number]
        assert attempt.dial is not None, "it was dialled"
        self._preserved[relayed.service] += attempt.dial.is_preserved
        saved = Sure.YES if attempt.tried else Sure.NO
        if self._world.kernel.lacked_at >= relayed.accepted[0]:
            # What a shortage has made of earlier dials isn't known.
            saved = Sure.EITHER
        self._ports.add((relayed.service, "saved"), saved)

    def ended(self, relayed: Relayed, line: dict[str, Any]) -> None:
        """Note and judge what a line of the connection log has."""
        world, key = self._world, (relayed.service, relayed.endpoint_at)
        self._active[key] -= 1
        self._waited_s.setdefault(relayed.service, []).append(line["waited_s"])
        if line["first_byte_s"] is not None:
            self._first_bytes_s.setdefault(relayed.service, []).append(line["first_byte_s"])
        self._bytes[relayed.service, "received_bytes"] += relayed.up_bytes
        self._bytes[relayed.service, "sent_bytes"] += relayed.left.accepted_bytes
        if line["cause"] == EndReason.IDLE:
            is_open = inverse(world.oracles.ends.is_half_closed(relayed))
            self._ports.add((relayed.service, "ended_idle"), is_open)
        first, known = relayed.right.first_read_at, self._answered.get(key)
        if first is not None:
            self._answered[key] = first if known is None else min(first, known)
        others = key in self._answered or any(
            each.right.first_read_at is not None
            for each in world.oracles.ends.open.values()
            if each.endpoint_at == relayed.endpoint_at
        )
        is_by_proxy = line["ended_by"] == EndedBy.PROXY
        judged = Judged(world, relayed, answers_others=others, is_by_proxy=is_by_proxy)
        verdict = judged.verdict()
        for name in _ENDS:
            found = getattr(verdict, name)
            self._ends.add((relayed.service, name), found)
            if found is Sure.EITHER:
                self._judge.excuse("counted ends", "the order of two events is unsure")
            else:
                # The sum shows whether it is so.
                self._judge.right("counted ends")
        code = line["code"] or None
        if len(verdict.codes) > 1 and code in verdict.codes:
            self._judge.excuse("end code", "the order of two events is unsure")
        else:
            why = f"client {relayed.number}: code {code}, not {sorted(map(str, verdict.codes))}"
            self._judge.check("end code", code in verdict.codes, why)

    def waits(self, number: int, service: int) -> None:
        """Note that a client has a place in the waiting room."""
        if number not in self._has_waited:
            self._has_waited.add(number)
            self._waits[service] += 1

    # -- part of Watcher ---------------------------------------------------------------------------

    def accepts(self, sock: SimulatedSocket, client: Stream) -> None:
        """Part of Watcher."""
        self._watcher.accepts(sock, client)

    def connects(self, sock: SimulatedSocket, address: Address) -> None:
        """Part of Watcher."""
        self._watcher.connects(sock, address)

    def connected(self, sock: SimulatedSocket, number: int) -> None:
        """Part of Watcher."""
        if number not in (0, errno.EINPROGRESS):
            self._failed(sock, number)
        self._watcher.connected(sock, number)

    def read_error(self, sock: SimulatedSocket, number: int) -> None:
        """Part of Watcher."""
        if number:
            self._failed(sock, number)
        self._watcher.read_error(sock, number)

    def closes(self, sock: SimulatedSocket) -> None:
        """Part of Watcher."""
        known = self._world.choices.dial_of(sock.core)
        at = self._world.moment()
        # One that has answered within this turn may have been looked at before.
        may_fail = known and (sock.core.state != OPEN or sock.core.moved_at >= at[0])
        if known is not None and may_fail and not self._world.is_closed:
            service, number, dial = known
            least_s, most_s = at[0] - dial.began[1], at[1] - dial.began[0]
            has_ended = number in self._world.oracles.causes
            if most_s >= SILENT_S:
                # What has answered, and reset the connection since, is taken for silent, too.
                is_silent = sock.core.state == CONNECTING
                is_sure = is_silent and least_s >= SILENT_S and not has_ended
                found = Sure.YES if is_sure else Sure.EITHER
                self._failures.add((service, dial.endpoint, "endpoint_silent"), found)
        self._watcher.closes(sock)

    def _failed(self, sock: SimulatedSocket, number: int) -> None:
        known = self._world.choices.dial_of(sock.core)
        kind = _KINDS.get(number)
        if known is not None and kind is not None:
            service, _, dial = known
            self._failures.add((service, dial.endpoint, kind))

    # -- judgements --------------------------------------------------------------------------------

    def look(self) -> None:
        """Judge what is counted at once."""
        for service in self._world.services:
            if service.planned.protocol is not Protocol.TCP:
                continue
            # ``totals`` adds all figures, which takes a tenth of a run.
            parts = [*service.group._parts()]
            for name, right in (("connections", self._joined), ("preserved", self._preserved)):
                counted = sum(getattr(part, name) for part in parts)
                wanted = right[service.number]
                self._equal("counted as it happens", service, name, counted, wanted)
            self._in_range(
                "counted as it happens", service, "saved", service.group.counters.saved, self._ports
            )
            self._look_at_endpoints(service)

    def _look_at_endpoints(self, service: Service) -> None:
        group, number = service.group, service.number
        for endpoint in service.planned.pool:
            counters, key = group.find_counters(endpoint) or _NOT_COUNTED, (number, endpoint)
            active = self._active.get(key, 0)
            name = "active", endpoint
            self._equal("counted as it happens", service, name, counters.active, active)
            if endpoint in service.has_left:
                continue
            joined = self._joined_at.get(key, 0)
            name = "connections", endpoint
            self._equal("counted as it happens", service, name, counters.connections, joined)
            for kind in _KINDS_COUNTED:
                counted = getattr(counters, kind)
                self._in_range("failures by kind", service, (*key, kind), counted, self._failures)

    def settled(self) -> None:
        """Judge the bytes, which are counted now and then."""
        open_ = self._world.oracles.ends.open.values()
        for service in self._world.services:
            if service.planned.protocol is not Protocol.TCP:
                continue
            totals, number = service.group.totals(), service.number
            own = [each for each in open_ if each.service == number]
            moved = {
                "received_bytes": sum(each.up_bytes for each in own),
                "sent_bytes": sum(each.left.accepted_bytes for each in own),
            }
            for name, count in moved.items():
                wanted = self._bytes[number, name] + count
                self._equal("counted bytes", service, name, getattr(totals, name), wanted)

    def at_rest(self, service: Service) -> None:
        """Judge what an end is counted as, once all have ended."""
        group, number = service.group, service.number
        totals = group.totals()
        for name in _ENDS:
            counted = getattr(totals, name)
            if name == "client_aborts":
                counted += group.counters.aborts_after_wait
            self._in_range("counted ends", service, name, counted, self._ends)
        idle = group.counters.ended_idle
        self._in_range("counted ends", service, "ended_idle", idle, self._ports)
        total = group.counters.waits.total
        self._equal("counted waits", service, "waits", total, self._waits[number])
        self._times(service, "connect", group.connect_times, self._waited_s.get(number, []))
        first = self._first_bytes_s.get(number, [])
        self._times(service, "first byte", group.first_byte_times, first)

    def _times(self, service: Service, name: str, counted: Durations, right: list[float]) -> None:
        self._equal("counted times", service, name, counted.count, len(right))
        near_s = _DIGIT_S * (len(right) + 1)
        why = f"{service.label}: {name} times are {counted.seconds} s, not {sum(right)}"
        is_near = abs(counted.seconds - sum(right)) <= near_s
        self._judge.check("counted times", is_near, why)
        if any(abs(each - bound) <= near_s for each in right for bound in TIMES_BOUNDS_S):
            return
        places = Counter(bisect_left(TIMES_BOUNDS_S, each) for each in right)
        wanted = [places[place] for place in range(len(TIMES_BOUNDS_S) + 1)]
        why = f"{service.label}: {name} times are {counted.counts()}, not {wanted}"
        self._judge.check("counted times", counted.counts() == wanted, why)

    def _equal(
        self,
        oracle: str,
        service: Service,
        name: str | tuple[str, SocketAddress],
        counted: int,
        right: int,
    ) -> None:
        if counted == right:
            self._judge.right(oracle)
        else:
            what = name if isinstance(name, str) else f"{name[0]} of {name[1]}"
            self._judge.violate(oracle, f"{service.label} counted {what}: {counted}, not {right}")

    def _in_range(
        self, oracle: str, service: Service, name: Any, counted: int, right: Range
    ) -> None:
        key = name if isinstance(name, tuple) else (service.number, name)
        least, most = right.of(key)
        if not least <= counted <= most:
            why = f"{service.label} counted {key[1:]}: {counted}, not {least} to {most}"
            self._judge.violate(oracle, why)
        elif oracle == "counted ends" or least == most:
            self._judge.right(oracle)
        else:
            # From now on it is sure.
            right.found(key, counted)
            self._judge.excuse(oracle, "the order of two events is unsure")
