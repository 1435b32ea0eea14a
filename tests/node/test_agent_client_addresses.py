"""Whose address endpoints see: the client's, wherever their answers come back by the node."""

from __future__ import annotations

import contextlib
import html
import json
import select
import socket

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.clients import DEADLINE_S, Sockets
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

PORT, TARGET = 80, 8080
PROTOCOLS = ("TCP", "UDP")
VERSIONS = (4, 6)
CLUSTER_IPS = {4: "10.96.0.{}", 6: "fd00:96::{}"}
NODE_PORT = 30000
CLIENTS = ("pod", "bare-pod", "bridge-pod", "node-1", "laptop")


class Endpoint:
    """A pod that tells whom it sees; its sockets are this process's."""

    def __init__(self, host):
        self.host = host
        self.sockets = Sockets(host)
        self.opened = contextlib.ExitStack()
        self.servers = {
            (protocol, version): self._serve(protocol, version)
            for protocol in PROTOCOLS
            for version in VERSIONS
        }

    def ip(self, version):
        return str(self.host.ip if version == 4 else self.host.ip6)

    def saw(self, protocol, version, client, address):
        """Return the address that a client has, to this endpoint, and its port."""
        server = self.servers[protocol, version]
        if protocol == "TCP":
            with client.tcp(address[0]) as dialling:
                dialling.connect(address)
                dialling.sendall(b"question")
                accepted, peer = accept_who_speaks(server)
                with accepted:
                    accepted.sendall(b"answer")
                    assert dialling.recv(100) == b"answer"
            return peer[:2]
        asking = client.udp(address)
        asking.send(b"question")
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert asking.recv(100) == b"answer"
        return peer[:2]

    def close(self):
        self.opened.close()
        self.sockets.close()

    def _serve(self, protocol, version):
        ip = self.ip(version)
        server = self.sockets.tcp(ip) if protocol == "TCP" else self.sockets.udp(ip)
        self.opened.enter_context(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ip, TARGET))
        if protocol == "TCP":
            server.listen()
        return server


def accept_who_speaks(server):
    """Return the first connection that isn't only there to see whether somebody answers."""
    while True:
        accepted, peer = server.accept()
        accepted.settimeout(DEADLINE_S)
        if accepted.recv(100):
            return accepted, peer
        accepted.close()


def talks(one, other):
    """Return whether what is said on either side of a connection arrives at the other."""
    one.sendall(b"question")
    arrived = other.recv(100)
    other.sendall(b"answer")
    return (arrived, one.recv(100)) == (b"question", b"answer")


def objects(name, number, *endpoints, **spec):
    """Return a Service of both protocols and families, and its slices."""
    ports = [{"name": p.lower(), "port": PORT, "protocol": p} for p in PROTOCOLS]
    for port in ports:
        if "nodePort" in spec:
            port["nodePort"] = spec["nodePort"]
    more = {key: value for key, value in spec.items() if key != "nodePort"}
    ips = [CLUSTER_IPS[version].format(number) for version in VERSIONS]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": ports,
            **more,
        },
    }
    for version in VERSIONS:
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop",
                "name": f"{name}-{version}",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": f"IPv{version}",
            "ports": [{"name": p.lower(), "port": TARGET, "protocol": p} for p in PROTOCOLS],
            "endpoints": [
                {"addresses": [endpoint.ip(version)], "nodeName": node}
                for endpoint, node in endpoints
            ],
        }


