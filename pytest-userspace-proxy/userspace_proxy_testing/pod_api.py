"""Writes Pods to an API server as a kubelet does, for Pods that the test runs.

One request sets a Pod's state and the ports on which it answers, because the API server accepts
changes of annotations together with changes of the status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from userspace_proxy.errors import SourceError
from userspace_proxy.model import Service, ServiceKey
from userspace_proxy.model.pod_endpoints import (
    ANNOTATION_PORTS,
    PodKey,
    PodPort,
    PodSelection,
    read_selection,
)
from userspace_proxy.model.service_reading import read_service
from userspace_proxy.model.wire import WireService, decode
from userspace_proxy.sources.kubernetes.api_paths import join
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.kubeconfig_files import Kubeconfig
from userspace_proxy.sources.kubernetes.responses import TransportError, rejected, unreachable

Object = Mapping[str, Any]

_NAMESPACES = "/api/v1/namespaces"
_JSON = "application/json"
_STRATEGIC = "application/strategic-merge-patch+json"
_FINALIZER = "userspace-proxy.io/tests"
# No scheduler has this name, so the Pod isn't assigned to a node.
_SCHEDULER = "userspace-proxy-tests"
_FIRST_PORT = 8080
_NOT_FOUND = 404


class PodApi:
    """One cluster's Pods, between :meth:`open` and :meth:`close`; requests raise SourceError."""

    def __init__(self, kubeconfig: str | Kubeconfig) -> None:
        self._client = ApiClient(Credentials(kubeconfig=kubeconfig))

    async def open(self) -> None:
        """Load the kubeconfig.

        Raises:
            SourceError: The credentials can't be used.
        """
        await self._client.open()

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._client.close()

    async def service(self, key: ServiceKey) -> tuple[Service, PodSelection]:
        """Return a Service, and the target ports and families of its endpoints.

        Raises:
            LookupError: The Service doesn't exist.
            SourceError: The server doesn't answer, or refuses.
        """
        path = join(_NAMESPACES, key.namespace, "services", key.name)
        body = await self._send("GET", path)
        if body is None:
            raise LookupError(f"there is no Service {key}")
        wire = decode(body, WireService)
        return read_service(wire), read_selection(wire)

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> list[Object]:
        """Return Pods with these labels that aren't being deleted, sorted by name."""
        labels = ",".join(f"{name}={value}" for name, value in selector)
        path, query = join(_NAMESPACES, namespace, "pods"), {"labelSelector": labels}
        items = json.loads(await self._send("GET", path, query=query) or b"{}").get("items") or []
        there = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(there, key=lambda item: str(item["metadata"]["name"]))

    async def create(self, pod: Object) -> Object:
        """Create a Pod; return it as stored."""
        path = join(_NAMESPACES, pod["metadata"]["namespace"], "pods")
        created: Object = json.loads(await self._send("POST", path, pod) or b"{}")
        return created

    async def set_running(
        self, key: PodKey, ip: str, ports: Mapping[PodPort, int], *, is_ready: bool
    ) -> None:
        """Set a Pod's address, its readiness, and the ports that replace its container ports."""
        text = ",".join(
            f"{port.number}{'' if port.protocol == 'TCP' else f'/{port.protocol}'}={number}"
            for port, number in ports.items()
        )
        ready = "True" if is_ready else "False"
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}, {"$patch": "replace"}],
            "conditions": [
                {"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")
            ],
        }
        patch = {"metadata": {"annotations": {ANNOTATION_PORTS: text}}, "status": status}
        await self._send("PATCH", f"{_path(key)}/status", patch, kind=_STRATEGIC)

    async def terminate(self, key: PodKey) -> None:
        """Delete a Pod, but keep it terminating until :meth:`remove`."""
        patch = {"metadata": {"finalizers": [_FINALIZER]}}
        await self._send("PATCH", _path(key), patch, kind=_STRATEGIC)
        await self._send("DELETE", _path(key))

    async def remove(self, key: PodKey) -> None:
        """Delete a Pod, even one kept by :meth:`terminate`, without a grace period. Idempotent."""
        patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [_FINALIZER]}}
        await self._send("PATCH", _path(key), patch, kind=_STRATEGIC)
        await self._send("DELETE", _path(key), {"gracePeriodSeconds": 0})

    async def restore(self, pod: Object) -> None:
        """Restore a Pod's status and ports, unless the Pod was replaced or is gone."""
        metadata = pod["metadata"]
        key = PodKey(metadata["namespace"], metadata["name"])
        now = json.loads(await self._send("GET", _path(key)) or b"null")
        if now is None or now["metadata"]["uid"] != metadata["uid"]:
            return
        ports = (metadata.get("annotations") or {}).get(ANNOTATION_PORTS)
        patch = {
            "metadata": {"annotations": {ANNOTATION_PORTS: ports}},
            "status": {"$patch": "replace", **(pod.get("status") or {})},
        }
        await self._send("PATCH", f"{_path(key)}/status", patch, kind=_STRATEGIC)

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = _JSON,
    ) -> bytes | None:
        """Return the response's body; None if the object doesn't exist."""
        try:
            if method == "GET":
                response = await self._client.get(path, query or {})
            else:
                response = await self._client.send(method, path, body or {}, content_type=kind)
        except TransportError as exc:
            raise SourceError(unreachable(self._client.url, exc).text) from exc
        if response.code == _NOT_FOUND:
            return None
        if response.code >= 300:
            url, credentials = self._client.url, self._client.credentials.description
            failure = rejected(url, method, path, response, credentials=credentials)
            raise SourceError(failure.text)
        return response.body


def make_pod(key: PodKey, service: Service, selection: PodSelection) -> Object:
    """Return a Pod that a Service selects; it has a port for each named target port."""
    numbers = {target.port for target in selection.targets if isinstance(target.port, int)}
    ports: list[Object] = []
    named = {(t.port, t.protocol) for t in selection.targets if isinstance(t.port, str)}
    for name, protocol in sorted(named):
        number = next(n for n in range(_FIRST_PORT, 65536) if n not in numbers)
        numbers.add(number)
        ports.append({"name": name, "containerPort": number, "protocol": protocol})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": dict(service.selector),
        },
        "spec": {
            "schedulerName": _SCHEDULER,
            "containers": [{"name": "main", "image": "runs-in-a-test", "ports": ports}],
        },
    }


def _path(key: PodKey) -> str:
    return join(_NAMESPACES, key.namespace, "pods", key.name)
