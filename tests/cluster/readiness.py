"""Whether a server of the control plane is ready, and the error if it doesn't get there."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from .child import Child
from .waiting import wait_for

READY_DEADLINE_S = 60.0
"""A start takes 2 to 3 s on two idle cores; CI machines have been ten times slower."""


class ControlPlaneError(RuntimeError):
    """A part of the control plane didn't start, or a command to it failed."""


def wait_until_ready(child: Child, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds.

    Raises:
        ControlPlaneError: The process ended, with the end of its log.
        DeadlineExceededError: The condition didn't hold in time; likewise.
    """

    def holds() -> bool:
        if child.status is not None:
            raise ControlPlaneError(
                f"cannot start {child.name}: it ended with status {child.status}; "
                + child.log_tail()
            )
        return condition()

    wait_for(f"{child.name} to be ready", holds, deadline_s=READY_DEADLINE_S, hint=child.log_tail)


def accepts(path: Path) -> bool:
    """Return whether a server accepts connections on a Unix socket."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        return client.connect_ex(str(path)) == 0


def serves_https(address: str, port: int, path: str, ca_file: Path, token: str) -> bool:
    """Return whether a server answers a GET with 200."""
    context = ssl.create_default_context(cafile=ca_file)
    with closing(
        http.client.HTTPSConnection(address, port, timeout=5, context=context)
    ) as connection:
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
