"""Represents a Service as written in its manifest, with fields that must still be allocated.

The API server fills in such fields before any client reads the object, so the ordinary Service type
doesn't have them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...model import IPFamily, Service, ServiceKey, ServiceType
from ...model.notes import Note
from ...model.service_reading import read_service
from ...model.wire import WireService, WireServiceSpec

Problem = tuple[ServiceKey, str | Note]
"""A Service, and a failed allocation: ``spec.clusterIP: no address is left in …``."""

_FAMILIES = {str(family): family for family in IPFamily}
_OTHER = {IPFamily.IPV4: IPFamily.IPV6, IPFamily.IPV6: IPFamily.IPV4}


@dataclass(frozen=True, slots=True)
class WrittenService:
    """One Service of a manifest."""

    service: Service
    families: tuple[IPFamily, ...] = ()
    """``spec.ipFamilies``; may be empty."""
    family_policy: str = ""
    """``spec.ipFamilyPolicy``; may be empty."""
    wants_node_ports: bool = False
    """Whether each port without a node port is assigned one."""

    @property
    def wants_health_check_node_port(self) -> bool:
        """Whether the Service has a health check node port, allocated or named."""
        service = self.service
        return service.type is ServiceType.LOAD_BALANCER and service.is_external_local

    def wanted_families(self, configured: Collection[IPFamily]) -> tuple[IPFamily, ...]:
        """Return the families of the addresses, in order; empty if the Service has no address.

        Args:
            configured: The families with a range, the default first.

        Source: the API server's initIPFamilyFields: the families in the manifest, otherwise the
        families of its addresses, otherwise the default; and the other family if two are requested.
        """
        service = self.service
        if service.is_headless or service.type is ServiceType.EXTERNAL_NAME:
            return ()
        named = [IPFamily.of(ip) for ip in service.cluster_ips]
        families = list(dict.fromkeys([*self.families, *named])) or list(configured)[:1]
        if len(families) == 1 and self.family_policy in ("PreferDualStack", "RequireDualStack"):
            other = _OTHER[families[0]]
            if other in configured or self.family_policy == "RequireDualStack":
                families.append(other)
        return tuple(families)


def read_written(wire: WireService) -> WrittenService:
    """Return the Service of a validated manifest.

    Raises:
        FieldError: See :func:`read_service`.
    """
    service = read_service(wire)
    spec = wire.spec or WireServiceSpec()
    return WrittenService(
        service,
        families=tuple(_FAMILIES[text] for text in spec.ip_families or ()),
        family_policy=spec.ip_family_policy or "",
        wants_node_ports=service.type is ServiceType.NODE_PORT
        or (
            service.type is ServiceType.LOAD_BALANCER
            and spec.allocate_load_balancer_node_ports is not False
        ),
    )