class World:
    """A testbed with endpoints of each kind, each behind a Service of its own."""

    def __init__(self, testbed):
        self.testbed = testbed
        second = testbed.sandbox.add_node()
        self.endpoints = {
            "routed": Endpoint(testbed.sandbox.add_pod("routed")),
            "bridged": Endpoint(testbed.sandbox.add_pod("bridged", "bridge")),
            "remote": Endpoint(second.add_pod("remote")),
        }
        self.numbers = {name: number for number, name in enumerate(self.endpoints, 10)}
        self.numbers["itself"] = 20
        itself = Endpoint(testbed["pod"].host)
        self.endpoints["itself"] = itself
        self.numbers["itself-bridged"] = 21
        self.endpoints["itself-bridged"] = Endpoint(testbed["bridge-pod"].host)
        documents = [
            document
            for name, endpoint in self.endpoints.items()
            for document in objects(
                name,
                self.numbers[name],
                (endpoint, "node-2" if name == "remote" else "node-1"),
                type="NodePort",
                nodePort=NODE_PORT + self.numbers[name],
                externalTrafficPolicy="Local" if name == "routed" else "Cluster",
            )
        ]
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()

    def address(self, client, name, version):
        if client == "laptop" and version == 6:
            # It has no route to the range of the ClusterIPs.
            return str(self.testbed.node.ip6), NODE_PORT + self.numbers[name]
        return CLUSTER_IPS[version].format(self.numbers[name]), PORT

    def saw(self, client, endpoint, protocol, version):
        """Return whose address an endpoint sees: ``client``, ``node``, or another."""
        host, node = self.testbed[client].host, self.testbed.node
        address = self.address(client, endpoint, version)
        ip, _ = self.endpoints[endpoint].saw(protocol, version, self.testbed[client], address)
        # Towards a pod the node may have its gateway's address.
        if ip in addresses(node):
            return "node"
        return "client" if ip == str(host.ip if version == 4 else host.ip6) else ip

    def close(self):
        for endpoint in self.endpoints.values():
            endpoint.close()


def addresses(node):
    """Return all addresses of a node."""
    listed = json.loads(node.run(["ip", "-json", "address"]).stdout)
    return {info["local"] for link in listed for info in link["addr_info"]}


@pytest.fixture(scope="module", params=["iptables", "nftables", "local"])
def world(request, tmp_path_factory):
    flags = ("--workers=1", "--v=3")
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, *flags, clients=CLIENTS) as testbed:
        world = World(testbed)
        yield world
        world.close()


@pytest.fixture(autouse=True)
def _hang_up(request):
    yield
    if "world" in request.fixturenames:
        request.getfixturevalue("world").testbed.hang_up()


SEEN = {
    ("pod", "routed"): "client",
    ("pod", "bridged"): "client",
    ("pod", "remote"): "client",
    ("bare-pod", "routed"): "client",
    ("bare-pod", "remote"): "client",
    ("bridge-pod", "routed"): "client",
    ("bridge-pod", "remote"): "client",
    # With externalTrafficPolicy Local in the first case, Cluster in the second.
    ("laptop", "routed"): "client",
    ("laptop", "bridged"): "client",
    # Its answer goes to the laptop past this node.
    ("laptop", "remote"): "node",
    ("bridge-pod", "bridged"): "client",
    ("pod", "itself"): "node",
    ("bridge-pod", "itself-bridged"): "node",
    ("node-1", "routed"): "node",
    ("node-1", "bridged"): "node",
    ("node-1", "remote"): "node",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("client", "endpoint"), SEEN)
def test_an_endpoint_sees(world, client, endpoint, protocol, version):
    """The node's own address is its clients'."""
    assert world.saw(client, endpoint, protocol, version) == SEEN[client, endpoint]


def shown(world, name):
    """Return what the page's JSON says of a Service's TCP port of IPv4."""
    (port,) = (
        port
        for port in world.testbed.agent.status()["ports"]
        if (port["service"], port["protocol"], port["family"]) == (name, "TCP", "IPv4")
        if not port["side"]
    )
    return port


