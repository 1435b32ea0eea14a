"""Decides which holder loses a place when a bound that all clients share is reached.

Rule 1: below the bound a client or a Service port may hold everything.
Rule 2: at the bound, a client that holds more than an eighth of the places, or a Service port
that holds more than half of them, gives way. One with few places never does.
Rule 3: a Service port above its share makes no others give way, it only replaces its own.
Rule 4: of what a holder has, the longest-idle goes first.

Counting happens here, at the bound, so that an ordinary connection pays nothing for it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Hashable
from typing import NamedTuple, Protocol, TypeVar

# Eight clients at the least are needed to use up what there is, and two Service ports.
_CLIENT_SHARE = 1 / 8
_SERVICE_SHARE = 1 / 2
# A browser, a resolver or a connection pool has as many.
_FEW = 16


class Held(Protocol):
    """A connection, as far as this decision needs it."""

    @property
    def client_ip(self) -> str:
        """The client's IP address."""

    @property
    def group(self) -> Hashable:
        """The Service port."""

    def idle_since(self, now: float) -> float:
        """Return when bytes last moved."""


H = TypeVar("H", bound=Held)


class Choice(NamedTuple):
    """The holder that gives way, and its share."""

    client: str
    """Empty when it is a Service port with many small clients."""
    group: Hashable
    """None when it is a client of several Service ports."""
    held: int
    share: int


def client_share(places: int) -> int:
    """Return how many of so many places a client may keep at the bound."""
    return max(_FEW, int(places * _CLIENT_SHARE))


def service_share(places: int) -> int:
    """Return how many of so many places a Service port may keep at the bound."""
    return max(_FEW, int(places * _SERVICE_SHARE))


def choose_holder(connections: Collection[Held], newcomers: Hashable) -> Choice | None:
    """Return the holder that gives way to one more connection; None: the newcomer waits.

    Args:
        connections: All that are open.
        newcomers: The Service port for which a client waits.
    """
    share = client_share(len(connections))
    services = Counter([c.group for c in connections])
    for group, held in services.most_common(1):
        if held > service_share(len(connections)):
            clients = Counter([c.client_ip for c in connections if c.group is group])
            client, most = clients.most_common(1)[0]
            if most > share:
                return Choice(client, group, most, share)
            if group is newcomers:
                return None
            return Choice("", group, held, service_share(len(connections)))
    for client, most in Counter([c.client_ip for c in connections]).most_common(1):
        if most > share:
            return Choice(client, None, most, share)
    return None


def choose_victims(connections: Collection[H], choice: Choice, now: float) -> list[H]:
    """Return the longest-idle connections of a holder, in order.

    A 64th of all, and eight at the least, so that looking at all of them is paid for by many
    (measured: 0.5 µs each, so some 30 µs for each that goes); never more than what the holder
    has above its share.
    """
    count = max(8, math.ceil(len(connections) / 64))
    return heapq.nsmallest(
        min(count, choice.held - choice.share),
        [
            c
            for c in connections
            if choice.client in ("", c.client_ip) and choice.group in (None, c.group)
        ],
        key=lambda c: c.idle_since(now),
    )
