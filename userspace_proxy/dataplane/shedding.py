"""Resets connections to make room at the descriptor limit, or to free memory.

    no room for 0.5 s ──▶ largest holder (``shares``) ──▶ its longest idle connections ──▶ RST
    memory is low ──▶ affinity entries, then the largest buffers, then as above ──▶ RST

Rule 1: freed descriptors are for other clients, so for a moment, new connections of the largest
holder are also reset if it exceeds its share. Otherwise a loop of connections through this proxy
would never end: each reset would make room for the loop's next connection.
Rule 2: while memory is low, new connections only replace others, unless all fit into ``spared``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable

from ..balance.affinity import ENTRY_BYTES
from ..kernel.socket_options import buffered_bytes
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model.connection_ends import EndReason
from ..policy.shares import CONNECTION_BYTES, Eviction, choose, choose_to_free
from .descriptors import DESCRIPTORS
from .endpoint_group import EndpointGroup
from .engine import Engine
from .tcp import TcpConnection

_log = FieldLogger("userspace_proxy.dataplane")

# How long new connections of a holder above its share are reset, to end loops (Rule 1).
_PRESSING_S = 1.0


def held_bytes(connection: TcpConnection, *, counts_sockets: bool) -> int:
    """Return the bytes queued in memory and pipes, and in both sockets if ``counts_sockets``."""
    up, down = connection.up, connection.down
    waiting = sum(d.waiting_bytes for d in (up, down) if d is not None)
    if not counts_sockets:
        return waiting
    endpoint_bytes = 0 if up is None else buffered_bytes(up.sink)
    return waiting + buffered_bytes(connection.client) + endpoint_bytes


class Shedding:
    """The policy that selects open connections of one data plane, and resets them to make room."""

    def __init__(self, engine: Engine, connections: Collection[TcpConnection]) -> None:
        self._connections = connections
        self._engine = engine
        engine.memory.shed = self.free_memory
        self._pressing: tuple[str, Hashable] = "", None
        """The client above its share whose connections were last reset, empty for several clients;
        and the Service port, None for all."""
        self.pressing_until = -math.inf
        """Monotonic seconds until which accepted connections need :meth:`admit`."""
        self._is_for_memory = False
        """Whether memory was low when connections were last reset."""
        self._log_limit = LogLimit()

    def make_room(self, group: EndpointGroup, now: float) -> bool:
        """After a stall, reset connections of the largest holder to admit a client of a group.

        Returns whether there will be room at the end of the dispatch.
        """
        if not self._engine.descriptors.is_stalled(now):
            return False
        eviction = choose(self._connections, group, now)
        if eviction is None:
            return False
        self._engine.descriptors.shed(now)
        if self._log_limit.take(now):
            self._log(eviction)
        if eviction.held > eviction.share:
            self._pressing, self.pressing_until = eviction[:2], now + _PRESSING_S
        self._is_for_memory = self._engine.memory.state.is_short
        for connection in eviction.victims:
            evict(connection, for_memory=self._is_for_memory)
        return True

    def free_memory(self, excess: int, spared: int, now: float) -> int:
        """Drop affinity entries, then reset connections, to free ``excess`` bytes.

        Connections may keep ``spared`` bytes; new connections are admitted only while all fit into
        these. Returns the number of reset connections.
        """
        counts_sockets = self._engine.memory.counts_sockets
        # Cap connections before resets, so that closing them admits no waiting clients.
        self._engine.descriptors.hold(0)
        # Remaining affinity entries count as freed, because the next calls drop them.
        excess -= self._engine.entries.free(excess) + len(self._engine.entries) * ENTRY_BYTES
        victims = choose_to_free(
            self._connections,
            lambda connection: held_bytes(connection, counts_sockets=counts_sockets),
            excess=excess,
            spared=spared,
            now=now,
        )
        if victims:
            self._engine.descriptors.shed(now)
        for connection in victims:
            evict(connection, for_memory=True)
        more = max(0, spared // CONNECTION_BYTES - len(self._connections))
        self._engine.descriptors.hold(more * DESCRIPTORS)
        return len(victims)

    def admit(self, connection: TcpConnection) -> bool:
        """Return whether to dial for an accepted connection; if not, it is reset at once."""
        client, group = self._pressing
        if connection.client_ip != client or group not in (None, connection.group):
            return True
        evict(connection, for_memory=self._is_for_memory)
        return False

    def _log(self, eviction: Eviction[TcpConnection]) -> None:
        memory = self._engine.memory.state
        limit = {"limit": self._engine.descriptors.limit}
        text = "descriptor limit reached, resetting longest-idle connections of %(holder)s"
        if memory.is_short:
            limit = {"limit_mib": memory.limit_bytes >> 20}
            text = "memory limit nearly reached, resetting longest-idle connections of %(holder)s"
        service = eviction.victims[0].group.label if eviction.group is not None else ""
        holder = eviction.client or "several clients"
        _log.warning(
            text,
            extra={
                "holder": f"{holder} at {service}" if service else holder,
                "client": eviction.client,
                "service": service,
                "held": eviction.held,
                "share": eviction.share,
                **limit,
            },
        )


def evict(connection: TcpConnection, *, for_memory: bool) -> None:
    """Reset both sides to make room for other connections, or to free memory."""
    counters = connection.group.counters
    counters.evicted += 1
    counters.evicted_for_memory += for_memory
    connection.finish(EndReason.EVICTED, as_reset=True)
