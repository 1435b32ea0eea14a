"""Resets connections at the descriptor limit, to make room for others' newcomers.

    no room for half a second ──▶ the largest holder (``shares``) ──▶ its longest-idle ──▶ RST

Rule 1: the room is for others: for a moment the holder's own newcomers are reset, too. A chain of
connections that leads through this proxy in a circle would go round for ever otherwise, one link
being added for each that is reset.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..log_limit import LogLimit
from .descriptors import Descriptors
from .shares import Choice, choose_holder, choose_victims

if TYPE_CHECKING:
    from .group import EndpointGroup
    from .tcp import TcpConnection

_log = logging.getLogger("userspace_proxy.dataplane")

# As long as it takes to reset a chain of thousands of links.
_PRESSING_S = 1.0


class Shedding:
    """Makes room among the connections of one data plane.

    Args:
        connections: Those that are open; looked at anew each time.
        descriptors: Tell whether accepting has stalled.
    """

    def __init__(self, connections: Collection[TcpConnection], descriptors: Descriptors) -> None:
        self._connections = connections
        self._descriptors = descriptors
        self._pressing = ""
        """The client above its share of whom connections were reset last."""
        self._pressing_until = -math.inf
        self._log_limit = LogLimit()

    def make_room(self, group: EndpointGroup, now: float) -> bool:
        """Reset idle connections of the largest holder, if accepting has stalled.

        Args:
            group: For which a client waits.
            now: Monotonic seconds.

        Returns:
            Whether there is room; not before the end of the reactor's turn.
        """
        if not self._descriptors.is_stalled(now):
            return False
        choice = choose_holder(self._connections, group)
        if choice is None:
            return False
        self._descriptors.shed(now)
        victims = choose_victims(self._connections, choice, now)
        self._log(choice, victims[0], now)
        self._pressing, self._pressing_until = choice.client, now + _PRESSING_S
        for connection in victims:
            connection.evict()
        return True

    def may_dial(self, connection: TcpConnection, now: float) -> bool:
        """Tell whether an accepted connection may have an endpoint, or is to be reset at once."""
        return now >= self._pressing_until or connection.client_ip != self._pressing

    def _log(self, choice: Choice, first: TcpConnection, now: float) -> None:
        if not self._log_limit.take(now):
            return
        _log.warning(
            "descriptor limit reached, resetting idle connections of the largest holder",
            extra={
                "client": choice.client,
                "service": first.group.label if choice.group is not None else "",
                "connections": choice.held,
                "share": choice.share,
                "limit": self._descriptors.limit,
            },
        )
