"""Judges which connection or flow gives up its place when there is no room, and when.

    no room ──half a second without a release──▶ a connection is reset (docs/internals.md)
    the table of flows is full ──▶ one that its client hasn't used again, else one that it has

Rule 1: a client or a Service port above its share is judged by ``tcp_ends``: here are those that
have no more than a few, among which age decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from .addresses import by_network, network_of

if TYPE_CHECKING:
    from .datagram_records import Flow
    from .tcp_ends import Relayed
    from .world import World

PRESSING, STALL, SETTLED, LARGEST, YOUNG, LONGEST, HOLDER = (
    "no more of the largest",
    "reset after a stall",
    "new ones are kept",
    "largest network loses",
    "young flows go first",
    "longest-idle flow goes",
    "flow of the largest goes",
)
ORACLES = (PRESSING, STALL, SETTLED, LARGEST, YOUNG, LONGEST, HOLDER)

# Without a release for this long, connections are reset, and for a while from then on at once.
_STALL_S, _GOES_ON_S = 0.5, 5.0
# A dial for which the kernel has no socket pauses, too, and a pause may be so old.
_PAUSE_S = 1.6
# So many free descriptors end a pause, or a quarter of all if that is less.
_RESUME_ROOM = 16
# What a connection, a client or a Service port has to have had to be above its share.
_FEW = 16
# For so long new connections of a client above its share are reset, too.
_PRESSING_S = 1.0
# From then on a connection isn't new, and the only one of its client is idle.
_SETTLED_S = 10.0
# A look at what has moved may be so old.
_LOOK_S = 9.1
# A flow's use is noted once a second.
_GRAIN_S = 1.0
_SLACK_S = 0.05


class Evictions:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._roomy_at = world.timeline.now
        """When there was room for many connections."""
        self._evicted_at = -_GOES_ON_S
        self._turn = -1
        """The last one in which connections were reset."""
        self._pressing: tuple[str, int, float] | None = None
        """The client above its share that lost connections last, to which Service port, and the
        earliest moment at which it did."""

    def after_turn(self) -> None:
        """Note how much room there is."""
        used = self._world.dataplane.engine.descriptors
        kept = max(0, used.limit // 16 - used._flows)
        if used.limit - kept - used.in_use >= min(_RESUME_ROOM, used.limit // 4 + 1):
            self._roomy_at = self._world.timeline.now

    def begins(self, ip: str, service: int, *, is_announced: bool) -> None:
        """Judge that an endpoint is looked for, for a connection that was just accepted."""
        if self._pressing is None or is_announced:
            return
        client, number, since = self._pressing
        if (client, number) == (ip, service):
            passed_s = self._world.moment()[1] - since
            why = f"{ip} is above its share, and gets a new connection after {passed_s:.3f} s"
            self._judge.check(PRESSING, passed_s >= _PRESSING_S, why)

    def _note_pressing(self, ip: str, service: int, *, has_begun: bool) -> None:
        """Note whose connections are reset in this turn: those of a client above its share."""
        world = self._world
        if not has_begun:
            # A new one of such a client.
            if self._pressing is not None and self._pressing[:2] == (ip, service):
                self._judge.right(PRESSING)
            return
        if self._turn == world.turns:
            return
        self._turn = world.turns
        open_ = world.dataplane.connections.open
        few, many = max(_FEW, len(open_) // 8), max(_FEW, len(open_) // 2)
        groups = Counter(id(each.group) for each in open_)
        group, held = groups.most_common(1)[0]
        if held > many:
            most = Counter(e.client_ip for e in open_ if id(e.group) == group)
            is_client = max(most.values()) > few
            self._pressing = (ip, service, world.moment()[0]) if is_client else None
        elif max(Counter(each.client_ip for each in open_).values()) > few:
            self._pressing = ip, service, world.moment()[0]

    def connection_ended(self, number: int, relayed: Relayed | None) -> None:
        """Judge that a connection was reset for another one."""
        world, now = self._world, self._world.timeline.now
        frees_memory = world.datagrams.troubles.frees_memory()
        attempt = world.choices.attempts.get(number)
        if frees_memory:
            # Whose it is depends on what it holds, and it may have others at once.
            self._pressing = None
        elif attempt is not None:
            service = world.clients[number].service
            self._note_pressing(attempt.ip, service, has_begun=attempt.begun_at is not None)
        goes_on_s = _GOES_ON_S + world.stopped_since(self._evicted_at)
        is_first = now - self._evicted_at > goes_on_s
        self._evicted_at = now
        if frees_memory:
            return
        if is_first and world.kernel.lacked_at >= world.earliest(now - _PAUSE_S):
            self._judge.excuse(STALL, "the kernel lacked something")
        elif is_first:
            full_s = now - self._roomy_at
            why = f"a connection was reset {full_s:.3f} s after there was room"
            self._judge.check(STALL, full_s >= _STALL_S - _SLACK_S, why)
        if relayed is not None:
            self._judge_settled(relayed, now)

    def _judge_settled(self, victim: Relayed, now: float) -> None:
        """Where each has few connections, new ones stay, and a client's only one that is in use."""
        open_ = self._world.dataplane.connections.open
        clients = Counter(each.client_ip for each in open_)
        ports = Counter(id(each.group) for each in open_)
        if max(*clients.values(), *ports.values()) > _FEW:
            return
        sizes = by_network(clients)
        attempt = self._world.choices.attempts.get(victim.number)
        if attempt is not None:
            size = sizes[network_of(attempt.ip)]
            why = f"{attempt.ip} was reset, whose network has {size} of up to {max(sizes.values())}"
            self._judge.check(LARGEST, size == max(sizes.values()), why)
        age_s = now - victim.accepted[0]
        why = f"client {victim.number} was reset {age_s:.3f} s after it had come"
        if max(sizes.values()) == 1:
            # One that has waited for its endpoint is idle since that has answered.
            age_s = now - victim.moved_at + _LOOK_S
            why = f"client {victim.number}, which has no other one, was idle for less than 10 s"
        self._judge.check(SETTLED, age_s >= _SETTLED_S - _SLACK_S, why)

    def flow_ended(self) -> None:
        """Judge a flow that has ended for another one, as its line is written."""
        ends = self._world.datagrams.ends
        flow = ends.ending
        if flow is None or flow.client is None:
            self._judge.excuse(YOUNG, "the flow isn't known")
            return
        # The sockets of those that have ended are closed at the end of the dispatch.
        open_ = self._world.datagrams.open_flows()
        flows = [f for f in open_ if f.cause is None and not ends.is_closing(f)]
        is_rival = self._rivals(flow, [*flows, flow])
        others = [e for e in flows if e.client is not None and is_rival(e)]
        if flow.is_stream:
            young = [each.client for each in others if not (each.may_be_stream or each.is_stream)]
            why = f"the stream of {flow.client} has ended, and {young} are young"
            self._judge.check(YOUNG, not young, why)
        else:
            self._judge.right(YOUNG)
        same = [each for each in others if each.is_stream] if flow.is_stream else []
        if not (flow.is_stream or flow.may_be_stream):
            same = [each for each in others if not (each.may_be_stream or each.is_stream)]
        least = flow.used_since - _GRAIN_S - _SLACK_S
        longer = [each.client for each in same if max(each.used, each.came_at) < least]
        why = f"the flow of {flow.client} has ended, and {longer} were idle for longer"
        self._judge.check(LONGEST, not longer, why)

    def _rivals(self, victim: Flow, flows: list[Flow]) -> Callable[[Flow], bool]:
        """Judge whose flow gave up its place; return which others might have instead.

        Where a client, else a network of IPv6, else a Service port is above its share, one of its
        flows goes (``flow_table``, rule 3).
        """
        ends, places = self._world.datagrams.ends, self._world.plan.node.max_flows
        open_ = set(flows)
        if any(each.client is None for each in open_):
            self._judge.excuse(HOLDER, "a flow hasn't sent yet")
            return lambda _flow: False
        waiting = [(flow.client_ip, flow.group) for flow in ends.waiting()]
        held = [(each.client[0], each.service.group) for each in open_ if each.client] + waiting
        few, half = max(_FEW, places // 8), max(_FEW, places // 2)
        holders: tuple[tuple[int, Callable[[str, Any], Hashable]], ...] = (
            (few, lambda ip, _group: ip),
            (half, lambda ip, _group: network_of(ip) if ":" in ip else None),
            (half, lambda _ip, group: group.label),
        )
        assert victim.client is not None, "it is known"
        own = victim.client[0], victim.service.group
        for share, of in holders:
            counts = Counter(of(*each) for each in held)
            counts.pop(None, None)
            most = max(counts.values(), default=0)
            if most > share:
                why = f"the flow of {victim.client} has ended, and {counts} have flows"
                self._judge.check(HOLDER, counts[of(*own)] == most, why)
                return lambda f, of=of: (  # type: ignore[misc]
                    f.client is not None and of(f.client[0], f.service.group) == of(*own)
                )
        self._judge.right(HOLDER)
        return lambda _flow: True
