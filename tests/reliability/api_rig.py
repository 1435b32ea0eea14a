"""A node whose agent reads from a real API server, through a proxy that can replace responses.

    row ──TLS──▶ kube-apiserver ◀──TLS── ApiProxy ◀──TLS, in the node's namespace── agent
                 one for all rows

Rule 1: at its end, a row leaves the API server running with the rig's Services and permissions.
Rule 2: only one row at a time uses the API server, so the rows' group is serial.
"""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from tests.cluster.api_client import Api, Here
from tests.cluster.build import ensure_binaries, missing_targets
from tests.cluster.control_plane import ControlPlane
from tests.cluster.credentials import NODE_PROXIER, token_of
from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets
from tests.node.manifests import Service, with_endpoints

from .api_proxy import ApiProxy
from .rig import Rig, is_served

NEW = Service("new", "10.96.0.99")
PATHS = {
    "Service": "/api/v1/namespaces/shop/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
}
WRITERS = 16
# An API server usually writes its own endpoints, but not in these tests.
_KUBERNETES = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "addressType": "IPv4",
    "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    "endpoints": [{"addresses": ["192.0.2.1"]}],
}


@functools.cache
def shared_control_plane() -> ControlPlane:
    """Start the control plane of all rows on the first call; it runs until this process exits."""
    if missing := missing_targets():
        pytest.skip(f"no {', '.join(target.binary for target in missing)} (run: make build)")
    control_plane = ControlPlane(ensure_binaries())
    control_plane.start()
    atexit.register(control_plane.stop)
    control_plane.grant_node_proxier()
    api = Api(Here(), control_plane)
    api.put("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    # Without a Node, the agent would report that its Node doesn't exist.
    api.put("/api/v1/nodes", {"metadata": {"name": "node-1"}})
    api.put("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", _KUBERNETES)
    api.close()
    return control_plane


class ApiRig(Rig):
    """A rig whose agent reads Services from an API server."""

    def prepare(self) -> None:
        self.control_plane = shared_control_plane()
        self.api = Api(Here(), self.control_plane)
        self.resources.callback(self.api.close)
        sockets = Sockets(self.testbed.node)
        self.resources.callback(sockets.close)
        self.proxy = ApiProxy(sockets, self.control_plane)
        self.resources.callback(self.proxy.close)
        self.kubeconfig = self._folder / "kubeconfig"
        self.write_kubeconfig(token_of(NODE_PROXIER))
        self.agent.source = f"--kubeconfig={self.kubeconfig}"

    def start(self) -> None:
        self.remove(NEW)
        self.put(*self.services())
        self.agent.start_until_ready()
        for service in self.services():
            self.wait_until_served(service)

    def write_kubeconfig(self, token: str) -> None:
        draft = Path(f"{self.kubeconfig}.draft")
        self.control_plane.write_kubeconfig(draft, token, self.proxy.url)
        draft.replace(self.kubeconfig)

    def put(self, *services: Service) -> None:
        for service in services:
            for item in service.objects():
                self.put_object(item)

    def put_object(self, item: dict[str, Any]) -> None:
        self.api.put(PATHS[item["kind"]], item)

    def remove(self, *services: Service) -> None:
        """Delete Services and their slices, if they exist."""
        for service in services:
            for item in service.objects():
                self.api.ask("DELETE", f"{PATHS[item['kind']]}/{item['metadata']['name']}")

    def create_many(self, services: Sequence[Service]) -> None:
        """Create many Services with their slices, at the speed of the server."""
        items = [item for service in services for item in service.objects()]
        for item in items:
            item["metadata"].setdefault("labels", {})["many"] = ""
        self._post_all(items)

    def remove_many(self) -> None:
        """Delete the objects of :meth:`create_many`, and wait until the agent has removed them."""
        for path in PATHS.values():
            self.api.ask("DELETE", f"{path}?labelSelector=many")
        wanted = {"kubernetes", *(service.name for service in self.services())}
        wait_for("the removal", lambda: self.served_names() == wanted, deadline_s=60)

    def served_names(self) -> set[str]:
        return {port["service"] for port in self.agent.status()["ports"]}

    def add_service(self) -> None:
        new = with_endpoints(NEW, [self.testbed.ip("one")])
        self.put(new)
        self.wait_until_served(new)

    def remove_service(self) -> None:
        """Remove the added Service, and wait until it is no longer served."""
        self.remove(NEW)
        wait_for("the end of the Service", lambda: not self.is_served(NEW), hint=self.agent.log)

    def wait_until_served(self, service: Service) -> None:
        """Wait until a client outside can connect to a Service."""
        what = f"{service.name} to be served"
        wait_for(what, lambda: self.is_served(service), deadline_s=60, hint=self.agent.log)

    def is_served(self, service: Service) -> bool:
        """Return whether a client outside can connect to a Service."""
        return is_served(self, service.address)

    def _post_all(self, items: Iterable[dict[str, Any]]) -> None:
        queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
        for item in items:
            queue.put(item)
        problems: list[Exception] = []

        def work() -> None:
            api = Api(Here(), self.control_plane)
            try:
                while not problems:
                    item = queue.get_nowait()
                    api.ask("POST", PATHS[item["kind"]], item)
            except Empty:
                pass
            except (OSError, AssertionError, http.client.HTTPException) as exc:
                problems.append(exc)
            finally:
                api.close()

        threads = [threading.Thread(target=work) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems, json.dumps([str(problem) for problem in problems[:3]])
