"""What a snapshot shows of objects, and what their JSON says that it must show.

Rule 1: JSON is read here without the product's readers.
Rule 2: each write has a number, its stamp, which is part of the object in a way that a snapshot
shows: an external address of a Service, the port of a slice, the zone of a Node. A Pod isn't shown.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from userspace_proxy.cluster import Snapshot
from userspace_proxy.cluster.store import ServiceState
from userspace_proxy.model import EndpointSlice, Service, ServiceKey

from .details import (
    details_of_endpoint,
    details_of_node,
    details_of_service,
    ingress_of,
    shown_of_endpoints,
    shown_of_node,
    shown_of_service,
)

_PORT = 1000
_STAMP = "example.org/stamp"
_SERVICE = "kubernetes.io/service-name"

Shown = tuple[Any, ...]


class Key(NamedTuple):
    """An object's identity."""

    kind: str
    namespace: str
    name: str


Item = tuple[Key, int, Shown]
"""An object, its stamp, and what is shown of it."""

HIDDEN = -1
"""The stamp of a slice whose Service isn't there, or which is headless: a snapshot has its name."""


def stamp(item: dict[str, Any], number: int) -> dict[str, Any]:
    """Return an object with its stamp."""
    made = dict(item)
    if item["kind"] == "Service":
        made["spec"] = {**item["spec"], "externalIPs": [f"198.18.{number >> 8}.{number & 255}"]}
    elif item["kind"] == "EndpointSlice":
        first, *others = item["ports"]
        made["ports"] = [{**first, "port": _PORT + number}, *others]
    elif item["kind"] == "Pod":
        labels = {**item["metadata"]["labels"], _STAMP: str(number)}
        made["metadata"] = {**item["metadata"], "labels": labels}
    else:
        labels = {"topology.kubernetes.io/zone": f"z{number}"}
        made["metadata"] = {**item["metadata"], "labels": labels}
    return made


def number_of(kind: str, item: Mapping[str, Any]) -> int:
    """Return the stamp of an object."""
    if kind == "Service":
        return _number(item["spec"]["externalIPs"][0])
    if kind == "EndpointSlice":
        return int(item["ports"][0]["port"]) - _PORT
    if kind == "Pod":
        return int(item["metadata"]["labels"][_STAMP])
    return int(item["metadata"]["labels"]["topology.kubernetes.io/zone"][1:])


# -- from JSON -------------------------------------------------------------------------------------


def expected(item: dict[str, Any]) -> Shown:
    """Return what is shown of a valid object; of a Pod, nothing."""
    if item["kind"] == "Pod":
        return ()
    reads = {"Service": _service, "EndpointSlice": _slice, "Node": _node}
    return reads[item["kind"]](item)


def _service(item: dict[str, Any]) -> Shown:
    spec = item["spec"]
    is_headless = spec["clusterIP"] == "None"
    return (
        () if is_headless else tuple(_canonical(spec.get("clusterIPs", [spec["clusterIP"]]))),
        is_headless,
        spec["type"],
        _affinity_s(spec),
        tuple((p["name"], p["port"], p["protocol"], p["nodePort"]) for p in spec["ports"]),
        tuple(spec["externalIPs"]),
        spec["internalTrafficPolicy"] == "Local",
        spec["externalTrafficPolicy"] == "Local",
        tuple(sorted(spec["selector"].items())),
        details_of_service(item),
    )


def _affinity_s(spec: dict[str, Any]) -> int | None:
    if spec["sessionAffinity"] != "ClientIP":
        return None
    client_ip = spec.get("sessionAffinityConfig", {}).get("clientIP", {})
    return int(client_ip.get("timeoutSeconds", 10800))


def _slice(item: dict[str, Any]) -> Shown:
    of = service_of(item)
    if not of:
        return "", "", (), ()
    listed = sorted(item["ports"], key=lambda port: str(port["name"]))
    ports = tuple((p["name"], p["port"], p.get("protocol", "TCP")) for p in listed if p["port"])
    return of, item["addressType"], ports, tuple(_endpoints(item))


def _endpoints(item: dict[str, Any]) -> Iterator[Shown]:
    for endpoint in item["endpoints"]:
        # What isn't an address of the slice's family is left out.
        for ip in _valid(endpoint["addresses"][0], item["addressType"]):
            yield (*_endpoint(endpoint, ip), *details_of_endpoint(endpoint, item))


