"""Decides which clients a load-balancer IP admits: ``spec.loadBalancerSourceRanges``.

Rule 1: an invalid range admits no client; the other ranges still do. kube-proxy ignores it, and
admits every client if it was the only range.
Rule 2: white space, host bits, leading zeros and IPv4-mapped IPv6 are accepted, as API servers
before 1.36 do.
Rule 3: the old annotation has no effect, as in kube-proxy 1.36, and is reported as a note. Cloud
providers apply it, but pods reach the load-balancer IP without the load balancer.
Rule 4: beyond ``RANGES_MAX`` ranges no client is admitted.

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
"""Networks without clients, one per family."""
RANGES_MAX = 1_000
"""The maximum number of networks of one Service.

A socket filter takes 4,096 instructions (BPF_MAXINSNS), and an IPv4 network up to four of them."""


def read_source_ranges(
    texts: Sequence[str], annotations: Mapping[str, str | None]
) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """Return the networks in canonical form, and notes.

    Without networks, all clients are admitted. If a range is invalid, or there are too many,
    :data:`NO_CLIENT` is included.
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
        strict: Whether to reject host bits, leading zeros and IPv4-mapped IPv6, as API servers
            since 1.36 do. kube-proxy reads them as the lenient :func:`parse_ip` does.

    Raises:
        ValueError: The text isn't a network, or isn't in strict notation.

    Source: if not strict, ParseCIDRSloppy of k8s.io/utils/net, and the text of Go's net.IPNet.
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
    """Return the network that was probably meant, or an example."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return "10.0.0.0/8"
    is_host = network.num_addresses == 1 and network.network_address.packed[-1]
    return str(network) if is_host else "10.0.0.0/8"
