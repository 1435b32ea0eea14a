"""Builds keys of Service ports for tests that use no other part of a plan."""

from __future__ import annotations

from userspace_proxy.model import IPFamily, PortKey, ServicePortName


def port_key(text: str, family: IPFamily = IPFamily.IPV4) -> PortKey:
    """Parse the key of a Service port in the form ``namespace/name:port``."""
    service, _, port = text.partition(":")
    return PortKey(ServicePortName(*service.split("/"), port), family)
