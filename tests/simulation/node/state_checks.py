"""What an agent notes of its last state on disk, and says of its source, while that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from userspace_proxy.facts import StatusFacts

    from .agents import AgentRun
    from .world import World

CURRENT, AWAY = "state noted as current", "source that is away"

# A refused request, and the longest wait before it.
_NOTICED_S = 1.5
# The same for what is shown, with the first requests of an agent.
_SHOWN_S = 2.0
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
    # Without one of these an agent isn't current: what has failed for longest decides.
    began = [failure.since for failure in api.failures]
    since = max(min(began, default=0.0), agent.process.loop.held_until)
    if began and world.clock_set_at >= since:
        world.judgements.excuse(CURRENT, "the clock was set since")
        return
    for_s = world.timeline.now - ago_s - since if began else 0.0
    what = f"{name} is noted as current, {for_s:.1f} s after requests began to fail"
    world.judgements.check(CURRENT, for_s < _NOTICED_S, what)


def check_source(world: World, run: AgentRun, facts: StatusFacts) -> None:
    """Judge that a source shows a problem while every request fails, and none once they succeed.

    Meanwhile, and while the server is silent, it shows what the last answers were.
    """
    api, now = world.api, world.timeline.now
    if api is None:
        return
    check = world.judgements.check
    shown = list(facts.source.problems)
    asked_at = api.problems_of(run.process).asked_at
    began = max(asked_at, run.process.loop.held_until, api.server.silent_until)
    if api.fails_wholly_since(now - _SHOWN_S) and began < now - _SHOWN_S:
        for_s = now - max(began, api.each.since)
        what = f"each request has failed for {for_s:.1f} s, and the source has no problem"
        check(AWAY, bool(shown), what)
    elif world.freshness.is_calm and not api.failures:
        is_right = not shown and facts.source.is_synced
        check(AWAY, is_right, f"the API server answers, and the status has {shown}")
    elif (wanted := api.problems_of(run.process).is_shown()) is None:
        world.judgements.excuse(AWAY, "an answer has just arrived, or a watch broke off again")
    else:
        what = f"the last answers have {'a' if wanted else 'no'} problem, and the status {shown}"
        check(AWAY, bool(shown) is wanted, what)
