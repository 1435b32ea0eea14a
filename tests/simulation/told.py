"""Judges what a line of the connection log tells of a connection, besides its end.

    which Service, from where, at which address ─┐
    which endpoints failed before, how many      ├─▶ what the oracles of choices have seen
    whose address its endpoint sees             ─┘

These are what is logged, observed, and drawn as edges: a connection is looked for by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userspace_proxy.model import SocketAddress

if TYPE_CHECKING:
    from .tcp_ends import Relayed
    from .world import World

WHERE, DIALS, SOURCE = "told where", "told dials", "told source"
ORACLES = (WHERE, DIALS, SOURCE)


def judge(world: World, number: int, relayed: Relayed | None, line: dict[str, Any]) -> None:
    """Judge a line, as it is written; before the choices of its client are forgotten."""
    attempt, judge = world.choices.attempts.get(number), world.judgements
    client = world.clients.get(number)
    if attempt is None or client is None or client.stream.local is None:
        return
    own = str(SocketAddress(*client.stream.local))
    via = "" if own == str(client.served_as) else own
    wanted = world.services[client.service].label, str(client.dialled), via
    told = line["service"], line["frontend"], line["via"]
    judge.check(WHERE, told == wanted, f"client {number}: {told}, not {wanted}")
    if relayed is None or attempt.dial is None:
        return
    source = "client" if attempt.dial.is_preserved else "node"
    judge.check(SOURCE, line["source"] == source, f"client {number} was seen as {source}")
    if attempt.shortage_at >= 0:
        judge.excuse(DIALS, "the kernel lacked something for it")
        return
    failed = [each.partition(" ")[0] for each in filter(None, line["failed"].split(", "))]
    tried = [str(each) for each in attempt.tried]
    is_right = failed == tried and line["dials"] == len(tried) + 1
    why = f"client {number}: {line['dials']} dials, {failed} failed, not {tried}"
    judge.check(DIALS, is_right, why)
