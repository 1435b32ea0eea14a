"""Words the states of a Service port whose clients wait for an endpoint.

Rule 1: that they wait comes first; how many got no endpoint before stands behind it.
"""

from __future__ import annotations

from collections.abc import Collection

from ..facts import Level, PortFacts, PortState
from ..facts.units import capitalised, plural, seconds_in_words, waiting_in_words
from ..model import Cause, CauseCode
from .lately import many_failed

MORE_ROOM = "Raise userspace-proxy.io/max-connections, or add endpoints"
"""What to do about it."""
Judgement = tuple[Level, PortState, str, tuple[Cause, ...]]
"""Level, word, sentence, and the causes that decide them."""


def judge_holding(port: PortFacts) -> Judgement:
    """Judge a Service port without endpoints whose clients wait."""
    cause, waits = port.cause, port.waits
    if port.hold_s is None or waits.waiting:
        return judge_held(port, str(cause))
    sentence = f"Clients would wait for an endpoint for {seconds_in_words(port.hold_s)}: {cause}"
    if waits.total and waits.timeouts + waits.overflows + waits.left == waits.total:
        lost = f"{plural(waits.total, 'client')} waited, and none was served"
        return Level.ATTENTION, PortState.HOLDING, f"{sentence}; {lost}", ()
    # As intended: a workload that is scaled to zero has no endpoint most of the time.
    return Level.OK, PortState.HOLDING, sentence, ()


def judge_held(port: PortFacts, why: str, known: Collection[CauseCode] = ()) -> Judgement:
    """Judge a Service port whose clients wait for an endpoint that answers.

    Args:
        why: They wait.
        known: The causes in that.
    """
    held = waiting_in_words(port.waits, port.protocol)
    parts = (f"Holding {held}: {why}", port.waits.problem, many_failed(port, but=known))
    return Level.ATTENTION, PortState.HOLDING, "; ".join(filter(None, parts)), ()


def judge_at_limit(port: PortFacts) -> Judgement:
    """Judge a Service port whose clients wait for endpoints at their limit."""
    return Level.ATTENTION, PortState.AT_LIMIT, capitalised(held_at_limit(port)), ()


def held_at_limit(port: PortFacts) -> str:
    """Return that clients wait, as a clause."""
    held = waiting_in_words(port.waits, port.protocol)
    what = "flow" if port.protocol == "UDP" else "connection"
    limit = plural(port.max_connections or 0, what)
    why = f"endpoints have {limit} each, which is their limit on this node"
    if port.affinity_timeout_s is not None:
        # Others may have fewer.
        keeps = "the endpoint that a client keeps to (sessionAffinity)"
        why = f"{keeps} has {limit}, its limit on this node"
    return f"holding {held}: {why}{'; no byte has come back' if is_silent(port) else ''}"


def is_silent(port: PortFacts) -> bool:
    """Return whether its endpoints have accepted connections, and sent nothing."""
    return port.is_without_answer and port.connections > 0
