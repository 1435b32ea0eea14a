"""Checks the interfaces, routes and sysctls that affect steering."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from ..errors import SteeringError
from ..kernel.interfaces import InterfaceView, list_interfaces
from ..kernel.routes import route_refusal
from .finding import Finding, error, ok, warning

SYSCTLS = (
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_forward",
    "net.ipv4.tcp_tw_reuse",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
)
# If this share of the conntrack table is used, a warning predicts dropped connections.
_CONNTRACK_SHORT = 0.9
# How long a closed connection occupies its source port. Source: TCP_TIMEWAIT_LEN of linux/tcp.h.
_TIME_WAIT_S = 60


def look_at_interfaces() -> InterfaceView | None:
    """Return the interfaces; None if they can't be listed."""
    try:
        return list_interfaces()
    except SteeringError:
        return None


def judge_interfaces(
    view: InterfaceView | None, steering: str, ranges: Iterable[str]
) -> list[Finding]:
    """Report the effect of interfaces without an IPv4 address on IPv4 Services.

    Args:
        ranges: Service ranges or addresses; an IPv6-only cluster has no IPv4 ranges.
    """
    if view is None or steering not in ("iptables", "nftables") or not view.unnumbered:
        return []
    if all(":" in cidr for cidr in ranges):
        return []
    names = ", ".join(view.unnumbered[:3])
    more = f" and {len(view.unnumbered) - 3} more" if len(view.unnumbered) > 3 else ""
    if not view.addresses:
        return [
            error(
                "interfaces",
                f"{names}{more} without an IPv4 address, and this node has no other: traffic that "
                "arrives there can't be steered",
                hint="ip addr add ADDRESS/32 dev lo",
            )
        ]
    return [
        ok(
            "interfaces",
            f"{names}{more} without an IPv4 address: traffic that arrives there is sent to an "
            f"address of this node ({view.addresses[0]}) instead of the interface's",
        )
    ]


def find_refusals(ips: Iterable[str]) -> dict[str, str]:
    """Return by address why programs on this node can't dial it, as the kernel reports.

    The reason is empty if programs can dial the address; addresses whose query fails are omitted.
    """
    refusals = {}
    for ip in ips:
        with contextlib.suppress(SteeringError):
            refusals[ip] = route_refusal(ip)
    return refusals


def judge_routes(ranges: Iterable[str], refusals: Mapping[str, str]) -> list[Finding]:
    """Report whether programs on this node can dial these Service ranges or addresses."""
    found = []
    for cidr in ranges:
        refusal = refusals.get(sample_of(cidr))
        if refusal:
            family = "-6 " if ":" in cidr else ""
            found.append(
                warning(
                    "routes",
                    f"programs on this node can't dial {cidr}: {refusal}, before any rule is "
                    "evaluated",
                    hint=f"ip {family}route add {cidr} dev lo, or a default route",
                )
            )
        elif refusal is not None:
            found.append(ok("routes", f"programs on this node can dial {cidr}"))
    return found


def sample_of(cidr: str) -> str:
    """Return a typical Service address of a range: its second address, or its only one."""
    network = ipaddress.ip_network(cidr, strict=False)
    return str(network[min(1, network.num_addresses - 1)])


def judge_sysctls(values: Mapping[str, str]) -> list[Finding]:
    """Report sysctls that affect the proxy; ``values`` is from :func:`read_sysctls`."""
    return [*_forwarding(values), *_source_ports(values), *_conntrack(values)]


def _forwarding(values: Mapping[str, str]) -> Iterator[Finding]:
    if values.get("net.ipv4.ip_forward") == "0":
        yield ok(
            "kernel",
            "net.ipv4.ip_forward is 0: Services work without it, except on the kernel path; direct "
            "IPv4 connections between pods don't",
        )


def _source_ports(values: Mapping[str, str]) -> Iterator[Finding]:
    reuse = values.get("net.ipv4.tcp_tw_reuse")
    try:
        first, last = map(int, values["net.ipv4.ip_local_port_range"].split())
    except (KeyError, ValueError):
        return
    if reuse is not None and reuse != "1":
        a_second = (last - first + 1) // _TIME_WAIT_S
        yield warning(
            "kernel",
            f"net.ipv4.tcp_tw_reuse is {reuse}: beyond {a_second} short connections per second to "
            "one endpoint, source ports run out and clients are reset",
            "/proc/sys/net/ipv4/tcp_tw_reuse",
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
        )


def _conntrack(values: Mapping[str, str]) -> Iterator[Finding]:
    try:
        used = int(values["net.netfilter.nf_conntrack_count"])
        limit = int(values["net.netfilter.nf_conntrack_max"])
    except (KeyError, ValueError):
        return
    if limit and used >= limit * _CONNTRACK_SHORT:
        yield warning(
            "kernel",
            f"the conntrack table is nearly full: {used:,} of {limit:,} entries",
            "/proc/sys/net/netfilter/nf_conntrack_max",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}",
        )
