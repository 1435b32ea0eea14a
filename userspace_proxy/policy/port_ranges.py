"""Decides which of the requested port ranges are served, and which path they take.

    annotation ─▶ the port's range, by name ─▶ at this address? ─▶ by this steering? ─▶ frontends
                  │ unknown, overlaps           │ not allowed         │ no
                  └──────────────┬──────────────┴─────────────────────┘
                                 ▼ a note; only the port itself is served

Rule 1: the kernel translates the UDP ports of a range, whatever the path of the Service: to see the
port to which a datagram was sent, a socket needs a privilege that workers lack.
Rule 2: if steering doesn't support ranges, each port of a short range has its own listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..causes.cause import Cause
from ..causes.notes import (
    all_at_external,
    kernel_path_unused,
    range_at_node,
    range_not_allowed,
    range_not_possible,
    range_overlaps,
    range_without_node_port,
    range_without_number,
    range_without_port,
)
from ..model import DataPath, FrontendKind, IPFamily, Protocol, Service, ServicePort, is_loopback
from ..model.port_ranges import PORT_MAX, AskedRange, DialledRange
from ..model.serving import Serving
from .facts import NodeFacts
from .path import PathDecision, choose_path

WHY_UDP = "the kernel translates UDP ports of a range, whatever the path of the Service"
WHY_SHARED = "its ports share affinity entries with a range of UDP ports"
LISTENED_MAX = 100
"""The maximum number of ports in a range in which each port has its own listener, which costs a
descriptor per worker."""

Span = tuple[int, int]
"""The first and the last port, both included."""


@dataclass(frozen=True, slots=True)
class ServedRange:
    """The range of one Service port."""

    asked: AskedRange
    spans: tuple[Span, ...]
    """The ports that are served; several spans if other ranges of the Service are within
    ``all``."""

    def cause_at(self, kind: FrontendKind, ip: str, facts: NodeFacts) -> Cause | None:
        """Return why the range isn't served on an address; None if it is."""
        is_cluster_ip = kind is FrontendKind.CLUSTER_IP and facts.port_ranges != "none"
        asked = str(self.asked)
        if not is_cluster_ip and facts.port_ranges != "all":
            return range_not_allowed(asked, ip, facts.port_ranges)
        if ip in facts.addresses or ip in facts.primary_addresses:
            return range_at_node(asked, ip, "this node")
        if ip in facts.all_node_addresses:
            return range_at_node(asked, ip, "another node")
        if not is_cluster_ip and self.asked.has_all_ports:
            return all_at_external(asked, ip)
        if facts.allow_loopback_endpoints and facts.lists_ports and not is_loopback(ip):
            # The range would be served on 127.0.0.1, at other ports.
            return range_not_possible(asked, f"{ip} is no loopback address, and nothing is steered")
        return None


NO_RANGES: Mapping[ServicePort, ServedRange] = {}


def ranges_of(
    service: Service,
) -> tuple[Mapping[ServicePort, ServedRange], Mapping[ServicePort | None, Sequence[Cause]]]:
    """Return the ranges of a Service's ports, and notes about requests that can't be followed.

    The key of a note is the requested port, or None if the Service has no such port.
    """
    asked = service.handling.port_ranges
    if not asked:
        return NO_RANGES, {}
    found: dict[ServicePort, AskedRange] = {}
    notes: dict[ServicePort | None, list[Cause]] = {}
    known = [port for port in service.ports if port.protocol in Protocol.__members__]
    names = tuple(port.name or str(port.port) for port in known)
    for one in asked:
        ports = [port for port in known if one.port in (port.name, str(port.port))]
        if not ports:
            notes.setdefault(None, []).append(range_without_port(str(one), names))
        for port in ports:
            note = None
            if not one.first <= port.port <= one.last:
                note = range_without_number(str(one), port.port)
            elif other := _overlapped(port, one, found):
                note = range_overlaps(str(one), str(other))
            else:
                found[port] = one
                if port.node_port:
                    note = range_without_node_port(str(one), port.node_port)
            if note is not None:
                notes.setdefault(port, []).append(note)
    return {p: ServedRange(one, tuple(_spans(p, one, found))) for p, one in found.items()}, notes


