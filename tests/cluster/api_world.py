"""A world of promises whose agent reads a real API server, which we write to without kubectl.

    ApiWorld.put ──one TLS connection──▶ kube-apiserver ──watch──▶ agent

kubectl takes a quarter of a second for what a request does in 10 ms, and there are hundreds.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from typing import Any, Protocol

from tests.node.testbed import Testbed
from tests.promises.specs import NAMESPACE, NODE, Object, Spec, node_object
from tests.promises.world import World

from .control_plane import ControlPlane
from .credentials import ADMIN, NODE_PROXIER, token_of

_MERGE = "application/merge-patch+json"
_SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
_NODES = "/api/v1/nodes"
# Of ours, so nobody takes it away but us.
_FINALIZER = "userspace-proxy.io/tests"


class Dialler(Protocol):
    """Makes sockets that reach the API server, as a ``Client`` does."""

    def tcp(self) -> socket.socket:
        """Return a new TCP socket."""


class Api:
    """The API server, asked as its admin.

    Args:
        client: On the node, where the API server is.
    """

    def __init__(self, client: Dialler, control_plane: ControlPlane) -> None:
        self._client = client
        host, port = control_plane.server.removeprefix("https://").rsplit(":", 1)
        self._address = (host, int(port))
        self._context = ssl.create_default_context(cafile=control_plane.ca_file)
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> int:
        """Send a request; return its status if that is good, or 404.

        Raises:
            AssertionError: The API server refuses, with its words.
        """
        headers = {"Authorization": f"Bearer {token_of(ADMIN)}", "Content-Type": kind}
        text = None if body is None else json.dumps(body)
        try:
            status, said = self._send(method, path, text, headers)
        except (OSError, http.client.HTTPException):
            # It was started anew.
            self.close()
            status, said = self._send(method, path, text, headers)
        assert status < 300 or status == http.HTTPStatus.NOT_FOUND, f"{method} {path}: {said}"
        return status

    def put(self, path: str, item: Object) -> None:
        """Put an object in its place, or make it."""
        if self.ask("PUT", f"{path}/{item['metadata']['name']}", item) == http.HTTPStatus.NOT_FOUND:
            self.ask("POST", path, item)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(
        self, method: str, path: str, text: str | None, headers: dict[str, str]
    ) -> tuple[int, str]:
        if self._connection is None:
            with contextlib.ExitStack() as stack:
                plain = stack.enter_context(self._client.tcp())
                plain.connect(self._address)
                connection = http.client.HTTPConnection(*self._address)
                connection.sock = self._context.wrap_socket(plain, server_hostname=self._address[0])
                stack.pop_all()
            self._connection = connection
        self._connection.request(method, path, text, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()


class ApiWorld(World):
    """The agent watches an API server.

    Args:
        testbed: As for World.
        control_plane: It runs on the testbed's node.
    """

    def __init__(self, testbed: Testbed, control_plane: ControlPlane) -> None:
        super().__init__(testbed)
        self.api = Api(testbed["node-1"], control_plane)
        self._slices: dict[str, set[str]] = {}
        self._is_doomed = False
        self.api.put("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        self.agent.source = f"--kubeconfig={control_plane.kubeconfig_for(NODE_PROXIER)}"
        self.agent.start_until_ready()

    def write(self, *specs: Spec) -> None:
        """Part of World."""
        for spec in specs:
            slices = list(spec.endpoint_slices())
            for item in slices:
                self.api.put(_SLICES, item)
            names = {item["metadata"]["name"] for item in slices}
            for name in self._slices.get(spec.name, set()) - names:
                self.api.ask("DELETE", f"{_SLICES}/{name}")
            self._slices[spec.name] = names
            service = spec.service()
            status = {"status": service.pop("status")}
            self.api.put(_SERVICES, service)
            if spec.ingress:
                self.api.ask("PATCH", f"{_SERVICES}/{spec.name}/status", status, _MERGE)

    def erase(self, *specs: Spec) -> None:
        """Part of World."""
        for spec in specs:
            self.api.ask("DELETE", f"{_SERVICES}/{spec.name}")
            for name in self._slices.pop(spec.name):
                self.api.ask("DELETE", f"{_SLICES}/{name}")

    def write_node(self, node: Object) -> None:
        """Part of World."""
        if self._is_doomed:
            self._keep_node([])
            self._is_doomed = False
        self.api.put(_NODES, node)

    def doom_node(self) -> None:
        """Part of World."""
        self.api.put(_NODES, node_object())
        self._keep_node([_FINALIZER])
        self.api.ask("DELETE", f"{_NODES}/{NODE}")
        self._is_doomed = True

    def close(self) -> None:
        """Part of World."""
        self.api.close()
        super().close()

    def _keep_node(self, finalizers: list[str]) -> None:
        keep = {"metadata": {"finalizers": finalizers}}
        self.api.ask("PATCH", f"{_NODES}/{NODE}", keep, _MERGE)
