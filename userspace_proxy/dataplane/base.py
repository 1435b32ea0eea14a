"""The interface of a data plane, in this process or in workers.

    DataPlane    in the caller's event loop: embedding, demo, tests
    WorkerPool   in worker processes: the node agent

Rule 1: nothing here awaits but :meth:`Plane.refresh` and :meth:`Plane.drain`. A port listens
when ``listen`` returns, and refuses TCP when ``update`` to no endpoint does; workers dial by new
endpoints some milliseconds later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..model import Protocol as Transport
from ..model import SocketAddress
from ..policy.places import Networks
from .counters import EndpointCounters, GroupCounters
from .serving import Serving


class Group(Protocol):
    """The endpoints of one Service port, and what was counted for them."""

    label: str
    out_of_ports_at: float
    """Monotonic seconds at which no source port was left; minus infinity: never."""
    out_of_client_ports_at: float
    """The same of a client's own address."""

    @property
    def counters(self) -> GroupCounters:
        """What is counted beside the endpoints' own counters."""

    def counters_of(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint, made when first asked for."""

    def totals(self) -> EndpointCounters:
        """Return the sums over all endpoints, those that have gone included."""

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""


class OpenPort(Protocol):
    """One address that clients reach, serving or refusing."""

    address: SocketAddress
    is_serving: bool

    def close(self) -> None:
        """Close it; TCP connections go on, UDP flows end. Idempotent."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One process that carries traffic."""

    index: int
    pid: int
    """0 while it isn't running."""
    restarts: int
    connections: int
    """Open ones, at the last report."""
    flows: int
    """Live UDP flows, at the last report."""
    turns: tuple[tuple[float | None, int], ...] = ()
    """How many turns of its loop took at most so many seconds, and more than the bound before;
    the last has no bound."""
    turns_s: float = 0.0
    """The sum of all."""


@dataclass(frozen=True, slots=True)
class PlaneState:
    """How a data plane is doing."""

    descriptors: int
    """In use, in all processes that carry traffic."""
    descriptor_limit: int
    is_accepting: bool
    """False while accepting is paused at the descriptor limit."""
    is_running: bool = True
    """False while no process carries traffic."""
    workers: tuple[WorkerState, ...] = ()
    """Empty where the caller's loop does it."""
    problems: tuple[str, ...] = ()
    """What is wrong at this moment, one line each."""


G = TypeVar("G")


class Plane(Protocol[G]):
    """What carries the traffic. G is its kind of :class:`Group`."""

    def open_group(self, label: str, serving: Serving) -> G:
        """Begin to serve a Service port; without listeners there are no clients yet."""

    def listen(
        self,
        group: G,
        protocol: Transport,
        at: SocketAddress,
        *,
        freebind: bool = False,
        transparent: bool = False,
    ) -> OpenPort:
        """Open a listener; it refuses from the start if its group has no endpoints.

        Args:
            group: Chooses endpoints for its clients, and counts.
            protocol: TCP or UDP.
            at: Where to bind; port 0 for any free one.
            freebind: Bind an address that this node doesn't have (yet).
            transparent: Set IP_TRANSPARENT, which takes NET_ADMIN or NET_RAW.

        Raises:
            ListenError: The port can't be had.
        """

    def hand_over(self, port: Any, group: G) -> None:
        """Have an open listener serve another group's clients; no client notices.

        Open TCP connections stay with their group, UDP flows end. Clients that wait to be
        accepted are the new group's.

        Args:
            port: What ``listen`` returned.
            group: Its group from now on; it serves, refuses or drops by its endpoints.

        Raises:
            ListenError: It refused, and couldn't take its port back, or tell its clients apart:
                it refuses.
        """

    def update(self, group: G, serving: Serving) -> None:
        """Give a group its new endpoints, and have its listeners serve, refuse or drop by them.

        Raises:
            ListenError: A listener could not take its port back, or tell its clients apart: it
                refuses; the others don't.
        """

    def close_group(self, group: G) -> None:
        """Forget a group whose listeners are closed; open connections go on. Idempotent."""

    def preserve(self, networks: Networks | None) -> None:
        """Have endpoints see their clients' own addresses, where answers come back by this node.

        Args:
            networks: Where networks are; None: endpoints see this node's address.
        """

    def settle(self) -> None:
        """Bring those counters up to date that can be read without waiting."""

    async def refresh(self) -> None:
        """Bring all counters up to date; call before reading them."""

    def state(self) -> PlaneState:
        """Return how it is doing."""

    async def drain(self, seconds: float) -> int:
        """Wait until the open connections have ended, then reset what is left.

        Close the listeners first.

        Returns:
            How many connections had to be reset.
        """

    def close(self) -> None:
        """Close every socket at once; open connections are reset. Idempotent."""


AnyPlane = Plane[Any]
