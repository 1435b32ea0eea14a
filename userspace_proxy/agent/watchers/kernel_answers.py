"""Monitors whether clients on the kernel path get answers from endpoints.

    counters of rules ── connections that began ──┐
    connection tracking ── answered connections ──┼─▶ no answer ─▶ is this node answered? ─▶ cause
    this node ── its dials without an answer ─────┘                which chain drops them?

Nothing else reveals a firewall that drops forwarded packets: rules translate and count connections
before the firewall, and this node's probes don't pass it.

Rule 1: Service ports with path ``auto`` leave the kernel path; ports with path ``kernel`` show the
cause. Other programs' rules are read only to name the cause.
Rule 2: if the endpoints don't answer this node either, the path isn't at fault. If all fail, their
failure is the cause; if clients of other endpoints are answered, the cause is the failure of the
endpoints that answer neither clients nor this node. UDP can't be probed, and may have no answers:
if all its clients fail, they count only if a chain certainly drops their packets; an endpoint fails
if it answers no client at two checks in a row while another endpoint answers.
Rule 3: connections of this node itself aren't forwarded, and don't count.
Rule 4: a check takes 0.2 % of a core on average, however many connections are tracked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import thread_time

from ...causes.cause import Cause
from ...causes.endpoints import absent, dial_failed, no_datagram
from ...causes.say import say
from ...causes.services import forwarding_dropped, forwarding_unanswered
from ...clocks import Clocks
from ...errors import SteeringError
from ...facts import LAST_MINUTE_S
from ...filters.node import Firewall
from ...kernel.conntrack import PROTOCOL_NUMBERS, DialledBy, connections_at
from ...kernel.ctnetlink import pack_address
from ...kernel.neighbours import absent_hop, own_route_failure
from ...kernel.node_listings import ANY, NodeListings
from ...kernel.one_thread import OneThread
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model import DataPath, DialFailure, Failure, Frontend, Protocol, SocketAddress, pack_ip
from ...model.failures import NO_ANSWER
from ...model.serving import Serving
from ...pacing import Pacing, backoff_s
from ...plane.path_probes import Note, PathProbes
from ...steering import Steering
from ..rounds.component import Component
from ..rounds.kernel_path import endpoints_of
from ..rounds.served_port import ServedPort
from ..rounds.served_ports import ServedPorts
from ..rounds.tasks import Supervisor, pause
from .suspects import Suspect, Suspects, make_probes

_log = FieldLogger("userspace_proxy.agent")

EVERY_S = 2.0
_SHARE = 0.002
# Each pause makes up for this multiple of the last check's CPU time, so that the owed CPU time
# shrinks with each check.
_PAYS = 1.5
BURST_S = 0.1
"""Seconds of CPU time that may be owed while the cause of missing answers is undecided."""
_COUNT_S = 4e-6
"""Seconds to read and compare one counter."""
LOST_MIN = 3
"""The minimum number of unanswered connections that prove a failure if no chain is known to drop
them. While a client's packets are dropped, the kernel keeps no entry, so each SYN counts: three in
three seconds."""
GRACE_S = 2.0
"""Seconds within which an answer may still arrive."""
PROBES_S = 1.5
"""Seconds for which a check waits for the results of its probes."""
AGAIN_S = 30.0
"""The interval at which endpoints are probed while clients still get no answer."""
RETRY_S, RETRY_MAX_S = 60.0, 3600.0
"""Seconds until ``auto`` tries the kernel path again if no chain is known to drop packets, doubling
each time."""
PROBED_MAX = 16
"""The maximum number of probed endpoints of a Service port."""
KNOWN_MAX = 20_000
"""If a frontend has more clients, they aren't stored, and the frontend counts as answered."""

STALE_S = 9.0
"""Entries of reset connections last ten seconds. After a pause longer than this, a check only
records the current state, and another check follows."""
# The tolerance for times: the kernel reports whole seconds.
_JITTER_S = 1.0
_ANSWERED_FOR_S = 30.0
"""How long the kernel keeps the entry of an answered UDP flow (nf_conntrack_udp_timeout)."""
AHEAD_MAX = 64
"""The maximum number of connections that begin between reading the counters and the entries."""

Rules = Callable[[SocketAddress, Protocol], Firewall | None]
"""Returns the chain that drops packets forwarded to an endpoint; None unless that is certain."""


