"""Reports about connections that connect() hooks have translated: counters and ejections."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S
from tests.node.socket_lb import HOOKS, MARKS, TARGET, Backend, SocketNode, Web, socket_node
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say

pytestmark = [*MARKS, pytest.mark.needs("connect hooks")]

PROGRAM = (sys.executable, "-m", "userspace_proxy")
MANY = 20
REFUSED = say(refuses("10.244.0.1:8080"), Form.PREDICATE)
OWN_FIREWALL = (
    "add table ip own; add chain ip own out { type filter hook output priority 0; }; "
    f"add rule ip own out tcp dport {TARGET} reject with tcp reset"
)


class Followed:
    """A node with hooks, a pod that dials, and a Service with a good and a bad endpoint."""

    def __init__(self, node: SocketNode) -> None:
        self.node, self.agent, self.pod = node, node.agent, node["pod"]
        (self.good,) = node.add_backends("good")
        host = node.sandbox.add_pod("bad")
        self._host, self._server = host, host.serve(None, tcp=TARGET, udp=TARGET)
        self.bad = Backend(host)

    def start(self, path: str = "kernel") -> None:
        self.node.start(self.web(path))
        self.wait_for("path", "kernel")

    def web(self, path: str = "kernel") -> Web:
        return Web("web", 10, (self.good, self.bad), path=path)

    def die(self) -> None:
        """Kill one endpoint's server, so that the kernel refuses clients."""
        self._server.stop()

    def come_back(self) -> None:
        self._server = self._host.serve(None, tcp=TARGET, udp=TARGET)

    def dial(self, times: int) -> int:
        """Make requests from the pod; return the number of refused requests."""
        refused = 0
        for _ in range(times):
            try:
                assert self.pod.get(self.web().cluster_ip(4)) in ("good", "bad")
            except ConnectionRefusedError:
                refused += 1
        return refused

    def port(self) -> dict[str, Any]:
        return self.agent.port("web", protocol="TCP", family="IPv4")

    def endpoint(self, backend: Backend) -> dict[str, Any]:
        """Return an endpoint from the status."""
        ip, port = backend.at(4)
        endpoints = self.port()["endpoints"]
        (found,) = (one for one in endpoints if one["address"] == f"{ip}:{port}")
        return dict(found)

    def wait_for(self, field: str, value: object) -> None:
        """Wait until a field of the Service port has this value; counters may be a second old."""
        wait_for(field, lambda: self.port()[field] == value, hint=self.agent.log)

    def run(self, *words: str) -> str:
        """Return the output of a command on the node, in one line."""
        return " ".join(self.agent.run(command=[*PROGRAM, *words]).stdout.split())


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    with socket_node(tmp_path, HOOKS, clients=("pod",)) as node:
        yield Followed(node)


def test_connections_are_counted_by_endpoint_and_their_bytes_by_service_port(
    followed: Followed,
) -> None:
    followed.start()
    with followed.pod.dial(followed.web().cluster_ip(4)):
        assert followed.dial(MANY) == 0
        followed.wait_for("active", 1)
    followed.wait_for("active", 0)
    port = followed.port()
    assert (port["connections"], port["socket_connections"]) == (MANY + 1, MANY + 1)
    assert port["kernel_connections"] == 0
    assert sum(port["connect_times"]["counts"]) == MANY + 1
    assert sum(one["connections"] for one in port["endpoints"]) == MANY + 1
    assert all(one["preserved"] == one["connections"] for one in port["endpoints"])
    # Requests are shorter than answers with their headers.
    assert 0 < port["received_bytes"] < port["sent_bytes"]


def test_connections_outside_the_hooks_cgroup_are_counted_by_rules(followed: Followed) -> None:
    assert followed.node.cgroup is not None
    machine = followed.node.add_container("machine", followed.node.cgroup.parent)
    followed.start()
    assert machine.get(followed.web().cluster_ip(4)) in ("good", "bad")
    followed.wait_for("kernel_connections", 1)
    assert followed.port()["socket_connections"] == 0
    assert followed.dial(1) == 0
    followed.wait_for("socket_connections", 1)
    for words in (("status", "-o", "wide"), ("explain", "shop/web:http")):
        shown = followed.run(*words)
        assert "programs of this node at connect(), others by rules" in shown
        assert "1 connection at connect() since the start, and 1 by rules" in shown


def test_the_first_failed_dial_ejects_an_endpoint_with_the_cause_of_the_userspace_path(
    followed: Followed,
) -> None:
    followed.start()
    followed.die()
    assert followed.dial(MANY) == 1
    bad = followed.endpoint(followed.bad)
    assert bad["ejected_for_s"] is not None
    assert bad["cause"]["code"] == "endpoint-refuses"
    assert bad["cause"]["sentence"].endswith(REFUSED)
    followed.wait_for("failures", 1)
    wait_for(
        "the log", lambda: f"endpoint ejected: {bad['address']} {REFUSED}" in followed.agent.log()
    )
    shown = followed.run("status", "-o", "wide")
    assert f"{bad['address']} {REFUSED}" in shown
    assert f"{bad['address']} ejected" in shown
    followed.come_back()
    wait_for(
        "the end of the ejection",
        lambda: (
            followed.dial(1) == 0
            and followed.endpoint(followed.bad)["ejected_for_s"] is None
            and followed.endpoint(followed.bad)["cause"] is None
        ),
        hint=followed.agent.log,
    )


@pytest.mark.parametrize("pods", [pytest.param(2, marks=pytest.mark.long), 10])
def test_dials_blocked_by_a_clients_own_firewall_eject_no_endpoint_for_other_clients(
    followed: Followed, pods: int
) -> None:
    forgers = list(followed.node.add_clients("forger", pods))
    for forger in forgers:
        forger.host.run(["nft", OWN_FIREWALL])
    followed.start("auto")
    address = followed.web().cluster_ip(4)
    for forger in forgers:
        for _ in range(MANY):
            with pytest.raises(ConnectionRefusedError):
                forger.get(address)
    followed.wait_for("failures", MANY * pods)
    assert followed.dial(MANY) == 0
    followed.wait_for("connections", MANY)
    port = followed.port()
    assert port["path"] == "kernel"
    assert [one["ejected_for_s"] for one in port["endpoints"]] == [None, None]
    assert all(one["connections"] for one in port["endpoints"])
    assert "endpoint ejected" not in followed.agent.log()


def test_connections_are_shown_by_observe_when_they_end(followed: Followed, tmp_path: Path) -> None:
    followed.start()
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        process = followed.node.node.popen(
            [*PROGRAM, "observe", "shop/web", "-o", "json"],
            stdout=output,
            env=followed.agent.environment,
        )

    def found() -> list[dict[str, Any]]:
        assert followed.dial(1) == 0
        lines = map(json.loads, shown.read_text().split("\n")[:-1])
        return [one for one in lines if one["event"] == "ended"]

    wait_for("a connection", found, hint=followed.agent.log)
    process.terminate()
    process.wait(DEADLINE_S)
    one = found()[0]
    ip, port = followed.web().cluster_ip(4)
    assert (one["service"], one["frontend"]) == ("shop/web:http", f"{ip}:{port}")
    assert one["client"].startswith(f"{followed.pod.host.ip}:")
    assert one["endpoint"] in {f"{b.at(4)[0]}:{TARGET}" for b in (followed.good, followed.bad)}
    assert 0 < one["received_bytes"] < one["sent_bytes"]
