"""Decides which objects and fields of Services a report contains.

Rule 1: fields are listed here one by one, with the treatment of their texts. Other fields aren't
included: managedFields, owners, and annotations of other programs (kubectl's contains the whole
manifest).
Rule 2: only lists are requested, so the rights that reading all nodes requires suffice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.model import ServiceKey
from userspace_proxy.model.annotations import DOMAIN, SERVICE_KEYS, SLICE_KEYS
from userspace_proxy.model.reading import LABEL_SERVICE_NAME
from userspace_proxy.sources.kubernetes.api_paths import join
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.lists import read_page
from userspace_proxy.sources.kubernetes.responses import Response, cause_of

from .scrubbing import Scrubber

WITHIN_S = 20.0
"""Seconds for one Service's objects."""
OBJECTS_MAX = 101
"""The maximum number of objects per Service, with its slices: enough for 10,000 endpoints."""
OBJECTS_BYTES = 1 << 20
"""The maximum size of one Service's objects in bytes, as sent by the API server."""

WAKE = f"{DOMAIN}wake"
_ANNOTATIONS = frozenset({*SERVICE_KEYS, *SLICE_KEYS})
_KNOWN_DOMAINS = ("kubernetes.io", "k8s.io", DOMAIN.rstrip("/"))

Take = Callable[[Scrubber, Any], Any]
Fields = Mapping[str, "Take | Fields"]


@dataclass(frozen=True, slots=True)
class ServiceObjects:
    """The API server's objects for one Service."""

    service: str
    """``namespace/name``."""
    items: Sequence[Mapping[str, Any]] = ()
    problem: str = ""
    """Why objects are missing; empty if none are."""


async def read_objects(client: ApiClient, service: str) -> ServiceObjects:
    """Read a Service, ``namespace/name``, and its EndpointSlices; an error is the ``problem``."""
    namespace, name = ServiceKey.read(service)
    taken = _Items()
    problem = await _read(client, namespace, name, taken)
    if not taken.items:
        problem = problem or "there is no such Service"
    elif taken.left_bytes < 0:
        problem = problem or f"its objects have more than {OBJECTS_BYTES >> 20} MiB"
    return ServiceObjects(service, taken.items, problem)


class _Items:
    """The objects kept from lists, up to OBJECTS_BYTES."""

    def __init__(self) -> None:
        self.items: list[Mapping[str, Any]] = []
        self.left_bytes = OBJECTS_BYTES

    def take(self, parts: Sequence[bytes]) -> None:
        for part in parts:
            self.left_bytes -= len(part)
            if self.left_bytes < 0:
                return
            item = msgspec.json.decode(part)
            if isinstance(item, dict):
                self.items.append(item)


async def _read(client: ApiClient, namespace: str, name: str, taken: _Items) -> str:
    """Read the lists; return why a list is incomplete, or an empty string."""
    try:
        async with asyncio.timeout(WITHIN_S):
            for start, kind, query in (
                ("/api/v1", "services", {"fieldSelector": f"metadata.name={name}"}),
                (
                    "/apis/discovery.k8s.io/v1",
                    "endpointslices",
                    {"labelSelector": f"{LABEL_SERVICE_NAME}={name}"},
                ),
            ):
                path = join(f"{start}/namespaces", namespace, kind)
                asked = {**query, "limit": str(OBJECTS_MAX)}
                page = await read_page(client, path, asked, taken.take)
                if isinstance(page, Response):
                    return cause_of(page)
                if page.continue_:
                    return f"it has more than {OBJECTS_MAX} {kind}"
    except (UserspaceProxyError, ValueError, RecursionError) as exc:
        return str(exc)
    except TimeoutError:
        return f"no answer within {WITHIN_S:g} s"
    return ""


