"""Whether endpoints would see their clients' own addresses; the judge is pure."""

from __future__ import annotations

from ...errors import SteeringError
from ...policy.places import NodeLink
from ...steering.others import list_links, nft_lacks_for_answers
from ..preserving import why_impossible
from .finding import Finding, ok, warning


def find_obstacle() -> str:
    """Return why no client's address could be kept here, in words; empty where some could."""
    try:
        links = [NodeLink(link.number, link.name, link.kind) for link in list_links()]
        return why_impossible(links) or nft_lacks_for_answers()
    except SteeringError as exc:
        return exc.message


def judge_preserving(why_not: str) -> list[Finding]:
    """Say whether endpoints on this node would see their clients' addresses.

    Args:
        why_not: As :func:`find_obstacle` gives it.
    """
    if not why_not:
        return [ok("client addresses", "endpoints on this node see their clients' own")]
    return [
        warning(
            "client addresses",
            f"endpoints see this node's address instead of their clients': {why_not}",
            way_out="mend that, or --preserve-client-address=never where nobody needs them",
        )
    ]
