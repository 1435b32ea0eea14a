"""What flags decide for node ports, external IPs, proxy ports and canaries."""

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
    """Run the agent with these flags, and see it go."""
    testbed.agent.flags = ("--workers=1", "--drain-timeout=0s", *flags)
    testbed.serve(*(with_endpoints(service, [testbed.ip("one")]) for service in services))
    try:
        yield
    finally:
        testbed.hang_up()
        assert testbed.agent.stop() == 0


def who(testbed, client, ip, port):
    """Return what a client gets: a pod's name, or how it is turned away."""
    with testbed[client].tcp(ip) as sock:
        sock.settimeout(1.0)
        try:
            return http_get(sock, (ip, port), "/")[1].strip()
        except OSError as exc:
            return type(exc).__name__


def test_node_ports_are_served_only_at_allowed_addresses(testbed):
    with running(testbed, "--nodeport-addresses=192.0.2.0/24"):
        assert who(testbed, "laptop", NODE_IP, NODE_PORT) == "one"
        assert who(testbed, "pod", "10.244.0.1", NODE_PORT) == "ConnectionRefusedError"
        assert who(testbed, "node-1", "127.0.0.1", NODE_PORT) == "ConnectionRefusedError"


@pytest.mark.long
def test_node_ports_are_served_only_at_the_nodes_primary_address(testbed):
    node = (
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n"
        f"status: {{addresses: [{{type: InternalIP, address: {NODE_IP}}}]}}\n"
    )
    testbed.agent.manifests.write_text(node, name="node.yaml")
    with running(testbed, "--nodeport-addresses=primary"):
        assert who(testbed, "laptop", NODE_IP, NODE_PORT) == "one"
        assert who(testbed, "node-1", "127.0.0.1", NODE_PORT) == "ConnectionRefusedError"
        testbed.agent.manifests.write_text("", name="node.yaml")


def test_node_ports_follow_the_nodes_addresses_live(testbed):
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


def test_external_ips_are_off_until_they_are_allowed(testbed):
    with running(testbed):
        assert who(testbed, "pod", "203.0.113.9", 80) != "one"
        (note,) = testbed.agent.port("web")["notes"]
        assert (note["code"], note["object"]) == ("external-ip-off", "203.0.113.9")
        assert "--allow-external-ips" in note["hint"]
    with running(testbed, "--allow-external-ips=203.0.113.0/24"):
        assert who(testbed, "pod", "203.0.113.9", 80) == "one"
        assert testbed.agent.port("web")["notes"] == []


@pytest.mark.long
def test_without_a_free_proxy_port_the_later_service_waits_with_a_problem(testbed):
    """One port of the two is the refuse port."""
    with running(testbed, "--proxy-ports=18000-18001", services=(CART,)):
        one = testbed.ip("one")
        both = with_endpoints(CART, [one]), with_endpoints(WEB, [one])
        testbed.edit(*both)
        testbed.agent.wait_until_settled(*both)
        assert who(testbed, "pod", CART.ip, 80) == "one"
        assert who(testbed, "pod", WEB.ip, 80) == "ConnectionRefusedError"
        assert "no proxy port of 18000-18001 is free" in testbed.agent.port("web")["problem"]
        assert testbed.agent.is_healthy()
        testbed.edit(with_endpoints(WEB, [one]))
        wait_for("a port", lambda: who(testbed, "pod", WEB.ip, 80) == "one")


@pytest.mark.long
def test_a_service_that_has_all_proxy_ports_gives_one_up_for_a_new_service(testbed):
    """One port of the 21 is the refuse port."""
    ports = [{"name": f"p{n}", "port": n} for n in range(1, 41)]
    greedy = with_endpoints(Service("greedy", "10.96.0.30", more={"ports": ports}), [])

    def unserved():
        return [p["problem"] for p in testbed.agent.status()["ports"] if p["problem"]]

    with running(testbed, "--proxy-ports=18000-18020", services=(CART,)):
        testbed.edit(greedy)
        wait_for("all ports", lambda: len(unserved()) == 40 - 20)
        web = with_endpoints(WEB, [testbed.ip("one")])
        testbed.edit(greedy, web)
        wait_for("a port", lambda: who(testbed, "pod", WEB.ip, 80) == "one")
        assert len(unserved()) == 40 - 19
        assert all("; Service shop/greedy has " in problem for problem in unserved())


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
        # What it serves is in force a moment before it says so.
        wait_for("its health", lambda: canary.read("/healthz", port=10356)[0] == 200)
        # Who stops takes nothing of the other's with it.
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


def test_problems_for_the_steering_are_logged_once_at_the_start(testbed):
    ports = "/proc/sys/net/ipv4/ip_local_port_range"
    before = testbed.shell(f"cat {ports}").strip()
    testbed.shell(f"echo 20000 60999 > {ports}")
    lines = len(testbed.agent.log().splitlines()) if testbed.agent.log_path.exists() else 0
    try:
        with running(testbed):

            def said():
                new = testbed.agent.log().splitlines()[lines:]
                return [line for line in new if " WARNING check topic=ports " in line]

            wait_for("the warnings", lambda: len(said()) == 2, hint=testbed.agent.log)
            assert "proxy ports 20000-29999" in said()[0]
            assert "hint=" in said()[0]
    finally:
        testbed.shell(f"echo {before} > {ports}")
