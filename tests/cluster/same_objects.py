"""Random objects at a real API server, as the sources read them.

drawn ── create ──▶ API server ── get ──▶ stored ──▶ a file
  │                     └── list, watch ──▶ the agent's source, explain's reader
  └──▶ a file, without what the API server rejects
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.unit.sources.drawn import NAMESPACES, OBJECTS, Object
from tests.unit.sources.kubernetes.conftest import QUICK
from tests.unit.sources.same_objects import NODE, Read, read_all, read_one
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.one_service import OneServiceReader

from .api_client import Api, Here
from .control_plane import ControlPlane

FOLDERS = {
    "Service": "/api/v1/namespaces/{}/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "Node": "/api/v1/nodes",
}
_EVERYWHERE = ("/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/nodes")
SERVICE = {"apiVersion": "v1", "kind": "Service"}
_OWN = "/api/v1/namespaces/default/services/kubernetes"
"""The Service that an API server itself maintains; it is read, but not written."""
_DEFAULTED = ("type", "ipFamilies", "clusterIPs", "ipFamilyPolicy", "externalTrafficPolicy")
"""Fields of a Service that an API server derives from other fields if they are omitted."""


@st.composite
def written_objects(draw: st.DrawFn) -> list[Object]:
    """Draw objects as users write them, without fields that an API server sets."""
    objects = draw(OBJECTS)
    for item in objects:
        spec = item.get("spec", {})
        for field in draw(st.lists(st.sampled_from(_DEFAULTED), max_size=2)):
            if field not in _never_left_out(spec):
                spec.pop(field, None)
    return objects


def _never_left_out(spec: Object) -> tuple[str, ...]:
    """Return the fields that must be set, because an API server would allocate a random address.

    An API server also rejects two addresses without a policy, which manifests accept as dual stack.
    """
    if "clusterIP" not in spec:
        return ("type",)
    return ("clusterIPs", "ipFamilyPolicy") if len(spec.get("clusterIPs", ())) > 1 else ()


@dataclass(frozen=True)
class Kept:
    """The result of writing objects to an API server."""

    accepted: list[Object]
    """Accepted objects as they were sent; the API server's own objects as stored."""
    stored: list[Object]
    refused: list[tuple[Object, str]]
    """Rejected objects with the API server's message."""


class Objects:
    """The API server's objects, for one test at a time."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        # All tests share an event loop, because connections end some iterations after their source.
        self._runner = asyncio.Runner()
        self._api = Api(Here(), control_plane)
        for name in NAMESPACES:
            self._api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def close(self) -> None:
        """Close all connections; the objects aren't deleted."""
        self._api.close()
        self._runner.close()

    def replace(self, objects: Sequence[Object]) -> Kept:
        """Delete the objects of earlier tests, and create these; return the result."""
        self._remove_all()
        _, own = self._api.request("GET", _OWN)
        kept = Kept([own | SERVICE], [own | SERVICE], [])
        for item in objects:
            namespace, name = _key(item)
            folder = FOLDERS[item["kind"]].format(namespace)
            if f"{folder}/{name}" == _OWN:
                continue
            status, answer = self._api.request("POST", f"{folder}?fieldValidation=Strict", item)
            if status >= http.HTTPStatus.BAD_REQUEST:
                kept.refused.append((item, answer["message"]))
                continue
            if item["kind"] == "Service" and "status" in item:
                answer["status"] = item["status"]
                status, answer = self._api.request("PUT", f"{folder}/{name}/status", answer)
                assert status == http.HTTPStatus.OK, answer
            kept.accepted.append(item)
            kept.stored.append(answer | {key: item[key] for key in SERVICE})
        # A list from memory, like the agent's first list, may be older than the last change.
        for path in _EVERYWHERE:
            self._api.request("GET", path)
        return kept

    def all(self, *, with_headless: bool = False) -> Read:
        """Read all objects, like ``run``."""
        source = KubernetesSource(
            kubeconfig=str(self._control_plane.kubeconfig),
            node_name=NODE,
            with_headless=with_headless,
            timing=QUICK,
        )
        return self._runner.run(read_all(source))

    def one(self, key: ServiceKey) -> Read:
        """Read the objects of one Service, like ``explain --kubeconfig``."""
        kubeconfig = str(self._control_plane.kubeconfig)
        reader = OneServiceReader(kubeconfig=kubeconfig, master="", node_name=NODE)
        return self._runner.run(read_one(reader, key))

    def _remove_all(self) -> None:
        for path in self._all_folders():
            status, answer = self._api.request("DELETE", path)
            assert status == http.HTTPStatus.OK, answer

    @staticmethod
    def _all_folders() -> Iterator[str]:
        yield FOLDERS["Node"]
        yield FOLDERS["EndpointSlice"].format("default")
        for kind in ("Service", "EndpointSlice"):
            yield from (FOLDERS[kind].format(namespace) for namespace in NAMESPACES)


def _key(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
