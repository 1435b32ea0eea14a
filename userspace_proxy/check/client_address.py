"""Checks whether endpoints would see client addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..agent.watchers.client_address import impossible_reason
from ..agent.watchers.client_bridges import ClientBridges
from ..errors import SteeringError
from ..kernel.netlink import explained
from ..kernel.offers import FOR_BRIDGES, FOR_REPLIES, KernelOffers
from ..kernel.routes import list_links_and_routes, read_bridge_filter
from ..model.addresses import intersect
from ..policy.bridges import BridgeProblem
from ..policy.locality import find_networks
from .finding import Finding, ok, warning


def find_obstacle(kernel: KernelOffers) -> str:
    """Return why client addresses can't be preserved on this node; empty if they can."""
    try:
        with explained("list interfaces"):
            links, _ = list_links_and_routes()
    except SteeringError as exc:
        return exc.message
    return impossible_reason(links) or kernel.obstacle(FOR_REPLIES, "nftables")


def find_bridge_obstacles(
    cluster: Iterable[str], kernel: KernelOffers
) -> tuple[BridgeProblem, ...]:
    """Return why endpoints on bridges wouldn't see clients on their bridge; empty if they would."""
    try:
        links, routes = list_links_and_routes()
    except OSError:
        # Return nothing, because other checks report unreadable links.
        return ()
    bridges = ClientBridges()
    bridges.follow(links, find_networks(links, routes, cluster), read_bridge_filter())
    if bridges.wanted:
        bridges.note((), kernel.obstacle(FOR_BRIDGES, "nftables"))
    return bridges.obstacles


def judge_client_address(reason: str, bridges: Sequence[BridgeProblem] = ()) -> list[Finding]:
    """Report whether endpoints on this node would see client addresses."""
    if reason:
        return [
            warning(
                "client addresses",
                f"endpoints see this node's address, not the client's: {reason}",
                hint="fix this, or set --preserve-client-address=never if no Service needs it",
            )
        ]
    return [
        ok(
            "client addresses",
            "endpoints on this node see client addresses; a pod that reaches itself through a "
            "Service sees this node's address",
        ),
        *(
            warning(
                "client addresses",
                f"endpoints on bridge {bridge} see this node's address instead of that of "
                f"IPv{version} clients on the same bridge: {cause}",
                hint=hint,
            )
            for bridge, version, cause, hint in bridges
        ),
    ]


def judge_trusted_peers(trusted: Sequence[str], pods: Sequence[str]) -> list[Finding]:
    """Report pods among the load balancers whose PROXY headers are trusted."""
    both = intersect(trusted, pods)
    if not both:
        return []
    shown = ", ".join(both[:3])
    return [
        warning(
            "client addresses",
            f"--accept-proxy-protocol contains addresses of pods ({shown}): they can pass for any "
            "client, and their connections without a PROXY header are reset",
            hint="list only the addresses of load balancers",
        )
    ]
