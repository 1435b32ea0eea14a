"""The kernel path: translation to endpoints by rules, and switches to and from this path."""

import json
import select

import pytest

from tests.cluster.waiting import wait_for
from tests.kernel_needs import KERNEL_ONCE
from tests.netns import DEADLINE_S
from tests.node.endpoints import (
    CLUSTER_IPS,
    PORT,
    PROTOCOLS,
    SEEN,
    TARGET,
    VERSIONS,
    Endpoint,
    EndpointWorld,
    accept_with_data,
    carries_both_ways,
    objects,
)
from tests.node.testbed import CLIENTS, Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

ANNOTATION = "userspace-proxy.io/path"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", "--path=kernel", "--workers=1", clients=CLIENTS) as testbed:
        world = EndpointWorld(testbed)
        yield world
        world.close()


# A pod's reply to another pod on the bridge would bypass the node.
SEEN_ON_KERNEL_PATH = {**SEEN, ("bridge-pod", "bridged"): "node"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("client", "endpoint"), SEEN_ON_KERNEL_PATH)
def test_an_endpoint_sees_its_client_unless_replies_would_bypass_the_node(
    world, client, endpoint, protocol, version
):
    assert world.saw(client, endpoint, protocol, version) == SEEN_ON_KERNEL_PATH[client, endpoint]


class OneService:
    """A Service whose path and endpoints change: by default one endpoint, and a spare pod."""

    def __init__(self, testbed):
        self.testbed = testbed
        self.agent = testbed.agent
        self.endpoint = Endpoint(testbed.sandbox.add_pod("web"))
        self.spare = Endpoint(testbed.sandbox.add_pod("spare"))
        self.more = {}

    def write(self, path, *endpoints):
        documents = list(
            objects(
                "web", 10, *((one, "node-1") for one in endpoints or (self.endpoint,)), **self.more
            )
        )
        documents[0]["metadata"]["annotations"] = {ANNOTATION: path}
        self.agent.manifests.write_objects(documents)

    def switch(self, path, *endpoints):
        self.write(path, *endpoints)
        wanted = [str(endpoint.ip(4)) for endpoint in endpoints or (self.endpoint,)]

        def is_in_force():
            status = self.agent.status()
            return not status["sync"]["waiting_since"] and all(
                port["path"] == path and (port["family"] == "IPv6" or self.ips(port) == wanted)
                for port in status["ports"]
            )

        wait_for(f"the path {path}", is_in_force, hint=self.agent.log)

    @staticmethod
    def ips(port):
        return [endpoint["address"].partition(":")[0] for endpoint in port["endpoints"]]

    def carried(self):
        """Return the number of connections and flows that the proxy itself has relayed."""
        return sum(port["connections"] for port in self.agent.status()["ports"])

    def close(self):
        self.endpoint.close()
        self.spare.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", "--workers=1", clients=["pod"]) as testbed:
        web = OneService(testbed)
        web.write("userspace")
        testbed.agent.start_until_ready()
        yield web
        web.close()


@pytest.fixture
def web(shared):
    shared.switch("userspace")
    shared.testbed.shell("conntrack -F")
    yield shared
    shared.testbed.hang_up()


@pytest.mark.parametrize("version", KERNEL_ONCE)
def test_a_switch_of_the_path_ends_no_open_connection_or_flow(web, version):
    address = (CLUSTER_IPS[version].format(10), PORT)
    client = web.testbed["pod"]
    tcp, udp = web.endpoint.servers["TCP", version], web.endpoint.servers["UDP", version]
    opened = []
    for number, path in enumerate(("userspace", "kernel", "userspace", "kernel")):
        web.switch(path)
        before = web.carried()
        dialled = client.dial(address)
        dialled.sendall(b"hello")
        accepted, _ = accept_with_data(tcp)
        asking = client.udp(address)
        asking.send(f"hello {number}".encode())
        said, peer = udp.recvfrom(100)
        assert said == f"hello {number}".encode()
        assert web.carried() - before == (0 if path == "kernel" else 2)
        opened.append((dialled, accepted, asking, peer))
        for one, other, flow, known in opened:
            assert carries_both_ways(one, other)
            flow.send(b"still there")
            assert udp.recvfrom(100) == (b"still there", known)
            udp.sendto(b"yes", known)
            assert flow.recv(100) == b"yes"
    for _, accepted, _, _ in opened:
        accepted.close()