@pytest.mark.parametrize(
    ("client", "source"), [("pod", "client"), ("node-1", "node")], ids=["client", "node"]
)
def test_the_page_the_metrics_and_the_access_line_say_which_address_was_used(world, client, source):
    before = shown(world, "bridged")
    world.saw(client, "bridged", "TCP", 4)
    world.saw(client, "bridged", "UDP", 4)
    after = shown(world, "bridged")
    grown = [after[name] - before[name] for name in ("connections", "preserved")]
    assert grown == [1, source == "client"]
    endpoint = after["endpoints"][0]
    assert (endpoint["connections"], endpoint["preserved"]) == (
        after["connections"],
        after["preserved"],
    )
    agent = world.testbed.agent
    metric = "userspace_proxy_endpoint_connections_preserved_total"
    (counted,) = (
        float(line.split()[-1])
        for line in agent.read("/metrics")[1].splitlines()
        if line.startswith(metric) and f'endpoint="{endpoint["address"]}"' in line
        if 'protocol="TCP"' in line
    )
    assert counted == after["preserved"]
    line = wait_for(
        "the access line",
        lambda: [
            line
            for line in agent.log().splitlines()
            if "connection complete" in line and "shop/bridged:tcp" in line
        ],
        hint=agent.log,
    )[-1]
    assert f"source={source}" in line
    assert agent.status()["client_address"] == {
        "is_on": True,
        "why_not": "",
        "problem": "",
        "repairs": agent.status()["client_address"]["repairs"],
        "bridges": [],
    }


def test_who_is_kept_from_an_endpoint_is_kept_from_it_through_the_service_too(world):
    """A network policy's work: the endpoint's own kernel drops what comes from one client."""
    testbed, endpoint = world.testbed, world.endpoints["routed"]
    address, denied = world.address("pod", "routed", 4), testbed["pod"]
    rules = f"""table ip denied {{
        chain input {{
            type filter hook input priority 0
            ip saddr {denied.host.ip} drop
        }}
    }}
    """
    endpoint.host.run(["nft", rules])
    try:
        with denied.tcp() as direct:
            direct.settimeout(1)
            with pytest.raises(TimeoutError):
                direct.connect((endpoint.ip(4), TARGET))
        failures = shown(world, "routed")["endpoints"][0]["failures"]
        with denied.tcp() as dialling:
            dialling.connect(address)
            with pytest.raises(ConnectionResetError):
                dialling.recv(1)
        asking = denied.udp(address)
        asking.settimeout(1)
        asking.send(b"question")
        with pytest.raises(TimeoutError):
            asking.recv(100)
        # All others are served, as if nothing had happened.
        for other in ("bridge-pod", "node-1", "laptop"):
            assert world.saw(other, "routed", "TCP", 4) in ("client", "node")
        (state,) = shown(world, "routed")["endpoints"]
        assert state["failures"] == failures + 1
        assert state["ejected_for_s"] is None
        assert "endpoint answers this node, but not this client" in testbed.agent.log()
    finally:
        endpoint.host.run(["nft", "delete table ip denied"])
        drain(endpoint)
    assert world.saw("pod", "routed", "TCP", 4) == "client"


def test_an_endpoint_that_refuses_one_clients_datagrams_is_kept_for_all_others(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=("pod", "bridge-pod")) as testbed:
        endpoints = [Endpoint(testbed.sandbox.add_pod(name)) for name in ("strict", "open")]
        strict, other = endpoints
        documents = objects("dns", 10, *((endpoint, "node-1") for endpoint in endpoints))
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        address = (CLUSTER_IPS[4].format(10), PORT)
        rules = f"""table ip denied {{
            chain input {{
                type filter hook input priority 0
                ip saddr {testbed["pod"].host.ip} reject
            }}
        }}
        """
        strict.host.run(["nft", rules])

        def heard_by(client):
            asking = testbed[client].udp(address)
            asking.send(b"question")
            heard, _, _ = select.select([e.servers["UDP", 4] for e in endpoints], [], [], 5)
            (server,) = heard
            _, peer = server.recvfrom(100)
            server.sendto(b"answer", peer)
            assert asking.recv(100) == b"answer"
            return next(e for e in endpoints if e.servers["UDP", 4] is server)

        # Each flow is refused or begins at the other endpoint: both in turn, which all hear.
        assert {heard_by("pod") for _ in range(4)} == {other}
        states = {
            endpoint["address"]: endpoint
            for port in testbed.agent.status()["ports"]
            if (port["protocol"], port["family"], port["side"]) == ("UDP", "IPv4", "")
            for endpoint in port["endpoints"]
        }
        state = states[f"{strict.ip(4)}:{TARGET}"]
        assert state["failures"] >= 2
        assert state["ejected_for_s"] is None
        assert {heard_by("bridge-pod") for _ in range(2)} == {strict, other}
        for endpoint in endpoints:
            endpoint.close()


