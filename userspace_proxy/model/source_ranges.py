"""Decides which clients a load-balancer IP admits: ``spec.loadBalancerSourceRanges``.

Rule 1: an invalid range admits no client, and the Service admits clients of the other ranges.
kube-proxy ignores it, and if it was the only one, admits every client.
Rule 2: white space around a range, bits set after its prefix, leading zeros and IPv4 written as
IPv6 don't matter, because API servers before 1.36 accept them.
Rule 3: the old annotation has no effect, as in kube-proxy 1.36, and leads to a note. Cloud
providers read it, and pods reach the load-balancer IP without their load balancer.
Rule 4: there is a bound for their number: beyond it no client is admitted.

Source: kube-proxy's newBaseServiceInfo and MapCIDRsByIPFamily; the annotation:
cloud-provider's GetLoadBalancerSourceRanges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from .addresses import without_leading_zeros
from .notes import Note, NoteKind
from .quoting import quoted

ANNOTATION_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"

NO_CLIENT = ("0.0.0.0/32", "::/128")
"""Networks without clients, one of each family."""
RANGES_MAX = 1_000
"""Networks of one Service.

A socket filter takes 4,096 instructions (BPF_MAXINSNS), and an IPv4 network up to four of them.
"""


def read_source_ranges(
    texts: Sequence[str], annotations: Mapping[str, str | None]
) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """Return the networks in canonical form, and notes.

    No networks admit all clients. If a range is invalid, or there are too many, :data:`NO_CLIENT`
    is among them.
    """
    if not texts and (annotations.get(ANNOTATION_SOURCE_RANGES) or "").strip():
        return (), (NoteKind.RANGES_IN_ANNOTATION(),)
    if len(texts) > RANGES_MAX:
        return NO_CLIENT, (NoteKind.TOO_MANY_RANGES(len(texts), RANGES_MAX),)
    networks: dict[str, None] = {}
    notes = []
    for text in texts:
        try:
            networks[parse_range(text.strip(), strict=False)] = None
        except ValueError as exc:
            notes.append(NoteKind.RANGE_WRONG(str(exc)))
    if notes:
        networks.update(dict.fromkeys(NO_CLIENT))
    return tuple(networks), tuple(notes)


def parse_range(text: str, *, strict: bool = True) -> str:
    """Return a network in canonical form.

    Args:
        strict: Whether bits set after the prefix, leading zeros, and IPv4 written as IPv6 are
            errors, as for API servers since 1.36. kube-proxy reads them as :func:`parse_ip` does.

    Raises:
        ValueError: It isn't a network, or not in strict notation.

    Source: else ParseCIDRSloppy of k8s.io/utils/net, and the text of Go's net.IPNet.
    """
    read = text if strict else without_leading_zeros(text)
    address, slash, length = read.partition("/")
    # ``ip_network`` also accepts netmasks (/255.0.0.0), zones and lengths with a leading zero.
    if not slash or "%" in address or not length.isdecimal() or str(int(length)) != length:
        raise ValueError(f"{quoted(text)} is not a network (write {_meant(text)})")
    try:
        network = ipaddress.ip_network(read, strict=False)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not a network (write 10.0.0.0/8)") from None
    if strict and ipaddress.ip_address(address) != network.network_address:
        raise ValueError(f"{quoted(text)} has bits set after its prefix (write {network})")
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None:
        if strict:
            raise ValueError(f"{quoted(text)} is a network of IPv4-mapped IPv6 addresses")
        return f"{first.ipv4_mapped}/{network.prefixlen - 96}"
    return str(network)


def _meant(text: str) -> str:
    """Return the network of one address, or an example where the text is none of a host."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return "10.0.0.0/8"
    is_host = network.num_addresses == 1 and network.network_address.packed[-1]
    return str(network) if is_host else "10.0.0.0/8"
