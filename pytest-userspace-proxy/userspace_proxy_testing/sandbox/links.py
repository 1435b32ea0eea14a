"""Generates the ``ip`` commands and sysctls that connect a new namespace.

Every link is a veth pair. The *near* end is in the existing namespace (a node, or the LAN), the
*far* end is ``eth0`` of the new one.

Rule 1: this module runs nothing; it returns lines for ``ip -batch`` and sysctls.
Rule 2: all routes of a far end are in ``Wiring.routes``, so that they can be removed
        and restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from .address_plan import Address, AddressPlan, Network, by_family, nth

Mode = Literal["routed", "bridge", "unnumbered"]

BRIDGE = "cni0"
LAN_BRIDGE = "lan0"
UPLINK = "uplink"
# Calico's gateways: the near end answers ARP for the first; the second is its own address.
UNNUMBERED_GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


class FarRoute(NamedTuple):
    """One route of a far end."""

    to: str
    how: str

    def line(self) -> str:
        """Return the line that adds the route."""
        return f"route replace {self.to} {self.how}"

    def blackhole(self) -> str:
        """Return the line that makes the route drop packets silently."""
        return f"route replace blackhole {self.to}"


class Wiring(NamedTuple):
    """The link of one new namespace; ``near`` is applied first, because it creates the link."""

    near: tuple[str, ...]
    far: tuple[str, ...]
    routes: tuple[FarRoute, ...]
    near_sysctls: tuple[str, ...] = ()

    def far_lines(self) -> tuple[str, ...]:
        """Return all lines for the far end."""
        return (*self.far, *(route.line() for route in self.routes))


class FarEnd(NamedTuple):
    """The new namespace of a link."""

    pid: int
    """The PID of a process in the new namespace."""
    addresses: tuple[Address, ...]


def routed_pod(near: str, pod: FarEnd, gateways: Sequence[Address]) -> Wiring:
    """Return a pod's link: a veth whose near end has the gateway's address."""
    return Wiring(
        near=(
            *_veth(near, pod.pid),
            *(f"address add {gateway} dev {near}" for gateway in gateways),
            *(f"route replace {address} dev {near}" for address in pod.addresses),
        ),
        far=_eth0(pod.addresses),
        routes=(*_on_link(gateways), *_default_by(gateways)),
    )


def unnumbered_pod(near: str, pod: FarEnd, node: Sequence[Address]) -> Wiring:
    """Return a pod's link as with Calico: the near end has no IPv4 address, and answers all ARP.

    Args:
        node: The node's own addresses, the sources of its packets to the pod.
    """
    to_pod = [
        f"route replace {address} dev {near} src {own}"
        for address in pod.addresses
        for own in node
        if own.version == address.version
    ]
    link_local = [f"address add {UNNUMBERED_GATEWAYS[6]}/64 dev {near}"]
    families = [address.version for address in pod.addresses]
    return Wiring(
        near=(*_veth(near, pod.pid), *(link_local if 6 in families else ()), *to_pod),
        far=_eth0(pod.addresses),
        routes=(
            FarRoute(UNNUMBERED_GATEWAYS[4], "dev eth0"),
            *(FarRoute(DEFAULT[v], f"via {UNNUMBERED_GATEWAYS[v]} dev eth0") for v in families),
        ),
        # Set the delay to 0: by default, the kernel delays a proxied ARP answer by up to 0.8 s.
        near_sysctls=(
            f"net/ipv4/conf/{near}/proxy_arp=1",
            f"net/ipv4/neigh/{near}/proxy_delay=0",
        ),
    )


def bridged_pod(near: str, pod: FarEnd, subnets: Sequence[Network]) -> Wiring:
    """Return a pod's link to the node's bridge, on which pods reach each other directly."""
    return Wiring(
        near=(*_veth(near, pod.pid, BRIDGE), f"link set {near} type bridge_slave hairpin on"),
        far=_eth0(pod.addresses),
        routes=(
            *(FarRoute(str(subnet), "dev eth0") for subnet in subnets),
            *_default_by(nth(subnets, 1)),
        ),
    )


def bridge(subnets: Sequence[Network]) -> tuple[str, ...]:
    """Return the lines that create the node's bridge, the gateway of its subnets."""
    gateways = nth(subnets, 1)
    return (
        *_new_bridge(BRIDGE, "02:00:00:00:00:01"),
        *(f"address add {a}/{n.prefixlen} dev {BRIDGE}" for n, a in by_family(subnets, gateways)),
    )


