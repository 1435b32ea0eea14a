"""The contract of the kernel path, for rules and hooks: which endpoint a dial meets."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.node.endpoints import VERSIONS
from tests.node.load import pass_time
from tests.node.manifests import CLIENT_IP
from tests.node.socket_lb import (
    KINDS,
    MARKS,
    MODES,
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

pytestmark = MARKS

CLIENTS = ("pod", "other", "node-1")
NOT_READY = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
NO_ROUTE = os.strerror(errno.EHOSTUNREACH)
AFFINITY_S = 2
# Pods reach the node's ports at any of its addresses; this one is a gateway's.
GATEWAY = {4: "10.244.0.1", 6: "fd00:10:244::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}


class World:
    """A node with Services of each kind of choice; endpoints on it, and one on another node."""

    def __init__(self, node: SocketNode) -> None:
        self.node = node
        node.add_laptop()
        self.one, self.two = node.add_backends("one", "two")
        second = node.sandbox.add_node()
        self.far = node.backend(second.add_pod("far"), "node-2")
        self.pod = node.backend(node["pod"].host)
        self.itself = node.backend(node.node)
        both, spread = (self.one, self.two), (self.one, self.far)
        some = {
            "clientIP": {"timeoutSeconds": AFFINITY_S},
        }
        self.webs = {
            web.name: web
            for web in (
                Web("plain", 10, both),
                Web("sticky", 11, both, spec=CLIENT_IP),
                Web("briefly", 12, both, spec={**CLIENT_IP, "sessionAffinityConfig": some}),
                Web("weighted", 13, both, weights={"one": 1, "two": 3}),
                Web("drained", 14, both, weights={"two": 0}),
                Web("inside", 15, spread, spec={"internalTrafficPolicy": "Local"}),
                Web("nowhere-inside", 16, (self.far,), spec={"internalTrafficPolicy": "Local"}),
                Web("outside", 17, spread, spec={"externalTrafficPolicy": "Local"}),
                Web("ranged", 18, both, spec=self.ranges()),
                Web("leaving", 19, both, {"two": NOT_READY}),
                Web("left", 20, both, {"one": NOT_READY, "two": GONE}),
                Web("gone", 21, both, {"one": GONE, "two": GONE}),
                Web("empty", 22),
                Web("hairpin", 23, (self.pod,)),
                Web("host", 24, (self.itself,)),
                Web("far", 25, (self.far,)),
            )
        }
        node.start(*self.webs.values())

    def ranges(self) -> dict[str, list[str]]:
        host = self.node["pod"].host
        return {"loadBalancerSourceRanges": [f"{host.ip}/32", f"{host.ip6}/128"]}

    def met(self, client: str, kind: str, web: str, version: int, times: int = 40) -> set[str]:
        return met(self.node[client], self.at(kind, web, version), times)

    def at(self, kind: str, web: str, version: int) -> tuple[str, int]:
        return self.node.at(kind, self.webs[web], version)

    def way(self, client: str, address: tuple[str, int]) -> str:
        with Dial(self.node[client], address) as dial:
            return dial.connect().way


@pytest.fixture(scope="module", params=MODES)
def world(request, tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("agent")
    with socket_node(folder, request.param, clients=CLIENTS) as node:
        yield World(node)


by_version = pytest.mark.parametrize("version", VERSIONS)
by_kind = pytest.mark.parametrize("kind", KINDS)
by_client = pytest.mark.parametrize("client", ["pod", "node-1"])


@by_version
@by_kind
@by_client
def test_each_frontend_leads_to_all_endpoints(world, client, kind, version):
    address = world.at(kind, "plain", version)
    assert met(world.node[client], address) == {"one", "two"}
    assert world.way(client, address) == world.node.way


@by_kind
@by_client
def test_mapped_addresses_are_those_of_ipv4(world, client, kind):
    address = mapped(world.at(kind, "plain", 4))
    assert met(world.node[client], address) == {"one", "two"}
    assert world.way(client, address) == world.node.way


@by_version
def test_clients_outside_are_served_beneath_the_hooks(world, version):
    assert world.met("laptop", "node port", "plain", version) == {"one", "two"}
    assert world.met("laptop", "load balancer", "plain", version) == {"one", "two"}


@pytest.mark.kernel
@by_version
def test_an_endpoint_on_another_node_sees_the_client(world, version):
    assert world.met("pod", "cluster IP", "far", version, 3) == {"far"}
    assert world.way("pod", world.at("cluster IP", "far", version)) == world.node.way


@by_version
@by_kind
def test_a_pod_that_dials_its_own_service_meets_itself(world, kind, version):
    assert world.met("pod", kind, "hairpin", version, 3) == {"pod"}


@by_version
@by_client
def test_an_endpoint_on_the_node_itself_serves(world, client, version):
    assert world.met(client, "cluster IP", "host", version, 3) == {"node-1"}


@pytest.mark.kernel
@by_version
@by_client
def test_a_client_with_affinity_stays_at_all_frontends(world, client, version):
    seen = {
        endpoint for kind in KINDS for endpoint in world.met(client, kind, "sticky", version, 10)
    }
    assert len(seen) == 1
    assert world.way(client, world.at("cluster IP", "sticky", version)) == world.node.way


@pytest.mark.long
@by_version
def test_clients_with_affinity_are_spread(world, version):
    clients = [*world.node.add_clients(f"many-{version}", 12)]
    address = world.at("cluster IP", "sticky", version)
    assert set.union(*(met(client, address, 2) for client in clients)) == {"one", "two"}


@pytest.mark.long
@by_version
def test_a_client_is_free_again_after_the_time_of_its_affinity(world, version):
    seen = []
    # By chance it meets the same endpoint again half of the time.
    while len({*seen}) < 2 and len(seen) < 20:
        (endpoint,) = world.met("pod", "cluster IP", "briefly", version, 5)
        seen.append(endpoint)
        pass_time(AFFINITY_S + 1.1)
    assert {*seen} == {"one", "two"}


@pytest.mark.long
@by_version
def test_each_dial_keeps_the_affinity(world, version):
    seen = set()
    for _ in range(5):
        seen |= world.met("pod", "cluster IP", "briefly", version, 1)
        pass_time(AFFINITY_S / 2)
    assert len(seen) == 1


@by_version
def test_endpoints_take_their_share_by_weight(world, version):
    address = world.at("cluster IP", "weighted", version)
    shares = Counter(outcome(world.node["pod"], address) for _ in range(240))
    # 60 on average; by chance fewer than 30, or more than 90, once in 100,000 runs.
    assert shares.keys() == {"one", "two"}
    assert 30 <= shares["one"] <= 90
    assert world.way("pod", address) == world.node.way
    assert world.met("pod", "cluster IP", "drained", version) == {"one"}


@by_version
@by_client
def test_a_local_policy_inside_admits_endpoints_of_this_node(world, client, version):
    assert world.met(client, "cluster IP", "inside", version) == {"one"}
    assert world.met(client, "node port", "inside", version) == {"one", "far"}
    assert world.met(client, "cluster IP", "nowhere-inside", version, 1) == {"silence"}


@by_version
def test_a_local_policy_outside_holds_for_clients_outside(world, version):
    for kind in KINDS[1:]:
        assert world.met("pod", kind, "outside", version) == {"one", "far"}
        assert world.met("node-1", kind, "outside", version) == {"one", "far"}
    assert world.met("pod", "cluster IP", "outside", version) == {"one", "far"}
    assert world.met("laptop", "node port", "outside", version) == {"one"}


@by_version
def test_source_ranges_deny_who_is_not_in_them(world, version):
    assert world.met("pod", "load balancer", "ranged", version) == {"one", "two"}
    assert world.met("other", "load balancer", "ranged", version, 2) == {"silence"}
    assert world.met("other", "cluster IP", "ranged", version) == {"one", "two"}
    assert world.way("pod", world.at("load balancer", "ranged", version)) == "rules"


@by_version
@by_client
def test_terminating_endpoints_serve_when_there_are_no_others(world, client, version):
    assert world.met(client, "cluster IP", "leaving", version) == {"one"}
    assert world.met(client, "cluster IP", "left", version, 5) == {"one"}


@by_version
@by_kind
@by_client
@pytest.mark.parametrize("web", ["gone", "empty"])
def test_without_usable_endpoints_a_dial_is_refused_at_once(world, client, kind, web, version):
    assert world.met(client, kind, web, version, 3) == {REFUSED}


@pytest.mark.kernel
@by_version
def test_node_ports_at_loopback_addresses_lead_no_pod_to_the_node(world, version):
    port = world.webs["plain"].node_port
    for ip in (LOOPBACK[version], ANY[version], f"::ffff:{LOOPBACK[4]}"):
        assert outcome(world.node["pod"], (ip, port)) == REFUSED


@by_version
def test_node_ports_at_loopback_addresses_are_the_proxys_on_the_node(world, version):
    address = LOOPBACK[version], world.webs["plain"].node_port
    assert met(world.node["node-1"], address) == {"one", "two"}
    assert world.way("node-1", address) == "rules"


@by_version
def test_node_ports_are_served_at_each_of_the_nodes_addresses(world, version):
    port = world.webs["plain"].node_port
    for client in ("pod", "node-1"):
        assert met(world.node[client], (GATEWAY[version], port)) == {"one", "two"}


@by_version
@by_client
def test_other_ports_of_a_frontend_are_no_frontends(world, client, version):
    ip, _ = world.at("cluster IP", "plain", version)
    assert outcome(world.node[client], (ip, 81)) == NO_ROUTE


@by_version
@by_client
def test_udp_stays_with_the_rules(world, client, version):
    address = world.at("cluster IP", "plain", version)
    with contextlib.closing(world.node[client].udp(address)) as sock:
        sock.send(b"hello")
        assert sock.recv(100) in (b"one: hello", b"two: hello")
        assert kernel_peer(world.node[client], sock) == address
