"""The helper process: ``python -m userspace_proxy.steering.iptables.helper FD VERSION PARENT``.

It answers one request after the other and ends when its parent does. Standard output is not
used for answers: python-iptables turns it into a pipe of its own while it makes a rule.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from ...errors import SteeringConflict, SteeringError
from . import frames
from .programmer import Facts, Programmer
from .rules import NatFrontend, NatRule


def main(arguments: Sequence[str]) -> int:
    """Serve the parent until it is gone."""
    descriptor, version, parent = map(int, arguments)
    if os.getppid() != parent:
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # systemd sends SIGTERM to the whole group, and the agent still needs us to clean up.
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    parent_end = os.pidfd_open(parent)
    server = Server(version)
    while True:
        # Other children of the parent may hold its end of the socket, so EOF alone won't do.
        readable, _, _ = select.select([descriptor, parent_end], [], [])
        if descriptor not in readable:
            return 0
        try:
            request = frames.receive(connection)
            frames.send(connection, server.answer(request))
        except (EOFError, ConnectionError):
            return 0


class Server:
    """Turns requests into calls of a programmer, and results into answers.

    Args:
        version: The IP family, 4 or 6.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._programmer: Programmer | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"value": …}``, or ``{"error": …}`` where our code raised SteeringError."""
        try:
            return {"value": self._do(request)}
        except SteeringError as exc:
            is_conflict = isinstance(exc, SteeringConflict)
            return {"error": exc.message, "hint": exc.hint, "is_conflict": is_conflict}

    def _do(self, request: dict[str, Any]) -> Any:
        if self._programmer is None:
            self._programmer = Programmer(self._version, _facts(request["facts"]))
        programmer = self._programmer
        match request["do"]:
            case "start":
                return programmer.start()
            case "apply":
                return programmer.apply([NatRule(*rule) for rule in request["rules"]])
            case "change":
                gone = [NatFrontend(*frontend) for frontend in request["gone"]]
                return programmer.change([NatRule(*rule) for rule in request["rules"]], gone)
            case "repair":
                return programmer.repair()
            case "render":
                return programmer.render()
            case "clean_up":
                return programmer.clean_up()
            case "checks_sockets":
                return programmer.checks_sockets
            case "labels":
                return programmer.labels()
            case other:
                raise AssertionError(f"no such request: {other}")


def _facts(values: list[Any]) -> Facts:
    refuse_port, proxy_ports, node_addresses, proxy_name = values
    ports = tuple(proxy_ports) if proxy_ports else None
    return Facts(refuse_port, ports, tuple(node_addresses), proxy_name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
