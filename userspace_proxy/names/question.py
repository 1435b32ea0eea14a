"""Parses names below the cluster's domain, and reverse names.

    web.shop.svc                    a Service
    web-0.web.shop.svc              an endpoint of the Service
    _http._tcp.web.shop.svc         a port of the Service
    10-244-0-3.shop.pod             the address of a pod

Source: Kubernetes' DNS specification 1.1.0, and CoreDNS' plugin kubernetes (parse.go of 1.15).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ..model import ServiceKey


@dataclass(frozen=True, slots=True)
class Question:
    """The parts of a name without the cluster's domain; a missing part is empty."""

    kind: str = ""
    """``svc`` or ``pod``; empty for the domain itself, and for the names ``svc`` and ``pod``
    directly below it."""
    namespace: str = ""
    name: str = ""
    """The Service's name; for a pod, its address with dashes."""
    endpoint: str = ""
    port: str = ""
    protocol: str = ""

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.namespace, self.name)


def parse_question(name: str) -> Question | None:
    """Parse a name; return None if it has none of the forms above, and thus can't exist.

    Args:
        name: The name in lower case, without the cluster's domain; may be empty.
    """
    labels = name.split(".")[::-1] if name else [""]
    kind = labels[0]
    if len(labels) == 1 and kind in ("", "svc", "pod"):
        return Question()
    if kind not in ("svc", "pod") or "" in labels:
        return None
    match labels[1:]:
        case [namespace]:
            return Question(kind, namespace)
        case [namespace, service]:
            return Question(kind, namespace, service)
        case [namespace, service, endpoint]:
            return Question(kind, namespace, service, endpoint)
        case [namespace, service, protocol, port]:
            return Question(
                kind,
                namespace,
                service,
                port=port.removeprefix("_"),
                protocol=protocol.removeprefix("_"),
            )
    return None


def pod_address(text: str) -> str | None:
    """Return the address in a pod's name, ``10-244-0-3`` or ``fd00--3``; None if invalid."""
    is_v4 = text.count("-") == 3 and "--" not in text
    try:
        return str(ipaddress.ip_address(text.replace("-", "." if is_v4 else ":")))
    except ValueError:
        return None


def hostname_of(ip: str, hostname: str) -> str:
    """Return the first label of an endpoint's name: its hostname, or its address with dashes."""
    if hostname:
        return hostname
    label = ip.replace(".", "-").replace(":", "-")
    return f"{label}0" if label.endswith("-") else label


def keys_of_label(label: str) -> frozenset[str]:
    """Return a label, and the addresses from which :func:`hostname_of` may have derived it."""
    v6 = label.replace("-", ":")
    return frozenset((label, label.replace("-", "."), v6, v6.removesuffix("0")))


REVERSE_ZONES = ("in-addr.arpa.", "ip6.arpa.")


def address_of(name: str) -> str | None:
    """Return the address in a reverse name, in canonical form; None if it contains none.

    Args:
        name: The reverse name in lower case, with its trailing dot.

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
