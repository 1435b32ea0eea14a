"""The endpoints and clients of one Service port, without sockets."""

from __future__ import annotations

from collections import Counter
from typing import Any

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import Handling, SocketAddress
from userspace_proxy.model.serving import Serving

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ALICE, BOB = "203.0.113.1", "203.0.113.2"
CLUSTER = ("10.0.0.0/8",)
POD_CLIENT = "10.9.9.9"


def picks(
    group: EndpointGroup, count: int, client: str = ALICE, now: float = 0.0
) -> list[SocketAddress | None]:
    """Return the endpoints of a client's next picks, in order."""
    return [group.balancers.current.pick(client, now) for _ in range(count)]


def picked(group: EndpointGroup, count: int = 10, client: str = ALICE) -> Counter[Any]:
    """Pick endpoints for a client; return how often each one was picked."""
    return Counter(picks(group, count, client))


def limited(max_connections: int, *pods: SocketAddress, **others: Any) -> Serving:
    """Return a Serving whose endpoints have at most this many connections each."""
    handling = Handling(max_connections=max_connections)
    return Serving(pods or (POD_A, POD_B), handling=handling, **others)


class News:
    """Records a group's reports to other workers; those of waiting clients call ``on_waiting``."""

    def __init__(self, told=None, on_waiting=None):
        self.told = [] if told is None else told
        self._on_waiting = on_waiting

    def ejected(self, endpoint, *, is_silent):
        self.told.append((endpoint, is_silent))

    def returned(self, endpoint):
        self.told.append(endpoint)

    def waiting(self):
        self._on_waiting()
