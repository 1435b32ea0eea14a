"""A canary serves its Services beside another agent."""

import contextlib
import json

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Sockets, http_get
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB, CART = Service("web", "10.96.0.10"), Service("cart", "10.96.0.20")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node with a pod and no agent yet."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", "--workers=1") as testbed:
        testbed.add_pods("one", tcp=8080)
        yield testbed


@contextlib.contextmanager
def running(testbed):
    """Run the agent during the block."""
    testbed.agent.flags = ("--workers=1", "--drain-timeout=0s")
    testbed.serve(with_endpoints(WEB, [testbed.ip("one")]))
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
