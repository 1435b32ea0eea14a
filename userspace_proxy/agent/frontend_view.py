"""States where each frontend of a Service port leads."""

from __future__ import annotations

from ..facts import FrontendFacts, facts_of_frontend
from ..model import Frontend
from ..steering import Bind, Forward
from .rounds.served_ports import ServedPort


def view_frontend(served: ServedPort, frontend: Frontend, bind: Bind) -> FrontendFacts:
    """Return the facts about a frontend.

    Args:
        bind: Decides how its target is worded.
    """
    is_held = frontend in served.held_by_others
    is_unsteered = frontend in served.unsteered
    return facts_of_frontend(
        frontend,
        "held by another program" if is_held else _target(served, frontend, bind),
        is_reached=frontend in served.listeners and not is_held and not is_unsteered,
    )


def _target(served: ServedPort, frontend: Frontend, bind: Bind) -> str:
    if frontend in served.unsteered:
        return "not routed to this node"
    listener = served.listeners.get(frontend)
    if listener is None or not listener.is_serving:
        return "refused"
    if served.plan.serving.admits == ():
        return "dropped"
    if isinstance(target := served.steered.get(frontend), Forward) and target.is_on:
        return "the kernel, straight to endpoints"
    if bind is Bind.PROXY_PORT:
        return f"proxy port {listener.address.port}"
    if listener.address == frontend.address:
        return "listens there"
    return str(listener.address)