@pytest.mark.kernel
def test_reply_rules_are_absent_until_the_proxy_serves_a_service_port(tmp_path):
    flags = ("--workers=1", "--path=kernel")
    with Testbed(tmp_path, "nftables", *flags, clients=["pod"]) as testbed:
        web = OneService(testbed)
        web.write("kernel")
        testbed.agent.start_until_ready()
        web.switch("kernel")
        assert "11800" not in testbed.kernel()
        assert "userspace-proxy/replies" not in testbed.rules()
        web.switch("userspace")
        pod = testbed["pod"]
        seen = {
            web.endpoint.saw(protocol, version, pod, (CLUSTER_IPS[version].format(10), PORT))[0]
            for protocol in PROTOCOLS
            for version in VERSIONS
        }
        assert seen == {str(pod.host.ip), str(pod.host.ip6)}
        assert "userspace-proxy/replies" in testbed.rules()
        web.close()


def test_tracked_connections_are_counted_on_request(web):
    web.switch("kernel", web.endpoint, web.spare)
    for _ in range(6):
        assert web.testbed["pod"].tcp_refusal((CLUSTER_IPS[4].format(10), PORT)) == "accepted"
    ports = json.loads(web.agent.read("/api/v1/kernel-path")[1])["ports"]
    assert len(ports) == 4
    (shown,) = (p for p in ports if (p["family"], p["protocol"]) == ("IPv4", "TCP"))
    assert {one["address"] for one in shown["endpoints"]} == {
        f"{endpoint.ip(4)}:{TARGET}" for endpoint in (web.endpoint, web.spare)
    }
    assert sum(one["tracked"] for one in shown["endpoints"]) == 6
    assert {one["received_bytes"] for one in shown["endpoints"]} == {None}


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_of_tracked_flows_are_counted_with_conntrack_accounting(web, version):
    web.testbed.shell("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
    web.switch("kernel")
    flow = web.testbed["pod"].udp((CLUSTER_IPS[version].format(10), PORT))
    server = web.endpoint.servers["UDP", version]
    for _ in range(3):
        flow.send(b"x" * 100)
        _, client = server.recvfrom(200)
    server.sendto(b"y" * 50, client)
    assert flow.recv(100) == b"y" * 50
    answer = json.loads(web.agent.read("/api/v1/kernel-path")[1])
    family = f"IPv{version}"
    (shown,) = (p for p in answer["ports"] if (p["family"], p["protocol"]) == (family, "UDP"))
    (endpoint,) = shown["endpoints"]
    headers = 28 if version == 4 else 48
    assert (endpoint["received_packets"], endpoint["received_bytes"]) == (3, 3 * (100 + headers))
    assert (endpoint["sent_packets"], endpoint["sent_bytes"]) == (1, 50 + headers)
    assert answer["note"] == ""


def test_a_flow_moves_after_its_endpoint_is_removed_even_after_a_path_switch(web):
    web.switch("kernel")
    address = (CLUSTER_IPS[4].format(10), PORT)
    asking = web.testbed["pod"].udp(address)
    asking.send(b"one")
    assert web.endpoint.servers["UDP", 4].recv(100) == b"one"
    web.switch("userspace")
    asking.send(b"two")
    assert web.endpoint.servers["UDP", 4].recv(100) == b"two"
    web.switch("userspace", web.spare)
    servers = [one.servers["UDP", 4] for one in (web.endpoint, web.spare)]

    def moved():
        asking.send(b"three")
        readable, _, _ = select.select(servers, [], [], DEADLINE_S)
        return [server.recv(100) for server in readable] and readable == servers[1:]

    # The flow is moved shortly after the rules are applied.
    wait_for("the flow to move", moved, hint=web.agent.log)


def ports_seen(web, port):
    """Return the TCP and UDP source ports that the endpoint sees if clients use this port."""
    address, client = (CLUSTER_IPS[4].format(10), PORT), web.testbed["pod"]
    with client.dial(address, port=port) as dialled:
        dialled.sendall(b"hello")
        accepted, (_, of_tcp) = accept_with_data(web.endpoint.servers["TCP", 4])
        accepted.close()
    with client.new_udp() as asking:
        asking.bind((str(client.host.ip), port))
        asking.sendto(b"hello", address)
        _, (_, of_udp) = web.endpoint.servers["UDP", 4].recvfrom(100)
    return of_tcp, of_udp


def test_only_the_kernel_path_preserves_the_clients_source_port(web):
    web.switch("kernel")
    assert ports_seen(web, 700) == (700, 700)
    web.switch("userspace")
    assert min(ports_seen(web, 701)) > 1023