@dataclass(slots=True, eq=False)
class _Traffic:
    """The forwarded connections of a frontend, or this node's reported dials of a Service port."""

    begun: int = 0
    """The number of connections begun, as counted by the kernel."""
    known: Mapping[int, int] = field(default_factory=dict)
    """Connections tracked at the last check, answered or opened here: see ``DialledBy``."""
    known_at: float = 0.0
    ahead: int = 0
    """The number of tracked connections that only the next reading of the counter includes."""
    lost: int = 0
    """The number of unanswered connections since the last answered one."""
    since: float = 0.0
    """When the first of these connections was seen, in monotonic seconds."""
    last: float = 0.0
    silent: frozenset[bytes] = frozenset()
    """The endpoints that answered none of their tracked connections; packed."""
    still_silent: frozenset[bytes] = frozenset()
    """The endpoints that were also silent at the previous check, so no answer is on its way."""
    answered_at: float = 0.0
    """When a reported dial was last answered, in monotonic seconds."""

    def compare(self, begun: int | None, tracked: DialledBy, now: float) -> None:
        """Compare the connections begun since the last check with the tracked connections.

        Args:
            begun: The number of connections begun; None if the last check was too long ago.
        """
        answered, own = self._new(tracked.answered, now), self._new(tracked.own, now)
        missing = 0 if begun is None else begun - answered - own - self.ahead
        self.ahead = min(max(0, -missing), AHEAD_MAX)
        if answered:
            self.lost = 0
        else:
            self.lose(missing, now)
        was_silent = self.silent if now - self.known_at < _ANSWERED_FOR_S else frozenset()
        self.silent, self.still_silent = tracked.silent, tracked.silent & was_silent
        known = {**tracked.answered, **tracked.own}
        self.known = known if len(known) <= KNOWN_MAX else {}
        self.known_at = now

    def _new(self, tracked: Mapping[int, int], now: float) -> int:
        """Return the number of new connections, including those that reuse a client's port."""
        passed_s = now - self.known_at - _JITTER_S
        return sum(
            (had_s := self.known.get(client)) is None
            or (had_s > 0 and (left_s == 0 or left_s > had_s - passed_s))
            for client, left_s in tracked.items()
        )

    def lose(self, count: int, now: float) -> None:
        """Count unanswered connections; the count restarts after a minute without any."""
        if count > 0:
            if not self.is_recent(now):
                self.lost, self.since = 0, now
            self.lost, self.last = self.lost + count, now

    def is_recent(self, now: float) -> bool:
        """Return whether the last new connections, within the last minute, got no answer."""
        return bool(self.lost) and now - self.last < LAST_MINUTE_S

    def is_unanswered(self, now: float) -> bool:
        """Return whether connections have gone unanswered for longer than an answer may take."""
        return self.is_recent(now) and now - self.since >= GRACE_S

    @property
    def is_telling(self) -> bool:
        """Whether too many connections went unanswered to be chance, and no dial was answered."""
        return self.lost >= LOST_MIN and self.answered_at <= self.since


@dataclass(slots=True, eq=False)
class _Doubt:
    """Results of probing the endpoints of a Service port whose clients get no answer."""

    waiting: set[SocketAddress]
    answering: list[SocketAddress] = field(default_factory=list)
    failing: dict[SocketAddress, DialFailure] = field(default_factory=dict)
    until: float = 0.0
    """When to decide the cause again, in monotonic seconds."""


@dataclass(slots=True, eq=False)
class _Away:
    """Why a Service port with path ``auto`` left the kernel path, and when it may return."""

    has_chain: bool
    """Whether a chain drops packets of all clients."""
    times: int
    """The number of consecutive times that the port has left the kernel path."""
    until: float
    """When the port returns if no chain is known to drop packets, in monotonic seconds."""