def drain(endpoint):
    """Take away what was accepted or sent and nobody has asked for."""
    for (protocol, _), server in endpoint.servers.items():
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                if protocol == "TCP":
                    server.accept()[0].close()
                else:
                    server.recv(100)
        server.settimeout(DEADLINE_S)


def part(testbed):
    """Return what of the kernel is there for answers, and the names of all tables."""
    show = "ip rule; ip -6 rule; ip route show table 11800; nft list tables"
    return sorted(testbed.shell(show).splitlines())


FLUSH = """
nft flush ruleset
ip rule del pref 119
ip -6 rule del pref 119
ip route flush table 11800
"""


def test_what_others_flush_is_repaired_and_an_open_connection_goes_on(world):
    endpoint, testbed = world.endpoints["remote"], world.testbed
    dialled = testbed["pod"].dial(world.address("pod", "remote", 4))
    accepted, _ = endpoint.servers["TCP", 4].accept()
    with accepted:
        assert talks(dialled, accepted)
        before = part(testbed)
        testbed.shell(FLUSH)
        wait_for("all of it", lambda: part(testbed) == before)
        assert talks(dialled, accepted)
    assert testbed.agent.status()["client_address"]["repairs"] >= 3


def test_a_flush_of_all_tables_takes_nothing_that_catches_answers(world):
    endpoint, testbed = world.endpoints["remote"], world.testbed
    before, repairs = part(testbed), testbed.agent.status()["client_address"]["repairs"]
    dialled = testbed["pod"].dial(world.address("pod", "remote", 4))
    accepted, _ = endpoint.servers["TCP", 4].accept()
    with accepted:
        assert talks(dialled, accepted)
        testbed.shell("nft flush ruleset")
        assert talks(dialled, accepted)
        wait_for("the steering", lambda: part(testbed) == before)
        assert talks(dialled, accepted)
    assert testbed.agent.status()["client_address"]["repairs"] == repairs


@pytest.mark.parametrize("steering", ["nftables", "local"])
def test_a_killed_agents_part_is_taken_over_and_a_stop_or_a_cleanup_leaves_nothing(
    steering, tmp_path
):
    with Testbed(tmp_path, steering, "--workers=1", clients=("pod",)) as testbed:
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        testbed.pod("routed").serve(None, tcp=81)
        before = testbed.kernel()
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        address = (CLUSTER_IPS[4].format(10), PORT)
        ip = str(testbed["pod"].host.ip)

        def seen():
            return endpoint.saw("TCP", 4, testbed["pod"], address)[0]

        testbed.agent.start_until_ready()
        assert seen() == ip
        running = testbed.kernel()
        testbed.agent.kill()
        assert "lookup 11800" in testbed.kernel()
        testbed.agent.start_until_ready()
        assert seen() == ip
        assert testbed.kernel().count("11800") == running.count("11800")
        assert testbed.agent.stop() == 0
        assert "11800" not in testbed.kernel()
        assert "userspace-proxy" not in testbed.rules()
        # Killed, and cleaned up.
        testbed.agent.start_until_ready()
        testbed.agent.kill()
        assert testbed.agent.run(command=CLEANUP).returncode == 0
        assert testbed.kernel() == before
        # Killed, and then nobody wants it any more.
        testbed.agent.start_until_ready()
        testbed.agent.kill()
        testbed.agent.flags = (*testbed.agent.flags, "--preserve-client-address=never")
        testbed.agent.start_until_ready()
        assert seen() in addresses(testbed.node)
        assert "11800" not in testbed.kernel()
        assert testbed.agent.status()["client_address"]["is_on"] is False
        assert testbed.agent.stop() == 0
        endpoint.close()


