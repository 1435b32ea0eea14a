"""Runs a fake API server in a separate thread, and dials Services."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.fakes.api_server import FakeApiServer
from userspace_proxy_testing.served_service import ServedService

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: fake
clusters: [{{name: fake, cluster: {{server: {url}}}}}]
users: [{{name: fake, user: {{}}}}]
contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]
"""

HTTP = {"name": "http", "port": 80, "targetPort": "web"}


class FakeCluster:
    """Services and Pods of the namespace ``shop``, which a test without an event loop changes."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "fake.kubeconfig"
        self.thread = LoopThread()
        self.thread.start()
        self.api: FakeApiServer
        self.thread.call(self._start())
        self.kubeconfig.write_text(KUBECONFIG.format(url=self.api.url))

    async def _start(self) -> None:
        self.api = FakeApiServer()
        await self.api.start()

    def stop(self) -> None:
        self.thread.call(self.api.stop())

    def close(self) -> None:
        """Stop the server and its thread."""
        self.stop()
        self.thread.close()

    def put(self, kind: str, name: str, spec: dict[str, Any], **more: Any) -> None:
        metadata = {"name": name, "namespace": "shop", **more.pop("metadata", {})}
        item = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec, **more}
        self.thread.do(lambda: self.api.put(item))

    def put_service(self, name: str = "web", **spec: Any) -> None:
        """Write a Service, by default with one port and a selector."""
        fields = {"clusterIP": "10.96.0.10", "selector": {"app": name}, "ports": [HTTP], **spec}
        self.put("Service", name, fields)

    def put_pod(self, name: str, *ports: dict[str, Any], app: str = "web") -> None:
        """Write a Pod that doesn't run."""
        metadata = {"labels": {"app": app}, "uid": f"uid-{name}"}
        spec = {"containers": [{"name": "main", "ports": list(ports)}]}
        self.put("Pod", name, spec, metadata=metadata, status={"phase": "Pending"})

    def delete_pod(self, name: str) -> None:
        """Delete a Pod immediately."""
        self.thread.do(lambda: self.api.delete("Pod", name, "shop"))

    def pods(self) -> dict[str, Any]:
        objects = self.thread.do(lambda: dict(self.api._objects._objects))
        return {key[2]: item for key, item in objects.items() if key[0] == "pods"}


def get(service: ServedService) -> str:
    with urlopen(service.url, timeout=60) as answer:
        return answer.read().decode().strip()


def answers(service: ServedService, count: int = 4) -> set[str]:
    return {get(service) for _ in range(count)}


def refuses(address: SocketAddress) -> bool:
    """Return whether nothing listens on an address."""
    with socket.socket() as client:
        return client.connect_ex(address) == errno.ECONNREFUSED
