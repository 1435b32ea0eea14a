"""Names of addresses: ``10.0.96.10.in-addr.arpa.`` is 10.96.0.10."""

from __future__ import annotations

import ipaddress

REVERSE_ZONES = ("in-addr.arpa.", "ip6.arpa.")


def address_of(name: str) -> str | None:
    """Return the address that a reverse name stands for, in canonical form; None if it has none.

    Args:
        name: In lower case, with a dot at its end.

    Source: RFC 1035, section 3.5, and RFC 3596, section 2.5.
    """
    labels, zone = name.removesuffix("."), ""
    for suffix in REVERSE_ZONES:
        if name.endswith(f".{suffix}"):
            labels, zone = name.removesuffix(f".{suffix}"), suffix
    parts = labels.split(".")[::-1]
    try:
        if zone == REVERSE_ZONES[0]:
            return str(ipaddress.IPv4Address(".".join(parts)))
        if zone and all(len(part) == 1 for part in parts):
            groups = ("".join(parts[i : i + 4]) for i in range(0, len(parts), 4))
            return str(ipaddress.IPv6Address(":".join(groups)))
    except ValueError:
        pass
    return None
