"""Finds firewalls of other programs that would drop packets steered to the proxy; pure."""

from __future__ import annotations

from ..steering.others import FIREWALLD, find_firewalls
from .finding import Finding, error, ok
from .kernel_view import KernelView

_TOPIC = "firewall"


def judge_firewalls(
    kernel: KernelView, steering: str, proxy_ports: tuple[int, int]
) -> list[Finding]:
    """Report chains that drop packets steered to the proxy."""
    if steering in ("none", ""):
        return []
    found = [
        error(_TOPIC, str(firewall), f"chain {firewall.chain}", firewall.hint)
        for firewall in find_firewalls(kernel.nft, kernel.legacy_filter, steering, proxy_ports)
    ]
    if found or kernel.unread:
        return found
    if FIREWALLD in kernel.nft:
        return [ok(_TOPIC, "firewalld is running and accepts translated packets")]
    return [ok(_TOPIC, "no chain drops packets that are steered to the proxy")]
