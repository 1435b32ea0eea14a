"""Handles of Services that a program has added to its proxy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..facts import StatusFacts
from ..facts.units import plural
from ..model import EndpointSlice, Service, ServiceKey, SocketAddress
from .arguments import EndpointAddress, make_slices


class Owner(Protocol):
    """The part of a proxy that handles use; see :class:`EmbeddedProxy`."""

    async def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Serve a Service."""

    async def delete(self, key: ServiceKey) -> None:
        """Stop serving a Service."""

    def has_put(self, service: Service) -> bool:
        """Return whether a Service was put and not replaced."""

    def address_of(self, key: ServiceKey) -> SocketAddress | None:
        """Return a Service's address."""

    def status(self) -> StatusFacts:
        """Return the state of everything."""


class AddedService:
    """A Service that :meth:`EmbeddedProxy.add_service` serves."""

    def __init__(self, proxy: Owner, service: Service) -> None:
        self._proxy = proxy
        self._service = service

    def __repr__(self) -> str:
        address = self._proxy.address_of(self.key)
        ports = (p for p in self._proxy.status().ports if p.plan.key.name.service == self.key)
        port = next(ports, None)
        if address is None or port is None:
            return f"<Service {self.key}, not served>"
        usable = sum(endpoint.is_usable for endpoint in port.endpoints)
        ejected = sum(endpoint.ejected_for_s is not None for endpoint in port.endpoints)
        words = [plural(usable, "endpoint")]
        words += [f"{ejected} ejected"] if ejected else []
        return f"<Service {self.key} at {address}, {', '.join(words)}>"

    @property
    def service(self) -> Service:
        """The Service as it was added."""
        return self._service

    @property
    def key(self) -> ServiceKey:
        """Its namespace and name."""
        return self._service.key

    @property
    def address(self) -> SocketAddress:
        """The address to dial: unpacks into host and port.

        Raises:
            LookupError: The Service isn't served (any more).
        """
        address = self._proxy.address_of(self.key)
        if address is None:
            raise LookupError(f"{self.key} is not served")
        return address

    async def set_endpoints(
        self,
        endpoints: Iterable[EndpointAddress],
        *,
        standby: Iterable[EndpointAddress] = (),
    ) -> None:
        """Replace its endpoints, as in :meth:`EmbeddedProxy.add_service`; in force on return.

        Raises:
            ValueError: An endpoint isn't an address.
            TypeError: An endpoint has another type.
            LookupError: The Service was removed, or replaced by another of its name.
            ListenError: The Service can't be served now: clients are refused, and it is retried
                every second with these endpoints.
        """
        await self.put(make_slices(self._service, endpoints, standby))

    async def put(self, slices: Iterable[EndpointSlice]) -> None:
        """Replace the slices; in force on return.

        Raises:
            LookupError: The Service was removed, or replaced by another of its name.
            ListenError: See :meth:`set_endpoints`.
        """
        if not self._proxy.has_put(self._service):
            raise LookupError(f"{self.key} was removed or replaced")
        await self._proxy.put(self._service, slices)

    async def remove(self) -> None:
        """Stop serving the Service; open connections continue. Idempotent.

        A Service that has replaced it is not affected.
        """
        if self._proxy.has_put(self._service):
            await self._proxy.delete(self.key)
