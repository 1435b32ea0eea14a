"""Converts an Endpoints object to EndpointSlices, as the control plane's mirroring does.

    subset 0: addresses, notReadyAddresses ──▶ slice web:0:IPv4, slice web:0:IPv6
    subset 1: …                            ──▶ slice web:1:IPv4, …

No API server has validated the object, so invalid addresses and ports are errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .addresses import IPFamily
from .annotations import Preference, read_preference
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .fields import FieldErrors
from .names import ServiceKey, SliceKey
from .notes import Note, NoteKind
from .slice_admission import check_slice_ports
from .syntax import check_address, check_label
from .wire import WireEndpoints, WireSubset

LABEL_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_SEPARATOR = ":"
ANNOTATION_LEADER = "control-plane.alpha.kubernetes.io/leader"


def not_mirrored_reason(wire: WireEndpoints) -> Note | None:
    """Return which mark of an Endpoints object prevents mirroring; None if it has none.

    Source: shouldMirror() of the endpointslicemirroring controller, which skips objects with the
        label skip-mirror=true or an annotation of old leader elections.
    """
    if (wire.metadata.labels or {}).get(LABEL_SKIP_MIRROR) == "true":
        mark = f"label {LABEL_SKIP_MIRROR}"
    elif ANNOTATION_LEADER in (wire.metadata.annotations or {}):
        mark = f"annotation {ANNOTATION_LEADER}"
    else:
        return None
    return NoteKind.NOT_TO_MIRROR(str(_service_of(wire)), mark)


def left_out_reason(slices: Iterable[EndpointSlice], ips: Collection[str]) -> Note | None:
    """Return the note for an Endpoints object that is ignored because its Service has slices.

    The result is None if those slices contain all its addresses, as in a dump of a cluster.

    Args:
        slices: The slices that would mirror the object.
        ips: The addresses of the Service's own slices.
    """
    for item in slices:
        for endpoint in item.endpoints:
            if endpoint.ip not in ips:
                return NoteKind.LEFT_OUT_BESIDE(str(item.service), endpoint.ip)
    return None


def mirror_endpoints(wire: WireEndpoints) -> list[EndpointSlice]:
    """Return the slices of an Endpoints object, by subset and family.

    Their names contain colons, so they can't collide with the names of other slices.

    Raises:
        FieldError: All invalid addresses, host names and ports.
    """
    service = _service_of(wire)
    # Source: the controller copies an Endpoints object's annotations to its slices.
    preference = read_preference(wire.metadata.annotations)
    slices = []
    errors = FieldErrors()
    for i, subset in enumerate(wire.subsets or ()):
        path = f"subsets[{i}]"
        with errors:
            check_slice_ports(subset.ports or (), f"{path}.ports", need_names=True)
        ports = tuple(
            SlicePort(port.name or "", port.port or 0, port.protocol or "TCP")
            for port in subset.ports or ()
        )
        endpoints = _endpoints(subset, preference, path, errors)
        for family in IPFamily:
            of_family = tuple(e for e in endpoints if IPFamily.of(e.ip) is family)
            if of_family:
                key = SliceKey(
                    service.namespace, _SEPARATOR.join((service.name, str(i), str(family)))
                )
                slices.append(
                    EndpointSlice(key, service, family, ports, of_family, notes=preference.notes)
                )
    errors.raise_found()
    return slices


def mirrored_name(key: SliceKey) -> str:
    """Return the name of the Endpoints object that a slice mirrors; empty if it mirrors none."""
    name, separator, _ = key.name.partition(_SEPARATOR)
    return name if separator else ""


def _service_of(wire: WireEndpoints) -> ServiceKey:
    return ServiceKey(wire.metadata.namespace or "default", wire.metadata.name or "")


def _endpoints(
    subset: WireSubset, preference: Preference, path: str, errors: FieldErrors
) -> list[Endpoint]:
    """Return the ready endpoints, then the other endpoints, in the object's order."""
    endpoints = []
    for name, items, ready in (
        ("addresses", subset.addresses, True),
        ("notReadyAddresses", subset.not_ready_addresses, False),
    ):
        for i, item in enumerate(items or ()):
            with errors:
                ip = check_address(item.ip, f"{path}.{name}[{i}].ip")
                node = item.node_name or ""
                hostname = item.hostname or ""
                if hostname:
                    check_label(hostname, f"{path}.{name}[{i}].hostname")
                endpoints.append(
                    Endpoint(
                        ip,
                        ready=ready,
                        serving=ready,
                        node=node,
                        hostname=hostname,
                        weight=preference.weight,
                        priority=preference.priority,
                    )
                )
    return endpoints
