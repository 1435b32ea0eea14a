"""Finds chains of other programs that would drop Services' packets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing

from ..filters.endpoints import find_forward_firewalls
from ..filters.following import ALL_NAT
from ..filters.frontends import EarlierChains, Translation
from ..filters.node import find_firewalls, find_unfollowed
from ..filters.packets import ANY_IP
from ..kernel.interfaces import is_local
from ..model import Frontend, Protocol, SocketAddress, Taken
from ..steering.kernel_view import KernelView
from ..steering.names import is_own_table
from ..steering.nftables.rules import NAT_PRIORITY
from .finding import Finding, error, ok, warning
from .inputs import Inputs

_TOPIC = "firewall"
_STEERED = "packets of Services may be dropped"
_FORWARDED = "packets that the kernel path would forward to endpoints are dropped"
_PRIORITIES = {"nftables": NAT_PRIORITY, "iptables": ALL_NAT}
_ENDPOINTS_MAX = 100


def look_at_firewalls(
    kernel: KernelView, steering: str, proxy_ports: tuple[int, int], inputs: Inputs, path: str
) -> list[Finding]:
    """Report chains that drop packets of the known Services, traced as in ``run``."""
    is_forwarding = steering == "nftables" and path != "userspace"
    translation = Translation()
    if steering in _PRIORITIES:
        translation = Translation(_PRIORITIES[steering], proxy_ports[0])
    with closing(EarlierChains(lambda _frontend: translation, is_own_table)) as earlier:
        taken = earlier.look(inputs.frontends)
        unfollowed = earlier.unfollowed(inputs.frontends)
    endpoints = _endpoints(kernel, inputs) if is_forwarding else ()
    return judge_firewalls(kernel, steering, proxy_ports, endpoints, taken, unfollowed)


def _endpoints(kernel: KernelView, inputs: Inputs) -> Collection[SocketAddress]:
    """Return the manifests' endpoints, or else example addresses on pod links and elsewhere."""
    if inputs.endpoints:
        # Omit this node's own addresses, because packets to them aren't forwarded.
        return [one for one in inputs.endpoints[:_ENDPOINTS_MAX] if not is_local(one.ip)]
    pods = (network for link in kernel.clients if not link.is_uplink for network in link.networks)
    return [SocketAddress(ip, 0) for ip in (*ANY_IP.values(), *(str(pod[0]) for pod in pods))]


def judge_firewalls(
    kernel: KernelView,
    steering: str,
    proxy_ports: tuple[int, int],
    endpoints: Collection[SocketAddress] = (),
    taken: Mapping[Frontend, Taken] | None = None,
    unfollowed: Sequence[str] = (),
) -> list[Finding]:
    """Report chains that drop packets to the proxy, or on the kernel path to endpoints.

    Args:
        endpoints: Destinations of forwarded packets; empty if unknown, or without the kernel path.
        taken: Frontends whose packets other programs take.
        unfollowed: The rules that may take frontends' packets.
    """
    if steering in ("none", ""):
        return []
    tables = kernel.nft, kernel.legacy_filter
    steered = {
        one.chain: of(_TOPIC, f"{_STEERED}: {one.why}", f"chain {one.chain}", one.hint)
        for one in find_firewalls(*tables, steering, proxy_ports, kernel.clients)
        for of in (error if one.is_for_all else warning,)
    }
    for frontend, by in (taken or {}).items():
        of = error if by.is_certain else warning
        one = of(_TOPIC, f"{frontend}: {by.what}", f"chain {by.chain}", by.hint)
        steered.setdefault(by.chain, one)
    forwarded = {
        one.chain: error(_TOPIC, f"{_FORWARDED}: {one.why}", f"chain {one.chain}", one.hint)
        for endpoint in endpoints
        for one in find_forward_firewalls(*tables, endpoint, Protocol.TCP, kernel.clients)
    }
    found = [*steered.values(), *forwarded.values()]
    if kernel.unread:
        return found
    if not steered:
        # ``unfollowed`` covers earlier nftables chains, which are traced for each frontend.
        unfollowed = [
            *unfollowed,
            *find_unfollowed({}, tables[1], "prerouting"),
            *find_unfollowed(*tables, "input"),
        ]
        found.append(_none("packets that are steered to the proxy", unfollowed))
    if endpoints and not forwarded:
        rules = find_unfollowed(*tables, "forward")
        found.append(_none("packets that the kernel path forwards", rules))
    return found


def _none(packets: str, unfollowed: Sequence[str]) -> Finding:
    """Report that no chain drops packets, as far as the rules could be traced."""
    if not unfollowed:
        return ok(_TOPIC, f"no chain drops {packets}")
    first, *others = dict.fromkeys(unfollowed)
    more = f", and {len(others)} more" if others else ""
    return ok(_TOPIC, f"no chain certainly drops {packets}; not followed: {first}{more}")