def lan(plan: AddressPlan, router: Sequence[Address]) -> tuple[str, ...]:
    """Return the lines that create the segment between nodes and outside clients.

    Its router sends packets for all other addresses to ``uplink``, an empty link, and therefore
    reports these addresses as unreachable (``lan_sysctls``).
    """
    return (
        *_new_bridge(LAN_BRIDGE, "02:00:00:00:00:02"),
        *(
            f"address add {a}/{n.prefixlen} dev {LAN_BRIDGE}"
            for n, a in by_family(plan.nodes, router)
        ),
        *(f"route add {n} dev {LAN_BRIDGE}" for n in plan.outside),
        f"link add {UPLINK} type veth peer name nowhere",
        "link set nowhere up",
        f"link set {UPLINK} up",
        *(f"route add {DEFAULT[n.version]} dev {UPLINK}" for n in plan.nodes),
    )


def lan_sysctls(plan: AddressPlan) -> list[str]:
    """Return the settings with which the router's address resolution on ``uplink`` takes 10 ms.

    An unreachable route would be worse: the kernel sends five ICMP errors, then one per second, and
    TCP delays its reaction to an error by 1 s if the error arrives while TCP is sending.
    """
    return [
        f"net/ipv{network.version}/neigh/{UPLINK}/{setting}"
        for network in plan.nodes
        for setting in ("mcast_solicit=1", "retrans_time_ms=10")
    ]


def node(
    near: str,
    far: FarEnd,
    plan: AddressPlan,
    *,
    pods: Sequence[Network],
    router: Sequence[Address],
) -> Wiring:
    """Return the link of a node to the LAN.

    Args:
        pods: The node's share of the pod ranges; addresses without a pod are unreachable.
        router: The LAN's router, the default gateway.
    """
    on_link = (*plan.nodes, *plan.outside)
    return Wiring(
        near=_veth(near, far.pid, LAN_BRIDGE),
        far=(*_eth0(far.addresses), *(f"route add unreachable {n}" for n in pods)),
        routes=(*(FarRoute(str(n), "dev eth0") for n in on_link), *_default_by(router)),
    )


def outside(near: str, far: FarEnd, plan: AddressPlan, *, via: Sequence[Address]) -> Wiring:
    """Return a client's link to the LAN; it has routes to Services through ``via``, not to pods."""
    on_link = (*plan.outside, *plan.nodes)
    through = by_family(plan.steered_outside(), via)
    return Wiring(
        near=_veth(near, far.pid, LAN_BRIDGE),
        far=_eth0(far.addresses),
        routes=(
            *(FarRoute(str(n), "dev eth0") for n in on_link),
            *(FarRoute(str(n), f"via {node} dev eth0") for n, node in through),
        ),
    )


def to_node(pods: Sequence[Network], addresses: Sequence[Address]) -> list[str]:
    """Return the lines that add a node's routes to another node's pods."""
    return [f"route replace {pod} via {node}" for pod, node in by_family(pods, addresses)]


def _veth(near: str, far_pid: int, master: str = "") -> tuple[str, ...]:
    return (
        f"link add {near} type veth peer name eth0 netns {far_pid}",
        f"link set {near} master {master} up" if master else f"link set {near} up",
    )


def _eth0(addresses: Sequence[Address]) -> tuple[str, ...]:
    return ("link set eth0 up", *(_own_address(address) for address in addresses))


def _own_address(address: Address) -> str:
    # The address has no prefix, so that the kernel adds no routes. Even with duplicate detection
    # off, an IPv6 address can't be bound for a moment, except with nodad.
    return f"address add {address} dev eth0{' nodad' if address.version == 6 else ''}"


def _new_bridge(name: str, mac: str) -> tuple[str, ...]:
    # Without its own MAC, a bridge takes the lowest MAC of its ports, so adding or removing a port
    # breaks neighbours' entries. Snooping may delay IPv6 neighbour discovery.
    return (
        f"link add {name} address {mac} type bridge mcast_snooping 0",
        f"link set {name} up",
    )


def _on_link(gateways: Sequence[Address]) -> tuple[FarRoute, ...]:
    return tuple(FarRoute(str(gateway), "dev eth0") for gateway in gateways)


def _default_by(gateways: Sequence[Address]) -> tuple[FarRoute, ...]:
    return tuple(FarRoute(DEFAULT[g.version], f"via {g} dev eth0") for g in gateways)
