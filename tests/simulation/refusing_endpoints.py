"""What the node has been told of endpoints of UDP that refuse, and which new flows they may get.

refused ──ejected for 5 s at least──▶ again usable      an answer, here or elsewhere ──▶ usable
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .datagram_records import Flow, allowed
from .model import FIRST_S, LONGEST_S, PROBE_S
from .network import Address
from .troubles import SOON_S

if TYPE_CHECKING:
    from .world import World

# The shortest time without an endpoint that has refused.
_EJECTED_S = 4.0
# An ejection may be noted by so much later than its failure, and end as much later.
_LATE_S = 1.0
_NEAR_S = 0.01
KEPT_S = 1.0
"""For so long what a flow has sent is kept for another endpoint."""


class RefusingEndpoints:
    """The oracle of endpoints that refuse."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._refused_at: dict[Address, float] = {}
        """When the node was last told that an endpoint refuses."""
        self._probed_at: dict[Address, float] = {}
        """When a flow last began to an endpoint that may have been ejected."""
        self._heard_at: dict[Address, float] = {}
        """When an endpoint's last datagram reached the node."""
        self._failures_elsewhere: dict[Address, list[float]] = {}
        self._refused: dict[Address, float] = {}
        """When the node was told that an endpoint refuses, which began an ejection that no answer
        has ended since."""

    def heard(self, endpoint: Address, *, is_first: bool) -> None:
        """Note that an endpoint's datagram has reached the node.

        Args:
            is_first: It may be the first answer of its flow: only that ends an ejection.
        """
        self._refused.pop(endpoint, None)
        if is_first:
            self._heard_at[endpoint] = self._world.timeline.now

    def reported(self, endpoint: Address, how: str) -> None:
        """Note what another worker has reported of an endpoint."""
        if how == "answered":
            self.heard(endpoint, is_first=True)
        else:
            self._failures_elsewhere.setdefault(endpoint, []).append(self._world.timeline.now)

    def refused(self, flow: Flow, number: int) -> None:
        """Note that the node is told that an endpoint refuses."""
        now, local = self._world.timeline.now, flow.core.local
        self._refused_at[flow.endpoint] = now
        if local is not None and flow.client is not None and local[0] == flow.client[0]:
            # It may be a network policy's, for this client.
            return
        # What is refused within an ejection doesn't prolong it.
        if number == errno.ECONNREFUSED and now >= self._may_be_ejected_until(flow.endpoint):
            self._refused[flow.endpoint] = now

    def _may_be_ejected_until(self, endpoint: Address) -> float:
        """Return until when failures before those of this moment may have ejected an endpoint.

        Whatever the failure was: a route that lacks ejects like a refusal.
        """
        heard_at, now = self._heard_at.get(endpoint, -1.0), self._world.timeline.now
        host = self._world.hosts[SocketAddress(*endpoint)]
        failures = sorted((*host.failures, *self._failures_elsewhere.get(endpoint, ())))
        until, lasts_s = -1.0, 0.0
        for at in failures:
            if heard_at < at < now - SOON_S and at > until - 2 * _LATE_S:
                lasts_s = min(2 * lasts_s, LONGEST_S) or FIRST_S
                late_s = _LATE_S + self._world.stopped_since(at)
                until = max(until, at + lasts_s + late_s)
        return until

    def check_new_flow(self, flow: Flow, client: Address) -> None:
        """An endpoint that has refused gets no new flow for a while, if another one may have it."""
        if self.may_be_ejected(SocketAddress(*flow.endpoint)):
            self._probed_at[flow.endpoint] = flow.began
        now, may = flow.began, allowed(flow.serving, client[0])
        others = may - {SocketAddress(*flow.endpoint)}
        refused = [self._refused.get((each.ip, each.port), now) for each in others]
        for since in refused:
            if SOON_S < now - since < _EJECTED_S:
                self._judge.right("refusing endpoint")
        since = self._refused.get(flow.endpoint, now)
        if not SOON_S + self._world.stopped_since(since) <= now - since <= _EJECTED_S:
            return
        if all(map(self.may_be_ejected, others)):
            # It may be the last one: there is no other answer.
            return
        if flow.service.changed_at >= since:
            self._judge.excuse("refusing endpoint", "the Service has changed")
        elif self._world.kernel.lacked_at >= self._world.moment()[0]:
            self._judge.excuse("refusing endpoint", "the kernel lacked something")
        else:
            self._judge.violate(
                "refusing endpoint", f"a flow to {flow.endpoint}, refused {now - since:.3f} s ago"
            )

    def may_be_ejected(self, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint may be left out for a while."""
        at = endpoint.ip, endpoint.port
        probed_at = self._probed_at.get(at, -PROBE_S)
        probe_s = PROBE_S + SOON_S + self._world.stopped_since(probed_at)
        if self._world.timeline.now - probed_at < probe_s:
            return True
        failures = *self._world.hosts[endpoint].failures, *self._failures_elsewhere.get(at, ())
        refused_at = self._refused_at.get(at, -1.0)
        # The node may be told after an answer what a datagram before it has met.
        failed_at = max(refused_at, *failures, -1.0)
        if refused_at > 0:
            # A flow that it has refused doesn't return to it.
            recent_s = KEPT_S + SOON_S + self._world.stopped_since(refused_at)
            if self._world.timeline.now - refused_at < recent_s:
                return True
        # Of an answer and a refusal that are there at once the process may read either first.
        heard_at = self._heard_at.get(at, 0.0) - _NEAR_S
        return failed_at > 0 and (at in self._refused or heard_at <= failed_at)