def test_where_the_kernel_does_not_let_us_the_reason_is_told_and_clients_are_served(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=("pod",)) as testbed:
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        address = (CLUSTER_IPS[4].format(10), PORT)
        assert endpoint.saw("TCP", 4, testbed["pod"], address)[0] in addresses(testbed.node)
        told = testbed.agent.status()["client_address"]
        assert not told["is_on"]
        assert told["why_not"].startswith("Cilium delivers")
        assert told["why_not"] in html.unescape(testbed.agent.read("/")[1])
        endpoint.close()


def test_cilium_that_comes_later_ends_it_and_nothing_of_it_stays(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=("pod",)) as testbed:
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        before = testbed.kernel()
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        address = (CLUSTER_IPS[4].format(10), PORT)

        def seen():
            return endpoint.saw("TCP", 4, testbed["pod"], address)[0]

        def is_on():
            return testbed.agent.status()["client_address"]["is_on"]

        ip = str(testbed["pod"].host.ip)
        assert seen() == ip
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        wait_for("an end of it", lambda: not is_on())
        assert seen() in addresses(testbed.node)
        testbed.shell("ip link del cilium_host")
        wait_for("its return", is_on)
        assert seen() == ip
        # A killed agent's routes go at the next start, which doesn't need them.
        testbed.agent.kill()
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        testbed.agent.start_until_ready()
        assert "11800" not in testbed.kernel()
        testbed.agent.kill()
        testbed.shell("ip link del cilium_host")
        # On, off at run time, stopped.
        testbed.agent.start_until_ready()
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        wait_for("an end of it", lambda: not is_on())
        assert testbed.agent.stop() == 0
        testbed.shell("ip link del cilium_host")
        assert testbed.kernel() == before
        endpoint.close()


def test_on_a_node_without_ipv6_endpoints_see_the_addresses_of_ipv4(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=("pod",)) as testbed:
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
        testbed.shell(off)
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        told = testbed.agent.status()["client_address"]
        assert (told["is_on"], told["why_not"], told["problem"]) == (True, "", "")
        address = (CLUSTER_IPS[4].format(10), PORT)
        for protocol in PROTOCOLS:
            ip = str(testbed["pod"].host.ip)
            assert endpoint.saw(protocol, 4, testbed["pod"], address)[0] == ip
        endpoint.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_with_a_leg_in_its_clients_network_is_served_where_its_service_says_so(
    protocol, tmp_path
):
    """As Multus gives it; what it answers doesn't come back by the node."""
    flags = ("--workers=1", "--v=3")
    with Testbed(tmp_path, "nftables", *flags, clients=("pod", "laptop")) as testbed:
        endpoint, laptop = Endpoint(testbed.sandbox.add_pod("routed")), testbed["laptop"].host
        leg = f"ip link add lan type veth peer name leg netns {laptop.pid}"
        endpoint.host.run(["sh", "-ec", f"{leg}; ip link set lan up"])
        endpoint.host.run(["ip", "route", "add", f"{laptop.ip}/32", "dev", "lan"])
        laptop.run(["ip", "link", "set", "leg", "up"])
        spec = {"type": "NodePort", "nodePort": NODE_PORT}
        documents = list(objects("routed", 10, (endpoint, "node-1"), **spec))
        annotation = "userspace-proxy.io/preserve-client-address"
        documents[0]["metadata"]["annotations"] = {annotation: "never"}
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        address = (str(testbed.node.ip), NODE_PORT)
        seen = endpoint.saw(protocol, 4, testbed["laptop"], address)[0]
        assert seen in addresses(testbed.node)
        endpoint.close()