def _valid(text: str, family: str) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if family == f"IPv{address.version}":
        yield str(address)


def _endpoint(item: dict[str, Any], ip: str) -> Shown:
    conditions = item["conditions"]
    # Null means that it isn't known: then an endpoint is taken for one that serves.
    is_terminating = conditions.get("terminating") or False
    is_ready, is_serving = (conditions.get(name) is not False for name in ("ready", "serving"))
    return ip, is_ready, is_serving, is_terminating, item["nodeName"]


def _canonical(ips: list[str]) -> Iterator[str]:
    return (str(ipaddress.ip_address(ip)) for ip in ips)


def _node(item: dict[str, Any]) -> Shown:
    addresses = tuple(addresses_of(item["status"]["addresses"]))
    zone = item["metadata"]["labels"]["topology.kubernetes.io/zone"]
    return addresses, zone, details_of_node(item)


def addresses_of(listed: list[dict[str, Any]]) -> list[str]:
    """Return the addresses of a Node by which it is reached."""
    return [each["address"] for each in listed if each["type"] != "Hostname"]


def service_of(item: dict[str, Any]) -> str:
    """Return the name of a slice's Service; empty: it has none."""
    return str(item["metadata"].get("labels", {}).get(_SERVICE, ""))


def weight(item: dict[str, Any]) -> int:
    """Return how much of a share an object takes."""
    least = 1024
    if item["kind"] == "Service":
        spec, least = item["spec"], 6 * 1024
        listed = "ports", "selector", "externalIPs", "clusterIPs", "loadBalancerSourceRanges"
        parts = sum(len(spec.get(name, ())) for name in listed) + len(ingress_of(item))
    else:
        parts = len(item["endpoints"]) + len(item["ports"])
    return least + 256 * parts


# -- from a snapshot -------------------------------------------------------------------------------


class Reader:
    """Reads what the snapshots of one run show."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ServiceState, list[Item]]] = {}
        """By identity: most Services are the same objects in all snapshots."""

    def shown(self, snapshot: Snapshot) -> list[Item]:
        """Return each object of a snapshot, its stamp, and what is shown of it."""
        found: list[Item] = []
        for of, state in snapshot.services.items():
            known = self._known.get(id(state))
            if known is None:
                known = self._known[id(state)] = state, list(_of_service(of, state))
            found += known[1]
        for slices in snapshot.orphans.values():
            found += ((Key("EndpointSlice", *each.key), HIDDEN, ()) for each in slices)
        if (node := snapshot.node) is not None and not node.is_missing:
            details = shown_of_node(node)
            content = node.addresses, node.zone, details
            found.append((Key("Node", "", node.name), int(node.zone[1:] or HIDDEN), content))
        return found


def _of_service(of: ServiceKey, state: ServiceState) -> Iterator[Item]:
    service = state.service
    yield Key("Service", *of), stamp_of(service), _shown_service(service)
    for item in state.slices:
        port = item.ports[0].port - _PORT if item.ports else HIDDEN
        yield Key("EndpointSlice", *item.key), port, _shown_slice(item, *of)


def stamp_of(service: Service) -> int:
    """Return the stamp of a Service that is shown."""
    return _number(service.external_ips[0]) if service.external_ips else HIDDEN


def _number(ip: str) -> int:
    _, _, high, low = ip.split(".")
    return int(high) * 256 + int(low)


def _shown_service(service: Service) -> Shown:
    return (
        service.cluster_ips,
        service.is_headless,
        str(service.type.value),
        service.affinity_timeout_s,
        tuple((p.name, p.port, p.protocol, p.node_port) for p in service.ports),
        service.external_ips,
        service.is_internal_local,
        service.is_external_local,
        service.selector,
        shown_of_service(service),
    )


def _shown_slice(item: EndpointSlice, namespace: str, name: str) -> Shown:
    is_consistent = (item.service.namespace, item.service.name) == (namespace, name)
    of = name if is_consistent else f"that of another Service: {item.service}"
    ports = tuple((p.name, p.port, p.protocol) for p in item.ports)
    both = zip(item.endpoints, shown_of_endpoints(item), strict=True)
    endpoints = tuple((e.ip, e.ready, e.serving, e.terminating, e.node, *more) for e, more in both)
    return of, str(item.family), ports, endpoints
