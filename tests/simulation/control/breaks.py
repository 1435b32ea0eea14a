"""Which endpoints were broken while clients tried them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .clients import Client
from .machine import Process
from .plan import WAIT_S

if TYPE_CHECKING:
    from .world import World

# For a dial that began while an endpoint was broken, and for one that was silent to be dialled
# again where no other one is left.
_DIAL_S, _QUIET_S = 3.5, 1.0
# A client may be reset when three dials were silent for a second each, as the product promises.
_DIALS, SILENT_DIAL_S = 3, 1.0
PATIENCE_S = _DIALS * SILENT_DIAL_S
"""For so long a client tries endpoints that don't answer."""


class Breaks:
    """When the endpoints of one run were broken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._broken: dict[str, list[tuple[float, float]]] = {}
        """By the IP address of an endpoint."""

    @property
    def has_been(self) -> bool:
        """Whether any endpoint has been broken."""
        return bool(self._broken)

    def note(self, endpoint: SocketAddress, seconds: float) -> None:
        """Note that an endpoint is broken for a while, so its clients may be reset, or wait."""
        now = self._world.timeline.now
        self._broken.setdefault(endpoint.ip, []).append((now, now + seconds))

    def _was_broken(self, endpoint: SocketAddress, since: float) -> bool:
        """Return whether a dial since then may have failed."""
        return any(until + _QUIET_S >= since for _, until in self._broken.get(endpoint.ip, ()))

    def any_was(self, endpoints: Iterable[SocketAddress], client: Client) -> bool:
        """Return whether a dial of one of these endpoints may have failed for a client."""
        since = client.dialled_at - WAIT_S
        return any(self._was_broken(endpoint, since) for endpoint in endpoints)

    def all_were(self, serving: Serving, client: Client) -> bool:
        """Return whether each endpoint was broken while a client tried them."""
        since = client.dialled_at - WAIT_S
        return all(self._was_broken(endpoint, since) for endpoint in serving.endpoints)

    def all_were_throughout(self, serving: Serving, client: Client) -> bool:
        """Return whether each endpoint was broken for as long as a client has tried them."""
        now = self._world.timeline.now
        return all(
            any(
                began <= client.dialled_at and now <= until
                for began, until in self._broken.get(endpoint.ip, ())
            )
            for endpoint in serving.endpoints
        )

    def all_were_quiet(self, worker: Process, since: float, serving: Serving) -> bool:
        """Return whether each endpoint was broken, or is one that was silent when last dialled."""
        ejections = self._world.ejections
        return all(
            self._was_broken(each, since - WAIT_S) or ejections.is_quiet(worker, each)
            for each in serving.endpoints
        )

    def took_all_time(self, endpoints: Iterable[SocketAddress], client: Client) -> bool:
        """Return whether it may have dialled as many silent endpoints as a client has time for."""
        since = client.dialled_at - WAIT_S
        broken = sum(self._was_broken(each, since) for each in endpoints)
        return broken >= _DIALS and self._world.timeline.now - client.dialled_at >= PATIENCE_S

    def dials_s(self, endpoints: Iterable[SocketAddress], client: Client) -> float:
        """Return how long dials of those endpoints that were broken may take."""
        since = client.dialled_at - WAIT_S
        return _DIAL_S * sum(self._was_broken(each, since) for each in endpoints)
