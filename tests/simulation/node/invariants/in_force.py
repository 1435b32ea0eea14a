"""The time until a namespace's change is applied depends only on that namespace's size.

Then there are rules for the addresses of Services, and for no others.
"""

from __future__ import annotations

from ..claims import Claim
from ..expecting import is_made_anew
from ..families import like
from .base import Invariant

_LOOK_S = 1.0
_OUTSIDE = "10.3.0.1"


class InForce(Invariant):
    """Judges the rules' addresses, as the module describes."""

    NAME = "changes in force in time"
    _look_at = 0.0

    def look(self) -> None:
        world, now = self._world, self._world.timeline.now
        if now < self._look_at or world.agent is None or not world.agent.is_serving:
            return
        self._look_at = now + _LOOK_S
        for namespace in sorted(world.plan.turns_of):
            bound_s = world.freshness.prompt_s + world.plan.turns_of[namespace]
            if now - world.freshness.calm_at >= bound_s:
                self._check_namespace(namespace, bound_s)

    def _check_namespace(self, namespace: str, bound_s: float) -> None:
        world, now = self._world, self._world.timeline.now
        states = list(world.cluster.between(now - bound_s, now))
        for at in world.cluster.dialled:
            claims = {id(c.service): c for truth in states for c in truth.claims_at(at)}.values()
            if {_namespace_of(claim) for claim in claims} - {namespace}:
                # The owner may change with any of several namespaces that claim the address.
                continue
            if world.plan.endpoint_s and any(is_made_anew(claim, states) for claim in claims):
                # A Service with a new cluster IP has no address until its turn.
                continue
            owned = [at in truth.frontends for truth in states]
            # At a ClusterIP, clients of other ports may be led to the refuse port.
            is_other = not any(owned) and any(at[0] in one.only_cluster_ips for one in states)
            if any(owned) is all(owned) and not is_other:
                is_led = world.kernel.is_led(like(_OUTSIDE, at[0]), at)
                what = f"{at} is {'led' if is_led else 'not led'} {bound_s:.1f} s after a change"
                self.check(is_led is all(owned), what)


def _namespace_of(claim: Claim) -> str:
    return str(claim.service["metadata"]["namespace"])
