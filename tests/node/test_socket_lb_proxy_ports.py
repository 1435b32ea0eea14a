"""The userspace path through the hooks: what this node's programs dial is a proxy port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.clients import Client
from tests.node.endpoints import VERSIONS
from tests.node.socket_lb import (
    HOOKS,
    KINDS,
    MARKS,
    REFUSED,
    Dial,
    SocketNode,
    Web,
    kernel_peer,
    mapped,
    met,
    outcome,
    socket_node,
)

pytestmark = [*MARKS, pytest.mark.needs("connect hooks")]

CLIENTS = ("pod", "bare-pod", "node-1")
by_version = pytest.mark.parametrize("version", VERSIONS)
by_kind = pytest.mark.parametrize("kind", KINDS)
by_client = pytest.mark.parametrize("client", CLIENTS)
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


class World:
    """A node with Services on the userspace path, and one that is refused."""

    def __init__(self, node: SocketNode) -> None:
        self.node = node
        node.add_laptop()
        self.one, self.two = node.add_backends("one", "two")
        both = (self.one, self.two)
        self.webs = {
            web.name: web
            for web in (
                Web("plain", 10, both, path="userspace"),
                Web("ranged", 11, both, spec=self.ranges(), path="userspace"),
                Web("empty", 12, path="userspace"),
            )
        }
        second = node.sandbox.add_node()
        self.elsewhere = [Client(host) for host in (second, second.add_pod("far"))]
        node.clients |= {client.name: client for client in self.elsewhere}
        node.start(*self.webs.values())

    def ranges(self) -> dict[str, list[str]]:
        host = self.node["pod"].host
        return {"loadBalancerSourceRanges": [f"{host.ip}/32", f"{host.ip6}/128"]}

    def at(self, kind: str, web: str, version: int) -> tuple[str, int]:
        return self.node.at(kind, self.webs[web], version)

    def proxy_port(self, web: str, version: int) -> tuple[str, int]:
        """Return where the node listens for a Service."""
        family = f"IPv{version}"
        for port in self.node.agent.status()["ports"]:
            if (port["service"], port["family"], port["protocol"]) == (web, family, "TCP"):
                number = int(port["frontends"][0]["target"].removeprefix("proxy port "))
                return self.own_ip(version), number
        raise AssertionError(f"{web} has no proxy port")

    def own_ip(self, version: int) -> str:
        return str(self.node.node.ip if version == 4 else self.node.node.ip6)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("agent")
    with socket_node(folder, HOOKS, "--socket-lb-proxy-ports", clients=CLIENTS) as node:
        yield World(node)


@by_version
@by_kind
@by_client
def test_each_frontend_is_dialled_at_the_proxy_port(world, client, kind, version):
    dialled = world.at(kind, "plain", version)
    assert met(world.node[client], dialled) == {"one", "two"}
    with Dial(world.node[client], dialled) as dial:
        assert dial.connect().peer == dialled
        assert kernel_peer(dial.client, dial.sock) == world.proxy_port("plain", version)
        assert dial.ask() in ("one", "two")


@by_client
def test_mapped_addresses_are_those_of_ipv4(world, client):
    dialled = mapped(world.at("cluster IP", "plain", 4))
    with Dial(world.node[client], dialled) as dial:
        assert (dial.connect().peer, dial.way) == (dialled, "hooks")
        assert dial.ask() in ("one", "two")


@by_version
def test_nothing_is_translated_by_rules(world, version):
    """An entry of conntrack that was translated names the frontend."""
    dialled = world.at("cluster IP", "plain", version)
    world.node.shell("conntrack -F")
    assert met(world.node["pod"], dialled, 10) == {"one", "two"}
    assert f"dst={dialled[0]} " not in world.node.shell(f"conntrack -L -f ipv{version}")


@by_version
def test_the_worker_judges_the_clients_own_address(world, version):
    for kind in ("load balancer", "node port", "cluster IP"):
        dialled = world.at(kind, "ranged", version)
        assert outcome(world.node["pod"], dialled) in ("one", "two")
    load_balancer = world.at("load balancer", "ranged", version)
    assert outcome(world.node["bare-pod"], load_balancer) == "silence"


@by_version
@by_client
def test_a_service_without_endpoints_is_refused(world, client, version):
    for kind in KINDS:
        assert outcome(world.node[client], world.at(kind, "empty", version)) == REFUSED


@by_version
def test_a_loopback_node_port_is_what_the_rules_make_of_it(world, version):
    dialled = LOOPBACK[version], world.webs["plain"].node_port
    with Dial(world.node["node-1"], dialled) as dial:
        try:
            dial.connect()
        except ConnectionRefusedError:
            assert version == 6
        else:
            assert dial.way == "rules"


@by_version
def test_another_machine_cannot_dial_a_proxy_port(world, version):
    port = world.proxy_port("plain", version)
    assert outcome(world.node["laptop"], port) == REFUSED
    assert outcome(world.node["laptop"], world.at("node port", "plain", version)) in ("one", "two")


@by_version
def test_pods_and_programs_of_another_node_cannot_dial_a_proxy_port(world, version):
    for client in world.elsewhere:
        assert outcome(client, world.proxy_port("plain", version)) == REFUSED


@by_version
def test_a_pod_that_has_just_started_is_admitted(world, version):
    """Its link is new to the agent; none of its dials may fail for that."""
    for client in world.node.add_clients(f"new-{version}", 5):
        assert outcome(client, world.at("cluster IP", "plain", version)) in ("one", "two")
