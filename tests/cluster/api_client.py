"""A client of a real API server with one TLS connection, without kubectl.

kubectl needs 0.25 s for a request that takes the server 10 ms, and tests send hundreds.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from typing import Any, Protocol

from tests.promises.specs import Object

from .control_plane import ControlPlane
from .credentials import ADMIN, token_of


class Dialler(Protocol):
    """Creates sockets that can reach the API server, like a ``Client``."""

    def tcp(self) -> socket.socket:
        """Return a new TCP socket."""


class Here:
    """Creates sockets in this process's namespace, where the API server listens."""

    def tcp(self) -> socket.socket:
        return socket.socket()


class Api:
    """Sends requests to the API server with the admin's token, over one connection.

    Args:
        client: A client on the API server's node.
    """

    def __init__(self, client: Dialler, control_plane: ControlPlane) -> None:
        self._client = client
        host, port = control_plane.server.removeprefix("https://").rsplit(":", 1)
        self._address = (host, int(port))
        self._context = ssl.create_default_context(cafile=control_plane.ca_file)
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> int:
        """Send a request; return the response's status, which is 2xx or 404.

        Raises:
                AssertionError: It is any other status; the error contains the server's message.
        """
        status, said = self.request(method, path, body)
        assert status < 300 or status == http.HTTPStatus.NOT_FOUND, f"{method} {path}: {said}"
        return status

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request, again if the connection fails; return the status and the parsed body."""
        headers = {"Authorization": f"Bearer {token_of(ADMIN)}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        try:
            status, said = self._send(method, path, text, headers)
        except (OSError, http.client.HTTPException):
            # The API server may have been restarted, which closes the connection.
            self.close()
            status, said = self._send(method, path, text, headers)
        return status, json.loads(said)

    def put(self, path: str, item: Object) -> None:
        """Create or replace an object."""
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