class KernelAnswers(Component):
    """Watches the answers on the kernel path of one proxy's Service ports.

    Args:
        read_rules: Reads other programs' rules; blocks.
        track: Returns the tracked connections of frontends; blocks.
    """

    def __init__(
        self,
        steering: Steering,
        served_ports: ServedPorts,
        read_rules: Callable[[], Rules],
        *,
        track: Callable[[Mapping[Frontend, Serving]], Mapping[Frontend, DialledBy]] | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
        make_probes: Callable[[Note], PathProbes] = make_probes,
    ) -> None:
        self._steering = steering
        self._served_ports = served_ports
        self._read_rules = read_rules
        self._track = track or list_tracked
        self._clock = clock
        self._thread = OneThread("kernel answers")
        self._owed_s = 0.0
        """Seconds of CPU time for which the next pauses must make up."""
        self._used_s = 0.0
        """The thread's CPU seconds at the last check."""
        self._is_undecided = False
        """Whether clients recently got no answer, and the cause is still undecided."""
        self._looked_at = 0.0
        self._is_stale = True
        """Whether the last check was long after the previous one."""
        self._suspects = Suspects(self._note_probe, make_probes)
        self._has_probed = asyncio.Event()
        self._traffic: dict[Frontend | ServedPort, _Traffic] = {}
        self._doubts: dict[ServedPort, _Doubt] = {}
        self._away: dict[ServedPort, _Away] = {}
        self._condition = LoggedCondition[tuple[str, str]](
            _log,
            "%(service)s: kernel path fails: %(cause)s",
            "kernel path failures resolved",
            fields=lambda one: {"service": one[0], "cause": one[1]},
        )

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("kernel answers", self._run)

    async def close(self) -> None:
        self._suspects.close()
        self._thread.close()

    async def _run(self) -> None:
        while True:
            owed_s = self._owed_s
            await self.look()
            if self._thread.has_begun:
                before_s, self._used_s = self._used_s, await self._thread.run(thread_time)
                self._owed_s += self._used_s - before_s
            is_urgent = self._is_undecided and self._owed_s < BURST_S
            is_urgent |= self._is_stale
            # Don't make up for all owed time in one pause: a firewall may change meanwhile.
            due_s = min(self._owed_s, _PAYS * (self._owed_s - owed_s))
            pause_s = EVERY_S if is_urgent else Pacing(_SHARE, EVERY_S).wait_s(due_s)
            await pause(pause_s)
            self._owed_s = max(0.0, self._owed_s - pause_s * _SHARE)

    def note_dials(self, served: ServedPort, *, answered: int = 0, lost: int = 0) -> None:
        """Record reported dials of a Service port by programs of this node.

        Args:
            lost: The number of unanswered dials to endpoints that have answered a probe since.
        """
        now, traffic = self._clock(), self._traffic.setdefault(served, _Traffic())
        traffic.lose(lost, now)
        if answered:
            traffic.answered_at = now

    async def look(self) -> None:
        """Compare the numbers of begun and answered connections, and act on the result."""
        in_kernel = [one for one in self._served_ports if one.path.now is DataPath.KERNEL]
        try:
            await self._compare(in_kernel)
            doubted = [one for one in in_kernel if self._is_doubted(one)]
            await self._probe(doubted)
            returning = [one for one, away in self._away.items() if self._may_return(one, away)]
            if doubted or returning:
                rules = await self._thread.run(self._read_rules)
                for served in doubted:
                    await self._decide(served, rules)
                for served in returning:
                    await self._return(served, rules)
        except (SteeringError, OSError) as exc:
            # The next repair will also fail and report the error, so don't report it twice.
            _log.debug(
                "cannot check whether endpoints answer on the kernel path: %(cause)s",
                extra={"cause": str(exc)},
            )
        found = {one: one.path.unanswered for one in in_kernel}
        now = self._clock()
        self._is_undecided = any(
            why is None and any(traffic.is_recent(now) for traffic in self._of(one))
            for one, why in found.items()
        )
        self._condition.set(*((one.group.label, say(why)) for one, why in found.items() if why))

    async def _compare(self, in_kernel: Iterable[ServedPort]) -> None:
        """Update the record of the frontends whose new connections went unanswered."""
        # Omit port ranges, because the dialled port is unknown here.
        serving = {
            f: one.plan.serving for one in in_kernel for f in one.plan.frontends if not f.last
        }
        for left in self._traffic.keys() - serving.keys() - {*in_kernel}:
            del self._traffic[left]
        for gone in self._doubts.keys() - {*in_kernel}:
            del self._doubts[gone]
        counts = (await self._steering.kernel_connections() or {}) if serving else {}
        self._owed_s += len(counts) * _COUNT_S
        now, begun = self._clock(), dict[Frontend, int | None]()
        self._is_stale, self._looked_at = now - self._looked_at > STALE_S, now
        for frontend in serving.keys() & counts.keys():
            count = counts[frontend]
            traffic = self._traffic.setdefault(frontend, _Traffic(count))
            if count != traffic.begun or traffic.is_recent(now):
                begun[frontend] = None if self._is_stale else count - traffic.begun
            traffic.begun = count
        if begun:
            wanted = {frontend: serving[frontend] for frontend in begun}
            found = await self._thread.run(partial(self._track, wanted))
            for frontend, more in begun.items():
                self._traffic[frontend].compare(more, found[frontend], now)

    def _silent(self, served: ServedPort) -> list[_Traffic]:
        now = self._clock()
        return [one for one in self._of(served) if one.is_unanswered(now)]

    def _silent_endpoints(self, served: ServedPort) -> list[SocketAddress]:
        """Return up to PROBED_MAX endpoints that answer no client; none for TCP with ``auto``."""
        is_tcp = served.plan.protocol is Protocol.TCP
        if is_tcp and served.plan.path.path is DataPath.AUTO:
            return []
        recent_at = self._clock() - LAST_MINUTE_S
        recent = [one for one in self._of(served) if one.known_at > recent_at]
        found = (one.silent if is_tcp else one.still_silent for one in recent)
        silent = frozenset[bytes]().union(*found)
        if not silent:
            return []
        return [
            one
            for one in islice(endpoints_of(served.plan.serving), PROBED_MAX)
            if pack_address(one.ip, one.port) in silent
        ]

    def _of(self, served: ServedPort) -> Iterator[_Traffic]:
        kinds: tuple[Frontend | ServedPort, ...] = (*served.plan.frontends, served)
        return (self._traffic[one] for one in kinds if one in self._traffic)

    def _is_doubted(self, served: ServedPort) -> bool:
        """Return whether to decide the cause now; if clients get answers, clear the cause."""
        doubt = self._doubts.get(served)
        if not self._silent(served) and not self._silent_endpoints(served):
            self._doubts.pop(served, None)
            served.path = served.path._replace(unanswered=None, silent_endpoints=0)
            return False
        return doubt is None or self._clock() >= doubt.until

    async def _probe(self, doubted: Iterable[ServedPort]) -> None:
        """Probe the TCP endpoints of some Service ports; wait for results up to ``PROBES_S``."""
        self._has_probed.set()
        for served in doubted:
            doubt = self._doubts[served] = _Doubt(set())
            # Probe only TCP, because a UDP dial would prove nothing.
            if served.plan.protocol is Protocol.TCP:
                doubt.waiting |= {*islice(endpoints_of(served.plan.serving), PROBED_MAX)}
            for endpoint in tuple(doubt.waiting):
                self._has_probed.clear()
                self._suspects.add(served, endpoint, Failure.SILENT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBES_S):
                await self._has_probed.wait()

    def _note_probe(self, suspect: Suspect, failed: DialFailure | None) -> None:
        if (doubt := self._doubts.get(suspect.served)) is not None:
            doubt.waiting.discard(suspect.endpoint)
            if failed is None:
                doubt.answering.append(suspect.endpoint)
            else:
                doubt.failing[suspect.endpoint] = failed
        if not any(one.waiting for one in self._doubts.values()):
            self._has_probed.set()

    async def _decide(self, served: ServedPort, rules: Rules) -> None:
        """Decide why clients get no answer, given the results of probes."""
        doubt, silent, plan = self._doubts[served], self._silent(served), served.plan
        if not silent:
            self._decide_partly(served, doubt)
            return
        now, is_tcp = self._clock(), plan.protocol is Protocol.TCP
        asked = iter(doubt.answering) if is_tcp else endpoints_of(plan.serving)
        if (endpoint := next(asked, None)) is None:
            doubt.until = now + AGAIN_S
            cause = _failure_of_all(served, doubt, silent)
            served.path = served.path._replace(unanswered=cause, silent_endpoints=0)
            return
        ask = partial(rules, endpoint, plan.protocol)
        by = await self._thread.run(ask)
        # If some endpoints fail, clients may by chance have been sent only to these endpoints, so
        # their failures prove nothing about the path.
        is_telling = is_tcp and not doubt.failing and any(one.is_telling for one in silent)
        is_known = by is not None or is_telling
        # If the cause is unknown, decide again soon, because more clients may fail until then.
        doubt.until = now + (AGAIN_S if is_known else GRACE_S)
        if not is_known:
            return
        cause = forwarding_dropped(by.chain, by.why, by.hint) if by else forwarding_unanswered()
        if plan.path.path is not DataPath.AUTO:
            served.path = served.path._replace(unanswered=cause, silent_endpoints=0)
            return
        before = self._away.get(served)
        times = before.times + 1 if before else 1
        until = now + backoff_s(times, RETRY_S, RETRY_MAX_S)
        self._away[served] = _Away(by is not None, times, until)
        self._served_ports.auto_paths.leave_kernel(plan.key, cause)

    def _decide_partly(self, served: ServedPort, doubt: _Doubt) -> None:
        """Record an endpoint that answers no client and, for TCP, no probe, while others answer."""
        doubt.until = self._clock() + AGAIN_S
        silent, is_tcp = self._silent_endpoints(served), served.plan.protocol is Protocol.TCP
        silent = [one for one in silent if one in doubt.failing or not is_tcp]
        cause = _failure_of(silent[0], doubt.failing.get(silent[0])) if silent else None
        served.path = served.path._replace(unanswered=cause, silent_endpoints=len(silent))

    def _may_return(self, served: ServedPort, away: _Away) -> bool:
        is_out = served.path.now is not DataPath.KERNEL
        return is_out and (away.has_chain or self._clock() >= away.until)

    async def _return(self, served: ServedPort, rules: Rules) -> None:
        """Let probes choose a Service port's path again, unless a chain still drops its packets."""
        away = self._away[served]
        if served.is_retired or served.plan.path.path is not DataPath.AUTO:
            del self._away[served]
            return
        endpoint = next(endpoints_of(served.plan.serving), None)
        if away.has_chain and endpoint is not None:
            ask = partial(rules, endpoint, served.plan.protocol)
            if await self._thread.run(ask) is not None:
                return
        self._served_ports.auto_paths.return_to_kernel(served.plan.key)


