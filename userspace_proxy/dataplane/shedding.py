"""Resets connections at the descriptor limit, to admit new connections of other clients.

    no room for half a second ──▶ the largest holder (``shares``) ──▶ its longest-idle ──▶ RST

Rule 1: the freed descriptors are for other clients: for a moment new connections of a client above
its share are reset, too, where it has the most. Otherwise a loop of connections through this proxy
would never end: each reset would make room for the loop's next connection.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Hashable

from ..log_limit import LogLimit
from .descriptors import Descriptors
from .endpoint_group import EndpointGroup
from .shares import Choice, choose
from .tcp import TcpConnection

_log = logging.getLogger("userspace_proxy.dataplane")

# As long as it takes to reset a chain of thousands of links.
_PRESSING_S = 1.0


class Shedding:
    """Makes room among the open connections of one data plane."""

    def __init__(self, connections: Collection[TcpConnection], descriptors: Descriptors) -> None:
        self._connections = connections
        self._descriptors = descriptors
        self._pressing: tuple[str, Hashable] = "", None
        """The client above its share whose connections were reset last, and the Service port (None
        for all)."""
        self._pressing_until = -math.inf
        self._log_limit = LogLimit()

    def make_room(self, group: EndpointGroup, now: float) -> bool:
        """Reset connections of the largest holder for a client of a group, after a stall.

        Returns whether there will be room at the end of the dispatch.
        """
        if not self._descriptors.is_stalled(now):
            return False
        choice = choose(self._connections, group, now)
        if choice is None:
            return False
        self._descriptors.shed(now)
        self._log(choice, now)
        if choice.held > choice.share:
            self._pressing, self._pressing_until = choice[:2], now + _PRESSING_S
        for connection in choice.victims:
            connection.evict()
        return True

    def may_dial(self, connection: TcpConnection, now: float) -> bool:
        """Return whether an accepted connection may be dialled, rather than be reset at once."""
        if now >= self._pressing_until:
            return True
        client, group = self._pressing
        return connection.client_ip != client or group not in (None, connection.group)

    def _log(self, choice: Choice[TcpConnection], now: float) -> None:
        if not self._log_limit.take(now):
            return
        _log.warning(
            "descriptor limit reached, resetting idle connections of the largest holder",
            extra={
                "client": choice.client,
                "service": choice.victims[0].group.label if choice.group is not None else "",
                "connections": choice.held,
                "share": choice.share,
                "limit": self._descriptors.limit,
            },
        )
