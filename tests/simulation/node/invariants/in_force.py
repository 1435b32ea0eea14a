"""A change of a namespace is in force within the time that its own size takes, whatever other
namespaces change meanwhile: an address that is a Service's is led, and one that is none isn't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..claims import Claim
from ..families import like
from .base import Invariant

if TYPE_CHECKING:
    from ..world import World

_LOOK_S = 1.0
_OUTSIDE = "10.3.0.1"


class InForce(Invariant):
    """See the module."""

    NAME = "changes in force in time"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._look_at = 0.0

    def look(self) -> None:
        """Part of Invariant."""
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
            claims = [truth.claims_at(at) for truth in states]
            if {_namespace_of(claim) for some in claims for claim in some} - {namespace}:
                # Which of several namespaces has it may change with either.
                continue
            owned = [at in truth.frontends for truth in states]
            if any(owned) is all(owned):
                is_led = world.kernel.is_led(like(_OUTSIDE, at[0]), at)
                what = f"{at} is {'led' if is_led else 'not led'} {bound_s:.1f} s after a change"
                self.check(is_led is all(owned), what)


def _namespace_of(claim: Claim) -> str:
    return str(claim.service["metadata"]["namespace"])
