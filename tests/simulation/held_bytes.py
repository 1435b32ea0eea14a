"""Judges that bytes which are to travel with others aren't held back when none follow.

    a PROXY header, or a client's last bytes ──MSG_MORE──▶ held ──more, a FIN, or "at once"──▶ sent

Linux would send them after 200 ms: each connection whose endpoint speaks first would be that late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

ORACLE = "held bytes"


def after_turn(world: World) -> None:
    """Judge what was written to be sent with more: the data plane has nothing else to do now."""
    held = world.network.held
    for stream in held:
        is_held = stream.is_holding and bool(stream.outbox)
        why = f"{len(stream.outbox)} B of {stream.name} wait for more, and none follow"
        world.judgements.check(ORACLE, not is_held, why)
    held.clear()
