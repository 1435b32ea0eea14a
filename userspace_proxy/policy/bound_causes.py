"""Words the bounds that a Service or a namespace exceeds; the rules are those of ``causes``."""

from __future__ import annotations

from dataclasses import replace

from ..model import Cause, CauseCode, ServiceKey


def too_many_external_ips(ip: str, limit: int) -> Cause:
    """Return that an external IP is beyond those of a Service that are served."""
    return Cause(
        CauseCode.EXTERNAL_IP_OFF,
        f"external IP {ip} and those after it are not served: "
        f"a Service with as many ports may have {limit}",
        ip,
        "Divide the Service",
    )


def too_many_at_all_ports(key: ServiceKey, limit: int) -> Cause:
    """Return that the Service's ports before this one have as many endpoints as it may have."""
    return Cause(
        CauseCode.TOO_MANY_ENDPOINTS,
        f"the ports of {key} together have more than {limit:,} endpoints and source ranges, so "
        "this port, which is not among the first by name, is not served",
        str(key),
        f"Divide the Service: its ports times their endpoints and ranges may be {limit:,}",
    )


def too_many_in_namespace(namespace: str, limit: int) -> Cause:
    """Return that a Service is among the largest of a namespace with too many endpoints."""
    return Cause(
        CauseCode.TOO_MANY_ENDPOINTS,
        f"the Services of namespace {namespace} together have more than {limit:,} endpoints and "
        "source ranges, counted for each port, so the largest Services, this one among them, are "
        "not served",
        f"namespace {namespace}",
        "Remove ports, endpoints or ranges from the largest Services of the namespace",
    )


def too_many_endpoints(limit: int) -> Cause:
    """Return that a Service port has more endpoints than this proxy uses for one."""
    return Cause(
        CauseCode.TOO_MANY_ENDPOINTS,
        f"it has more than {limit:,} endpoints, and the others are left out",
        hint=f"Divide the Service: a port of one Service may have {limit:,} endpoints of a family",
    )


def too_many_frontends(key: ServiceKey, limit: int, count: int) -> Cause:
    """Return that a Service has more frontends than this proxy serves for one.

    Args:
        count: Of the ports that are not served; this one is the first of them.
    """
    which = (
        "this port is" if count == 1 else f"this port and the {count - 1:,} after it, by name, are"
    )
    return Cause(
        CauseCode.TOO_MANY_FRONTENDS,
        f"{key} has more than {limit:,} frontends, which are its ports times their addresses: "
        f"{which} not served",
        str(key),
        "Divide the Service, or give it fewer ports or load-balancer IPs",
    )


def too_many_frontends_in_namespace(namespace: str, limit: int) -> Cause:
    """Return that a Service is among the largest of a namespace with too many frontends."""
    return Cause(
        CauseCode.TOO_MANY_FRONTENDS,
        f"the Services of namespace {namespace} together have more than {limit:,} frontends, which "
        "are their ports times their addresses, so the largest Services, this one among them, are "
        "not served",
        f"namespace {namespace}",
        "Remove ports from the largest Services of the namespace",
    )


def and_more(cause: Cause, count: int) -> Cause:
    """Return a cause that holds for further ports, too, which aren't listed."""
    return replace(cause, sentence=f"{cause.sentence}; {count:,} more like this are not listed")
