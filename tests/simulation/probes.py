"""Judges probes: an endpoint that fails at a client's address is asked from this node's (ADR 0070).

a dial fails ─▶ wanted ─┬─▶ begins, within the turn ─▶ answers: such failures are the client's own
                        └─▶ the kernel lacks something
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from userspace_proxy.model import SocketAddress

from .addresses import NODE_IPS
from .attempts import Dial, Port
from .judging import PAIR_S
from .model import Span, Sure

if TYPE_CHECKING:
    from .sockets import SimulatedSocket
    from .world import World


class _Wanted(NamedTuple):
    """A probe that must begin."""

    ports: dict[Port, None]
    clients: dict[str, None]
    """For which of them the answer counts."""
    lacks: int
    """What the kernel had lacked when it was wanted."""
    is_sure: bool
    """The dial has failed for certain."""


class Probes:
    """The probes of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wanted: dict[SocketAddress, _Wanted] = {}
        """Those that must begin in this turn."""
        self._under_way: dict[Any, tuple[Dial, _Wanted]] = {}
        """By what is behind their sockets."""
        self._own: dict[tuple[str, SocketAddress], Span] = {}
        """Since when a client's failures at an endpoint are its own."""

    def is_own(self, ip: str, dial: Dial, at: Span) -> Sure:
        """Return whether a failure concerns this client's address only."""
        since = self._own.get((ip, dial.endpoint)) if dial.is_preserved else None
        if since is None or at[0] >= since[1] + PAIR_S:
            return Sure.NO
        return Sure.YES if at[1] < since[0] + PAIR_S else Sure.EITHER

    def want(self, port: Port, ip: str, endpoint: SocketAddress, *, is_sure: bool) -> None:
        """Expect a probe in this turn, as a dial at a client's address has failed."""
        if endpoint not in port.model.serving.all_endpoints:
            return
        for dial, probe in self._under_way.values():
            if dial.endpoint == endpoint:
                probe.ports[port], probe.clients[ip] = None, None
                return
        if endpoint in self._wanted:
            # A probe begins at once: the one before found no room, and isn't tried again.
            self._judge_missing(endpoint)
        if self._has_room():
            lacks = self._world.kernel.lacks
            self._wanted[endpoint] = _Wanted({port: None}, {ip: None}, lacks, is_sure)

    def _has_room(self) -> bool:
        """Return whether a descriptor is left, besides those that are kept for flows."""
        used = self._world.dataplane.engine.descriptors
        most = used.limit - max(0, used.limit // 16 - used._flows)
        if used._held is not None:
            # Memory is short.
            most = min(most, used._held)
        return used.in_use < most

    def begin(self, sock: SimulatedSocket, endpoint: SocketAddress) -> None:
        """Judge a dial that is for no client."""
        world, judge = self._world, self._world.judgements
        if world.is_closed:
            # As its descriptors are given back, a dial begins for a client: none is followed.
            return
        wanted = self._wanted.pop(endpoint, None)
        if wanted is None:
            judge.violate("probe", f"{endpoint} was dialled for no client")
            return
        judge.right("probe")
        source = sock.core.local
        if source is not None and source[0] not in NODE_IPS:
            judge.violate("probe", f"{endpoint} was probed from {source[0]}")
        self._under_way[sock.core] = Dial(endpoint, world.moment()), wanted

    def ended(self, core: Any, number: int) -> bool:
        """Take the result of a probe, an error number or 0; return whether it was one."""
        found = self._under_way.pop(core, None)
        if found is None:
            return False
        dial, probe = found
        if not number:
            at = self._world.moment()
            for port in probe.ports:
                port.answered(dial.endpoint, at)
            for client in probe.clients:
                self._own[client, dial.endpoint] = at
        return True

    def drop(self, core: Any) -> None:
        """Forget a probe without a result, if it is one."""
        self._under_way.pop(core, None)

    def after_turn(self) -> None:
        """Check that those have begun that had to."""
        if not self._world.is_closed:
            for endpoint in self._wanted:
                self._judge_missing(endpoint)
        self._wanted.clear()

    def _judge_missing(self, endpoint: SocketAddress) -> None:
        judge, wanted = self._world.judgements, self._wanted[endpoint]
        if self._world.kernel.lacks != wanted.lacks:
            judge.excuse("probe", "the kernel lacks something")
        elif not wanted.is_sure:
            judge.excuse("probe", "the dial may have ended before its time was up")
        else:
            judge.violate("probe", f"{endpoint} failed, and wasn't probed")
