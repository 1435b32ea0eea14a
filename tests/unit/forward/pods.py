"""Runs pods as servers behind a fake API server, and builds their Services and slices."""

from __future__ import annotations

import contextlib

from tests.tcp_servers import Handle, serving
from userspace_proxy_testing.fakes.api_server import FakeApiServer

PORT = 8080


def service(name="web", namespace="shop", **spec):
    ports = [{"name": "http", "port": 80, "targetPort": PORT}]
    spec = {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": ports, **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "Service", "metadata": metadata, "spec": spec}


def endpoint(pod, ip, *, is_ready=True, namespace="shop"):
    ref = {"kind": "Pod", "name": pod, "namespace": namespace, "uid": f"uid-of-{pod}"}
    return {"addresses": [ip], "conditions": {"ready": is_ready}, "targetRef": ref}


def endpoint_slice(*endpoints, name="web", namespace="shop", family="IPv4", ports=None):
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{family.lower()}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "ports": ports or [{"name": "http", "port": PORT, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def headless(name, *slices):
    """Return a headless Service with the ports of these slices, and the labelled slices."""
    for item in slices:
        item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    ports = [{"name": port["name"], "port": port["port"]} for port in slices[0]["ports"]]
    return service(name, clusterIP="None", clusterIPs=["None"], ports=ports), *slices


def named(pod, ip, **conditions):
    """Return an endpoint with the pod's name as its hostname."""
    return {**endpoint(pod, ip), "hostname": pod, "conditions": conditions}


class Pods:
    """The pods web-1, web-2 … of the Service shop/web, at 10.244.0.1, 10.244.0.2 …"""

    def __init__(
        self,
        api: FakeApiServer,
        stack: contextlib.AsyncExitStack,
        namespace: str = "shop",
        service: str = "web",
    ) -> None:
        self.api = api
        self._namespace = namespace
        self._service = service
        self._stack = stack
        self._names: list[str] = []

    async def start(self, handle: Handle | None = None) -> str:
        """Start a pod and return its name; without a handler, it sends its name."""
        name = f"{self._service}-{len(self._names) + 1}"

        async def send_name(_reader, writer):
            writer.write(name.encode())

        async def serve(reader, writer):
            with contextlib.suppress(ConnectionError):
                await (handle or send_name)(reader, writer)

        address = await self._stack.enter_async_context(serving(serve))
        self.api.pods.run(name, {PORT: address}, self._namespace)
        self._names.append(name)
        self.publish()
        return name

    def publish(self) -> None:
        """Write all pods to the EndpointSlice, including killed ones."""
        endpoints = (
            endpoint(name, f"10.244.0.{number}", namespace=self._namespace)
            for number, name in enumerate(self._names, 1)
        )
        self.api.put(endpoint_slice(*endpoints, name=self._service, namespace=self._namespace))
