"""Words why a dial fails by the routes of this node, as the kernel has reported of them.

A router or firewall may report the same errno by ICMP (``model.failures.OWN_ROUTES``).
"""

from __future__ import annotations

from ..model import Cause, CauseCode, Failure, SocketAddress

_SHOW = "`ip route show table all type "


def by_own_route(endpoint: SocketAddress, failure: Failure) -> Cause:
    """Return the cause of dials of an endpoint that failed by one of ``BY_OWN_ROUTE``."""
    ip = endpoint.ip
    if failure is Failure.NO_ROUTE:
        why = f"this node has no route to {ip}"
        hint = (
            "Compare the address with that of the pod; if they agree, look at the CNI plugin on "
            f"this node, which adds routes to pods: `ip route get {ip}` fails without one"
        )
    elif failure is Failure.ROUTE_PROHIBITS:
        why = "a route or routing rule of this node prohibits it"
        rules = "ip -6 rule" if ":" in ip else "ip rule"
        hint = (
            f"{_SHOW}prohibit match {ip}; {rules}` on this node shows it: remove it, or find what "
            "adds it"
        )
    else:
        why = "a route of this node says so (type unreachable)"
        hint = (
            f"{_SHOW}unreachable match {ip}` on this node shows it: the address is an old one, or "
            "what adds routes here (mostly the CNI plugin) has added none to it"
        )
    sentence = f"{endpoint} is unreachable: {why}"
    return Cause(CauseCode.ENDPOINT_UNREACHABLE, sentence, str(endpoint), hint)


def shows_own_route(cause: Cause) -> bool:
    """Return whether the remedy is about a route of this node, wherever the endpoint is."""
    return cause.hint.startswith(_SHOW)
