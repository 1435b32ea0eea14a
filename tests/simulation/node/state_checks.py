"""What an agent notes of its last state on disk: it is current only while the source is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

CURRENT = "state noted as current"

# A refused request, and the longest wait before it.
_NOTICED_S = 1.5
# Another time than now by so much is one of before the clock was set.
_OTHER_CLOCK_S = 300.0


def check_noted(world: World, name: str, at: float) -> None:
    """Judge that an agent notes when a file was current.

    Args:
        at: Unix time.
    """
    world.last_states.note_kept(name)
    api, agent = world.api, world.agent
    ago_s = world.unix() - at
    if api is None or agent is None or abs(ago_s) > _OTHER_CLOCK_S:
        return
    since = max(api.failing_since, agent.process.loop.held_until)
    if api.is_failing and world.clock_set_at >= since:
        world.judgements.excuse(CURRENT, "the clock was set since")
        return
    for_s = world.timeline.now - ago_s - since if api.is_failing else 0.0
    what = f"{name} is noted as current, {for_s:.1f} s after requests began to fail"
    world.judgements.check(CURRENT, for_s < _NOTICED_S, what)
