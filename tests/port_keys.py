"""Keys of Service ports, for tests that need no other part of a plan."""

from __future__ import annotations

from userspace_proxy.model import IPFamily, PortKey, ServicePortName


def port_key(text: str, family: IPFamily = IPFamily.IPV4) -> PortKey:
    """Return the key of a Service port that is written as ``namespace/name:port``."""
    service, _, port = text.partition(":")
    return PortKey(ServicePortName(*service.split("/"), port), family)