def safe_object(item: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    """Return the part of a Service or EndpointSlice that a report includes."""
    is_slice = "endpoints" in item
    metadata = item.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    made = {
        "kind": "EndpointSlice" if is_slice else "Service",
        "metadata": _taken(_SLICE_METADATA if is_slice else _METADATA, metadata, scrubber),
        **_taken(_SLICE if is_slice else _SERVICE, item, scrubber),
    }
    left_out = {
        name: len(given) - len(made["metadata"].get(name, ()))
        for name in ("annotations", "labels")
        if isinstance(given := metadata.get(name), dict)
    }
    return {**made, "left_out": {name: count for name, count in left_out.items() if count}}


def learn_names(item: Mapping[str, Any], scrubber: Scrubber) -> None:
    """Register an object's names; to be called before the first name is hidden."""
    if scrubber.pseudonyms is not None:
        safe_object(item, scrubber)
        scrubber.learn(None)


def _taken(fields: Fields, value: Any, scrubber: Scrubber) -> Any:
    if isinstance(value, list):
        return [_taken(fields, item, scrubber) for item in value]
    if not isinstance(value, dict):
        return {}
    made = {}
    for name, take in fields.items():
        if name not in value:
            continue
        given = value[name]
        made[name] = take(scrubber, given) if callable(take) else _taken(take, given, scrubber)
    return made


def _each(take: Take) -> Take:
    """Return a function that applies ``take`` to a string, or to each string of a list."""

    def taken(scrubber: Scrubber, value: Any) -> Any:
        if isinstance(value, list):
            return [taken(scrubber, item) for item in value if not isinstance(item, list)]
        if isinstance(value, str):
            return take(scrubber, value)
        return value if isinstance(value, bool | int | float) else None

    return taken


def _name(kind: str) -> Take:
    return _each(lambda scrubber, text: scrubber.name(text, kind))


def _is_known(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    return bool(slash) and any(
        domain == known or domain.endswith(f".{known}") for known in _KNOWN_DOMAINS
    )


def _labels(scrubber: Scrubber, value: Any) -> dict[str, str]:
    given = value if isinstance(value, dict) else {}
    return {
        key: scrubber.name(text, "service" if key == LABEL_SERVICE_NAME else "label")
        for key, text in given.items()
        if _is_known(key) and isinstance(text, str)
    }


def _selector(scrubber: Scrubber, value: Any) -> dict[str, str]:
    given = value if isinstance(value, dict) else {}
    return {
        key if _is_known(key) else scrubber.name(key, "label"): scrubber.name(text, "label")
        for key, text in given.items()
        if isinstance(text, str)
    }


def _annotations(scrubber: Scrubber, value: Any) -> dict[str, str]:
    given = value if isinstance(value, dict) else {}
    return {
        key: _workload(scrubber, text) if key == WAKE else scrubber.text(text)
        for key, text in given.items()
        if key in _ANNOTATIONS and isinstance(text, str)
    }


def _workload(scrubber: Scrubber, text: str) -> str:
    kind, slash, name = text.partition("/")
    return (
        f"{scrubber.text(kind)}/{scrubber.name(name, 'workload')}" if slash else scrubber.text(text)
    )


def _address(scrubber: Scrubber, text: str) -> str:
    is_ip = text.replace(".", "").isdigit() or ":" in text
    return scrubber.text(text) if is_ip else scrubber.name(text, "host")


_WORD = _each(lambda scrubber, text: scrubber.word(text))
_TEXT = _each(lambda scrubber, text: scrubber.text(text))

_METADATA: Fields = {
    "name": _name("service"),
    "namespace": _name("namespace"),
    "creationTimestamp": _WORD,
    "deletionTimestamp": _WORD,
    "generation": _WORD,
    "resourceVersion": _WORD,
    "labels": _labels,
    "annotations": _annotations,
}
_SLICE_METADATA: Fields = {**_METADATA, "name": _name("slice")}
_PORTS: Fields = {
    "name": _WORD, "port": _WORD, "protocol": _WORD, "appProtocol": _WORD, "targetPort": _WORD,
    "nodePort": _WORD,
}  # fmt: skip
_CONDITIONS: Fields = {"type": _WORD, "status": _WORD, "reason": _WORD, "message": _TEXT}
_SERVICE: Fields = {
    "spec": {
        "type": _WORD,
        "clusterIP": _TEXT,
        "clusterIPs": _TEXT,
        "ports": _PORTS,
        "selector": _selector,
        "sessionAffinity": _WORD,
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": _WORD}},
        "externalIPs": _TEXT,
        "externalName": _name("host"),
        "externalTrafficPolicy": _WORD,
        "internalTrafficPolicy": _WORD,
        "trafficDistribution": _WORD,
        "ipFamilies": _WORD,
        "ipFamilyPolicy": _WORD,
        "loadBalancerIP": _TEXT,
        "loadBalancerSourceRanges": _TEXT,
        "loadBalancerClass": _TEXT,
        "allocateLoadBalancerNodePorts": _WORD,
        "healthCheckNodePort": _WORD,
        "publishNotReadyAddresses": _WORD,
    },
    "status": {
        "loadBalancer": {"ingress": {"ip": _TEXT, "hostname": _name("host"), "ipMode": _WORD}},
        "conditions": _CONDITIONS,
    },
}
_ZONES: Fields = {"name": _name("zone")}
_NODES: Fields = {"name": _name("node")}
_SLICE: Fields = {
    "addressType": _WORD,
    "endpoints": {
        # Addresses of type FQDN are names, too.
        "addresses": _each(_address),
        "conditions": {"ready": _WORD, "serving": _WORD, "terminating": _WORD},
        "hostname": _name("pod"),
        "nodeName": _name("node"),
        "zone": _name("zone"),
        "hints": {"forZones": _ZONES, "forNodes": _NODES},
        "targetRef": {"kind": _WORD, "namespace": _name("namespace"), "name": _name("pod")},
    },
    "ports": _PORTS,
}