def _overlapped(
    port: ServicePort, one: AskedRange, found: Mapping[ServicePort, AskedRange]
) -> AskedRange | None:
    """Return a range of the same protocol that overlaps this range, or None.

    A range of all ports overlaps only other ranges of all ports.
    """
    return next(
        (
            other
            for at, other in found.items()
            if at.protocol == port.protocol
            and one.is_all is other.is_all
            and one.first <= other.last
            and other.first <= one.last
        ),
        None,
    )


def _spans(
    port: ServicePort, one: AskedRange, found: Mapping[ServicePort, AskedRange]
) -> Iterator[Span]:
    """Yield the ports of a range; for ``all``, the ports outside other ranges of the Service."""
    if not one.is_all:
        yield one.first, one.last
        return
    first = 1
    others = (r for p, r in found.items() if p.protocol == port.protocol and r is not one)
    for other in sorted(others, key=lambda r: r.first):
        if first < other.first:
            yield first, other.first - 1
        first = other.last + 1
    if first <= PORT_MAX:
        yield first, PORT_MAX


def impossible_cause(
    one: ServedRange, protocol: Protocol, family: IPFamily, facts: NodeFacts
) -> Cause | None:
    """Return why this node can't serve a range; None if it can."""
    is_udp = protocol is Protocol.UDP
    why = facts.no_kernel_path.get(family if is_udp else protocol, "")
    if not is_udp and one.asked.last - one.asked.first < LISTENED_MAX:
        return None
    may_be_in_kernel = DataPath.KERNEL in (facts.default_path, *facts.allowed_paths)
    if is_udp and not may_be_in_kernel:
        why = why or "UDP ports need the path kernel, which --allow-paths does not contain"
    return range_not_possible(str(one.asked), why) if why else None


def choose_range_path(
    service: Service,
    path: PathDecision,
    no_kernel_path: str,
    *,
    is_udp_range: bool,
) -> PathDecision:
    """Return the path of a Service port, given its path without ranges.

    Args:
        no_kernel_path: Why the port can't take the kernel path; empty if it can.
        is_udp_range: Whether the port has a range of UDP ports, which only the kernel can serve.
    """
    if path.path is DataPath.KERNEL:
        return path
    if is_udp_range:
        is_used = path.note == kernel_path_unused(path.why)
        return PathDecision(DataPath.KERNEL, WHY_UDP, None if is_used else path.note)
    if not shares_with_udp_range(service):
        return path
    asked = replace(service.handling, path=DataPath.KERNEL)
    kernel = choose_path(asked, DataPath.KERNEL, no_kernel_path, has_affinity=True)
    if kernel.path is not DataPath.KERNEL:
        return path._replace(note=kernel.note)
    return PathDecision(DataPath.KERNEL, WHY_SHARED, path.note)


def shares_with_udp_range(service: Service) -> bool:
    """Return whether all ports share affinity entries, and one of them has a UDP range."""
    handling = service.handling
    if not handling.port_ranges or not handling.shares_affinity:
        return False
    return service.affinity_timeout_s is not None and has_udp_range(service)


def has_udp_range(service: Service) -> bool:
    """Return whether a Service requests a range of UDP ports."""
    names = {one.port for one in service.handling.port_ranges}
    return any(
        port.protocol == Protocol.UDP and not names.isdisjoint((port.name, str(port.port)))
        for port in service.ports
    )


def overflow_reason(ranges: Iterable[DialledRange], serving: Serving) -> str:
    """Return how a range would exceed the valid port numbers at an endpoint; empty if it fits."""
    for one in ranges:
        for endpoint in serving.all_endpoints:
            first, last = (n - one.number + endpoint.port for n in (one.first, one.last))
            if first < 1 or last > PORT_MAX:
                at = f"{endpoint}, which {one.number} leads to"
                return f"{one.first}–{one.last} would be {first}–{last} at {at}"
    return ""
