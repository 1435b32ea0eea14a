"""Identities of Services, their ports and slices."""

from __future__ import annotations

from typing import NamedTuple


class ServiceKey(NamedTuple):
    """Identity of a Service; its text is ``namespace/name``."""

    namespace: str
    name: str

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
        """The Service that has this port."""
        return ServiceKey(self.namespace, self.name)

    def __str__(self) -> str:
        text = f"{self.namespace}/{self.name}"
        return f"{text}:{self.port}" if self.port else text
