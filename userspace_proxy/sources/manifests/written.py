"""A Service as its manifest describes it, and the fields that it leaves to allocation.

The API server fills such fields in before any client reads the object, so they aren't part of
the Service that the rest of the program uses.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...model import IPFamily, Service, ServiceKey, ServiceType
from ...model.notes import Note
from ...model.service_reading import read_service
from ...model.wire import WireService, WireServiceSpec

Problem = tuple[ServiceKey, str | Note]
"""A Service, and what can't be allocated to it: ``spec.clusterIP: no address is left in …``."""

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
    """Each port without a node port is to get one."""

    @property
    def wants_health_check_node_port(self) -> bool:
        """Whether it has a health check node port, allocated or named."""
        service = self.service
        return service.type is ServiceType.LOAD_BALANCER and service.is_external_local

    def wanted_families(self, configured: Collection[IPFamily]) -> tuple[IPFamily, ...]:
        """Return the families of its addresses, in order; empty if it has no address.

        Args:
            configured: The families that have a range, the default one first.

        Source: the API server's initIPFamilyFields: what is written, else what the named
        addresses are of, else the default; and the other one if two are asked for.
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
    """Return the Service of a manifest that was validated.

    Raises:
        FieldError: As :func:`read_service`.
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
