"""``balance: source-hash`` on the kernel path: a client's address selects its endpoint."""

import ipaddress
import select
from collections import Counter

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS, Endpoint, objects
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH
from userspace_proxy.model import SocketAddress

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH, "hash")]

ANNOTATIONS = {
    "userspace-proxy.io/path": "kernel",
    "userspace-proxy.io/balance": "source-hash",
}
NETWORKS = {4: "10.250.0.0/24", 6: "fd00:250::/120"}
CLIENTS = {
    version: [str(ip) for ip in list(ipaddress.ip_network(network).hosts())[:64]]
    for version, network in NETWORKS.items()
}


class Hashed:
    """A Service with four endpoints, and 64 clients of each family in one pod."""

    def __init__(self, testbed):
        self.testbed = testbed
        self.agent = testbed.agent
        self.endpoints = [Endpoint(testbed.sandbox.add_pod(f"web-{n}")) for n in range(4)]
        pod = testbed["pod"].host
        pod.configure(
            f"address add {ip} dev eth0 {'nodad' if version == 6 else ''}"
            for version in VERSIONS
            for ip in CLIENTS[version]
        )
        testbed.node.configure(
            f"route replace {network} dev {pod.host_interface}" for network in NETWORKS.values()
        )

    def write(self, endpoints, **spec):
        documents = list(objects("web", 10, *((one, "node-1") for one in endpoints), **spec))
        documents[0]["metadata"]["annotations"] = ANNOTATIONS
        self.agent.manifests.write_objects(documents)

    def serve(self, endpoints):
        self.write(endpoints)
        wanted = {str(self.address(one, version)) for one in endpoints for version in VERSIONS}

        def is_in_force():
            status = self.agent.status()
            shown = {e["address"] for port in status["ports"] for e in port["endpoints"]}
            return not status["sync"]["waiting_since"] and shown == wanted

        wait_for("the endpoints", is_in_force, hint=self.agent.log)

    def met(self, version):
        """Dial from each client; return the endpoints that they reached, by client."""
        return {client: self.dial(client) for client in CLIENTS[version]}

    def dial(self, ip):
        version = ipaddress.ip_address(ip).version
        servers = {one.servers["TCP", version]: one for one in self.endpoints}
        with self.testbed["pod"].tcp(ip) as dialling:
            dialling.bind((ip, 0))
            dialling.connect((CLUSTER_IPS[version].format(10), PORT))
            dialling.send(b"hello")
            ((server,), _, _) = select.select(servers, (), (), DEADLINE_S)
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == ip
        return servers[server]

    @staticmethod
    def address(endpoint, version):
        return SocketAddress(endpoint.ip(version), TARGET)

    def close(self):
        for endpoint in self.endpoints:
            endpoint.close()


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", "--workers=1", clients=["pod"]) as testbed:
        web = Hashed(testbed)
        web.write(web.endpoints)
        testbed.agent.start_until_ready()
        yield web
        web.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_removing_and_restoring_an_endpoint_moves_only_its_clients(web, version):
    web.serve(web.endpoints)
    before = web.met(version)
    clients = Counter(before.values())
    assert len(clients) == 4
    assert max(clients.values()) < 32
    gone, *others = web.endpoints
    web.serve(others)
    after = web.met(version)
    moved = {client for client in before if before[client] is not after[client]}
    assert moved == {client for client in before if before[client] is gone}
    assert len({after[client] for client in moved}) > 1
    web.serve(web.endpoints)
    assert web.met(version) == before
