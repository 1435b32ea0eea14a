"""Identities: which Service, which port of it, which slice."""

from __future__ import annotations

from typing import NamedTuple


class ServiceKey(NamedTuple):
    """Identity of one Service; prints as ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class SliceKey(NamedTuple):
    """Identity of one EndpointSlice; prints as ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ServicePortName(NamedTuple):
    """Identity of one port of one Service; prints as ``namespace/name:port``.

    Source: kube-proxy's ServicePortName; without a port name the colon goes too.
    """

    namespace: str
    name: str
    port: str
    """The port's name; empty where a Service has one port without a name."""

    @property
    def service(self) -> ServiceKey:
        """The Service whose port this is."""
        return ServiceKey(self.namespace, self.name)

    def __str__(self) -> str:
        text = f"{self.namespace}/{self.name}"
        return f"{text}:{self.port}" if self.port else text