def _failure_of_all(served: ServedPort, doubt: _Doubt, silent: Iterable[_Traffic]) -> Cause | None:
    """Return why no endpoint answers this node; None if one may answer, or too few clients failed.

    Also None for path ``auto``, which leaves the kernel path because of its own probes.
    """
    is_known = served.plan.path.path is not DataPath.AUTO and not doubt.waiting
    if not (is_known and doubt.failing and any(one.is_telling for one in silent)):
        return None
    return _failure_of(*next(iter(doubt.failing.items())))


def _failure_of(endpoint: SocketAddress, failed: DialFailure | None) -> Cause:
    """Return why an endpoint fails; ``failed`` is None for UDP, which isn't probed."""
    if (failed is None or failed.failure in NO_ANSWER) and (hop := absent_hop(endpoint.ip)):
        return absent(endpoint, hop)
    if failed is None:
        return no_datagram(endpoint)
    failure, number = own_route_failure(failed, endpoint.ip)
    return dial_failed(endpoint, failure, os.strerror(number))


def list_tracked(wanted: Mapping[Frontend, Serving]) -> dict[Frontend, DialledBy]:
    """Return the tracked connections of frontends; blocks, so call it in a thread.

    Raises:
        SteeringError: The kernel can't list the connections.
    """
    here = {pack_ip(one.ip) for one in NodeListings.here().addresses(ANY).items if one.ip}
    by_kind: defaultdict[tuple[int, int], dict[SocketAddress, Set[bytes]]] = defaultdict(dict)
    for frontend, serving in wanted.items():
        kind = int(frontend.family), PROTOCOL_NUMBERS[frontend.protocol]
        endpoints = {pack_address(one.ip, one.port) for one in endpoints_of(serving)}
        by_kind[kind][frontend.address] = endpoints
    found = {kind: connections_at(*kind, endpoints, here) for kind, endpoints in by_kind.items()}
    return {
        frontend: found[int(frontend.family), PROTOCOL_NUMBERS[frontend.protocol]][frontend.address]
        for frontend in wanted
    }
