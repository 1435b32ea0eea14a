"""Finds firewalls of other programs that would drop packets steered to the proxy; pure."""

from __future__ import annotations

from ..steering.others import FIREWALLD, find_firewalls
from .finding import Finding, error, ok
from .kernel_view import KernelView

_TOPIC = "firewall"


def judge_firewalls(
    kernel: KernelView, steering: str, proxy_ports: tuple[int, int]
) -> list[Finding]:
    """Say which chains drop packets that are steered to the proxy.

    Args:
        kernel: What was read.
        steering: The name of the proxy's steering.
        proxy_ports: First and last.
    """
    if steering in ("none", ""):
        return []
    found = [
        error(_TOPIC, str(firewall), f"chain {firewall.chain}", firewall.way_out)
        for firewall in find_firewalls(kernel.nft, kernel.legacy_filter, steering, proxy_ports)
    ]
    if found or kernel.unread:
        return found
    return [ok(_TOPIC, _well(kernel))]


def _well(kernel: KernelView) -> str:
    if FIREWALLD in kernel.nft:
        return "firewalld is running and accepts translated packets"
    return "no chain drops packets that are steered to the proxy"
