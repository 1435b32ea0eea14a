"""Flags for node ports, external IPs, proxy ports and canaries."""

import contextlib
import json

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Sockets, http_get
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

NODE_PORT = 30080
WEB = Service(
    "web",
    "10.96.0.10",
    more={
        "type": "NodePort",
        "ports": [{"port": 80, "nodePort": NODE_PORT}],
        "externalIPs": ["203.0.113.9"],
    },
)
CART = Service("cart", "10.96.0.20")
NODE_IP, OTHER_IP = "192.0.2.1", "192.0.2.77"


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node with a pod and no agent yet."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", "--workers=1") as testbed:
        testbed.add_pods("one", tcp=8080)
        yield testbed


@contextlib.contextmanager
def running(testbed, *flags, services=(WEB,)):
    """Run the agent with these flags during the block."""
    testbed.agent.flags = ("--workers=1", "--drain-timeout=0s", *flags)
    testbed.serve(*(with_endpoints(service, [testbed.ip("one")]) for service in services))
    try:
        yield
    finally:
        testbed.hang_up()
        assert testbed.agent.stop() == 0


def who(testbed, client, ip, port):
    """Return a client's result: a pod's name, or how the client is refused."""
    with testbed[client].tcp(ip) as sock:
        sock.settimeout(1.0)
        try:
            return http_get(sock, (ip, port), "/")[1].strip()
        except OSError as exc:
            return type(exc).__name__


def test_node_ports_follow_changes_of_the_nodes_addresses(testbed):
    testbed.shell(f"ip address add {OTHER_IP}/32 dev lo; ip address del {OTHER_IP}/32 dev lo")
    with running(testbed):
        assert who(testbed, "node-1", "127.0.0.1", NODE_PORT) == "one"
        testbed.shell(f"ip address add {OTHER_IP}/32 dev lo")
        wait_for("the address", lambda: who(testbed, "pod", OTHER_IP, NODE_PORT) == "one")
        assert f"{OTHER_IP}:{NODE_PORT}" in testbed.agent.frontends("web")
        testbed.shell(f"ip address del {OTHER_IP}/32 dev lo")
        gone = f"{OTHER_IP}:{NODE_PORT}"
        wait_for("its end", lambda: gone not in testbed.agent.frontends("web"))
        wait_for("the end of its rules", lambda: OTHER_IP not in testbed.rules())


@pytest.mark.long
def test_a_canary_serves_its_services_beside_another_agent(testbed, tmp_path):
    canary_of = {"service.kubernetes.io/service-proxy-name": "canary"}
    labelled = [*with_endpoints(CART, [testbed.ip("one")]).objects()]
    labelled[0]["metadata"]["labels"] = canary_of
    documents = "\n---\n".join(map(json.dumps, labelled))
    testbed.agent.manifests.write_text(documents, name="canary.yaml")
    sockets = Sockets(testbed.node)
    canary = Agent(
        *(testbed.node, sockets, tmp_path, "iptables"),
        *("--service-proxy-name=canary", "--proxy-ports=16000-16999", "--workers=1"),
        *("--healthz-bind-address=127.0.0.1:10356", "--metrics-bind-address=127.0.0.1:10349"),
    )
    canary.manifests.write_text(documents, name="canary.yaml")
    with running(testbed):
        assert who(testbed, "pod", CART.ip, 80) != "one"
        canary.start()
        wait_for("the canary", lambda: who(testbed, "pod", CART.ip, 80) == "one", hint=canary.log)
        assert who(testbed, "pod", WEB.ip, 80) == "one"
        # The canary's Services are applied shortly before it is healthy.
        wait_for("its health", lambda: canary.read("/healthz", port=10356)[0] == 200)
        # A stopping agent removes nothing that belongs to the other agent.
        before = testbed.rules()
        assert canary.stop() == 0
        assert who(testbed, "pod", CART.ip, 80) != "one"
        assert who(testbed, "pod", WEB.ip, 80) == "one"
        canary.start()
        wait_for("the canary again", lambda: who(testbed, "pod", CART.ip, 80) == "one")
        assert sorted(testbed.rules().splitlines()) == sorted(before.splitlines())
    assert who(testbed, "pod", CART.ip, 80) == "one"
    assert who(testbed, "pod", WEB.ip, 80) != "one"
    assert canary.stop() == 0
    sockets.close()
    assert "UPROXY" not in testbed.rules()
