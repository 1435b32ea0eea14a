"""Removes the kernel's UDP associations that lead to the wrong port, by pyroute2.

A UDP client that keeps its source port keeps its association, and rules are only asked for the
first packet of one: without this it would go on to the old port, or past us, for ever.

Rule 1: call it after the rules are in force: what is made from then on leads right.
Rule 2: an association that leads right stays, so a client lives through our restart.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import SteeringError

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_HINT = "modprobe nf_conntrack_netlink, grant NET_ADMIN, or run with --steering=none"
# The kernel filters a listing by one address and port, in 0.3 µs an entry; to read an entry here
# takes 0.33 ms (measured with 60,000). Beyond so many one full listing is less work.
FULL_LISTING_ABOVE = 1000


class UdpFrontend(NamedTuple):
    """What a client dialled."""

    ip: str
    port: int


# Asked for where only the answer's coming matters; nobody dials port 0.
_NOBODY = UdpFrontend("", 0)


class Association(NamedTuple):
    """One entry: who dialled what, and where the answers come from."""

    client: tuple[str, int]
    dialled: UdpFrontend
    answered_from: tuple[str, int]

    def leads_to(self, port: int | None) -> bool:
        """Return whether it leads to a port of ours, or if None past us."""
        if port is None:
            return self.answered_from == self.dialled
        return self.answered_from[1] == port


def forget_stale(version: int, targets: Mapping[UdpFrontend, int | None]) -> int:
    """Remove the associations of these frontends that don't lead to their port.

    Args:
        version: 4 or 6.
        targets: The port that each leads to now; None where it is no longer steered.

    Returns:
        How many were removed.

    Raises:
        SteeringError: The kernel doesn't list or remove associations.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    if not targets:
        return 0
    try:
        with _socket(version) as connection:
            # A set: filters may overlap.
            stale = {
                association
                for association in _associations(connection, version, targets)
                if association.dialled in targets
                and not association.leads_to(targets[association.dialled])
            }
            for association in stale:
                _remove(connection, version, association)
    except (OSError, NetlinkError) as exc:
        raise SteeringError(f"cannot remove conntrack entries: {exc}", hint=_HINT) from exc
    return len(stale)


def check(version: int) -> None:
    """Make sure that associations can be listed here.

    Raises:
        SteeringError: With the kernel's answer.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with _socket(version) as connection:
            list(_associations(connection, version, {_NOBODY: None}))
    except (OSError, NetlinkError) as exc:
        raise SteeringError(f"cannot list conntrack entries: {exc}", hint=_HINT) from exc


def _socket(version: int) -> Any:
    from pyroute2 import NFCTSocket

    return NFCTSocket(nfgen_family=FAMILIES[version])


def _associations(
    connection: Any, version: int, targets: Mapping[UdpFrontend, int | None]
) -> Iterator[Association]:
    """Yield UDP associations, those of the targets among them; older kernels yield all."""
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    filters: list[dict[str, Any]] = [{}]
    if len(targets) <= FULL_LISTING_ABOVE:
        filters = [_filter(version, target) for target in targets]
    for fields in filters:
        wanted = NFCTAttrTuple(family=FAMILIES[version], proto=socket.IPPROTO_UDP, **fields)
        for entry in connection.dump(tuple_orig=wanted):
            association = _read(entry)
            if association is not None:
                yield association


def _filter(version: int, target: UdpFrontend) -> dict[str, Any]:
    # Kernel 6.18 compares IPv6 addresses the wrong way round: it lists all but the one asked for.
    # Source: ctnetlink_filter_match_tuple(), "!ipv6_addr_cmp(…)".
    if version == 6 or target == _NOBODY:
        return {"dport": target.port}
    return {"daddr": target.ip, "dport": target.port}


def _read(entry: Any) -> Association | None:
    origin = _tuple(entry.get_attr("CTA_TUPLE_ORIG"))
    answer = _tuple(entry.get_attr("CTA_TUPLE_REPLY"))
    if origin is None or answer is None:
        return None
    return Association(origin[0], UdpFrontend(*origin[1]), answer[0])


def _tuple(attribute: Any) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Return source and destination of one direction, or None if it isn't UDP."""
    if attribute is None:
        return None
    ip = attribute.get_attr("CTA_TUPLE_IP")
    ports = attribute.get_attr("CTA_TUPLE_PROTO")
    if ports.get_attr("CTA_PROTO_NUM") != socket.IPPROTO_UDP:
        return None
    version = "V4" if ip.get_attr("CTA_IP_V4_SRC") is not None else "V6"
    return (
        (ip.get_attr(f"CTA_IP_{version}_SRC"), ports.get_attr("CTA_PROTO_SRC_PORT")),
        (ip.get_attr(f"CTA_IP_{version}_DST"), ports.get_attr("CTA_PROTO_DST_PORT")),
    )


def _remove(connection: Any, version: int, association: Association) -> None:
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    origin = NFCTAttrTuple(
        family=FAMILIES[version],
        saddr=association.client[0],
        daddr=association.dialled.ip,
        proto=socket.IPPROTO_UDP,
        sport=association.client[1],
        dport=association.dialled.port,
    )
    try:
        connection.entry("del", tuple_orig=origin)
    except NetlinkError as exc:
        # ENOENT: it ended by itself.
        if exc.code != 2:
            raise
