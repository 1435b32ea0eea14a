"""Defines the identities of Services, their ports and slices."""

from __future__ import annotations

import enum
from typing import NamedTuple

from .addresses import IPFamily


class ServiceKey(NamedTuple):
    """Identity of a Service; its text is ``namespace/name``."""

    namespace: str
    name: str

    @staticmethod
    def read(text: str) -> ServiceKey:
        """Parse ``namespace/name``, as in a proxy's JSON."""
        namespace, _, name = text.partition("/")
        return ServiceKey(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class SliceKey(NamedTuple):
    """Identity of an EndpointSlice; its text is ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ServicePortName(NamedTuple):
    """Identity of a Service port; its text is ``namespace/name:port``, or ``namespace/name``.

    Source: kube-proxy's ServicePortName.
    """

    namespace: str
    name: str
    port: str
    """The port's name; may be empty if it is the only port."""

    @property
    def service(self) -> ServiceKey:
        return ServiceKey(self.namespace, self.name)

    @property
    def prefixes(self) -> tuple[str, str, str]:
        """The names by which a filter can select this port: its namespace, its Service, itself."""
        return self.namespace, f"{self.namespace}/{self.name}", str(self)

    def __str__(self) -> str:
        text = f"{self.namespace}/{self.name}"
        return f"{text}:{self.port}" if self.port else text


class Side(enum.StrEnum):
    """A group of a Service port's frontends that share a policy, and so a proxy port."""

    ALL = ""
    """All frontends, or only the cluster IPs if the others have their own policy."""
    EXTERNAL = "external"
    """Node ports, load-balancer IPs and external IPs."""
    LOAD_BALANCER = "load balancer"
    """Load-balancer IPs that have source ranges."""


class PortKey(NamedTuple):
    """One IP family and side of one Service port; each has a proxy port and a balancer."""

    name: ServicePortName
    family: IPFamily = IPFamily.IPV4
    side: Side = Side.ALL

    def __str__(self) -> str:
        words = [str(self.family)] if self.family is IPFamily.IPV6 else []
        words += [self.side] if self.side else []
        return f"{self.name} ({', '.join(words)})" if words else str(self.name)
