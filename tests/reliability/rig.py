"""A node with the real proxy, a Service that a row breaks, and another Service.

pod ────25/s──▶ web  10.96.0.10 ──▶ one, two    the faulty Service
pod-2 ──50/s──▶ cart 10.96.0.20 ──▶ three       the other Service
pod-2 ──50/s──────────────────────▶ three       without the proxy: the machine's own delays
laptop                                          a client outside
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.node.agents import Agent
from tests.node.load import Load
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed
from userspace_proxy_testing.sandbox import Pod
from userspace_proxy_testing.sandbox.backend_process import BackendProcess

WEB = Service("web", "10.96.0.10")
CART = Service("cart", "10.96.0.20")
WEB_RATE, CART_RATE = 25, 50
"""New connections per second."""


class Rig:
    """The system that a row breaks; subclasses change constants, or do more preparation.

    Args:
        folder: An empty folder.
    """

    steering = "nftables"
    flags: tuple[str, ...] = ("--workers=2",)
    agent_type: type[Agent] = Agent
    web: Service = WEB
    web_pods: tuple[str, ...] = ("one", "two")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log_start = 0
        self.figures: list[str] = []
        """Results of clients outside the steady load, as text; rows append to it."""
        self.complaints: list[str] = []
        """Violations of limits that a row has measured itself."""
        self.gone: set[str] = set()
        """Words in the lines of rules and routes that a row removes permanently."""
        self.resources = contextlib.ExitStack()
        """Resources that are closed with the rig."""
        self.testbed = Testbed(
            folder, self.steering, *self.flags, clients=self.clients, agent=self.agent_type
        )
        self.resources.callback(self.testbed.close)
        self.agent = self.testbed.agent
        self.servers: dict[str, BackendProcess] = {}
        try:
            self.other_client = self.testbed.sandbox.add_pod("pod-2")
            for name in dict.fromkeys((*self.web_pods, "three")):
                self.testbed.sandbox.add_pod(name)
                self.start_server(name)
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def clients(self) -> tuple[str, ...]:
        """The testbed's clients; see its ``CLIENTS``."""
        return ("pod", "laptop")

    @property
    def client_prefix(self) -> tuple[str, ...]:
        """The command prefix of both Services' clients."""
        return ()

    def prepare(self) -> None:
        """Prepare what a subclass needs, before the proxy starts."""

    def start(self) -> None:
        """Start the proxy; return once it serves."""
        self.testbed.serve(*self.services())

    def services(self) -> tuple[Service, ...]:
        return (
            with_endpoints(self.web, [str(self.pod(name).ip) for name in self.web_pods]),
            with_endpoints(CART, [self.testbed.ip("three")]),
        )

    def pod(self, name: str) -> Pod:
        return self.testbed.pod(name)

    def start_server(self, name: str, **ports: int) -> None:
        """Start a pod's server, by default on the Services' target port."""
        self.servers[name] = self.pod(name).serve(None, **(ports or {"tcp": WEB.target}))

    def load_web(self) -> Load:
        """Start the steady load on the faulty Service."""
        log = self._folder / "web.log"
        client = self.testbed["pod"].host
        return Load(client, log, self.web.address, WEB_RATE, prefix=self.client_prefix)

    def load_cart(self) -> Load:
        """Start the steady load on the other Service."""
        log = self._folder / "cart.log"
        return Load(self.other_client, log, CART.address, CART_RATE, prefix=self.client_prefix)

    def load_direct(self) -> Load:
        """Start the same load on the other Service's endpoint directly, without the proxy."""
        address = self.testbed.ip("three"), CART.target
        return Load(self.other_client, self._folder / "direct.log", address, CART_RATE)

    def is_well(self) -> bool:
        """Return whether the proxy reports no ejected endpoint and no problem of the fault."""
        with contextlib.suppress(OSError):
            status = self.agent.status()
            ejected = [e for port in status["ports"] for e in port["endpoints"] if is_ejected(e)]
            return not ejected and not [p for p in status["problems"] if self.is_fault(p)]
        return False

    def is_fault(self, problem: dict[str, Any]) -> bool:
        """Return whether a problem of ``/api/v1/status`` must end together with the fault."""
        return True

    def begin_log(self) -> None:
        """Make :meth:`log_lines` begin at the current end of the log."""
        self._log_start = len(self.agent.log().splitlines())

    def log_lines(self) -> list[str]:
        """Return the log lines since :meth:`begin_log`."""
        return self.agent.log().splitlines()[self._log_start :]

    def close(self) -> None:
        self.resources.close()


def is_ejected(endpoint: dict[str, Any]) -> bool:
    """Return whether an endpoint of ``/api/v1/status`` is ejected."""
    return endpoint["ejected_for_s"] is not None


@contextlib.contextmanager
def opened(make: type[Rig], folder: Path) -> Iterator[Rig]:
    rig = make(folder)
    try:
        yield rig
    finally:
        rig.close()


def is_served(rig: Rig, address: tuple[str, int]) -> bool:
    """Return whether a client outside can connect."""
    with rig.testbed["laptop"].tcp() as sock:
        sock.settimeout(0.5)
        return sock.connect_ex(address) == 0
