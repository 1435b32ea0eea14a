"""The command observe on a real node with two workers lists each connection of clients."""

import json
import sys
from contextlib import contextmanager

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

PROGRAM = (sys.executable, "-m", "userspace_proxy")
# No controller lists this pod, so its name is followed by the namespace of the slice that lists it.
CART = "shop/cart-1 (listed by shop)"
WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
EMPTY = Service("empty", "10.96.0.40")


@pytest.fixture(scope="module", params=steerings("nftables", "local"))
def testbed(request, tmp_path_factory):
    """A node that serves web, dns and empty."""
    folder = tmp_path_factory.mktemp("agent")
    flags = ("--workers=2", "--udp-idle-timeout=1s", "--metrics-detail=endpoint")
    with Testbed(folder, request.param, *flags) as testbed:
        (one,) = testbed.add_pods("one", tcp=8080, udp=53)
        services = with_endpoints(WEB, [one]), with_endpoints(DNS, [one]), EMPTY
        objects = [item for service in services for item in service.objects()]
        # The clients' pod is an endpoint, too, so its name is known.
        client = {"addresses": [testbed.ip("pod")], "conditions": {"ready": False}}
        target = {"targetRef": {"kind": "Pod", "name": "cart-1"}}
        objects[1]["endpoints"].append(client | target)
        testbed.agent.manifests.write_objects(objects)
        testbed.agent.start_until_ready()
        yield testbed


@contextmanager
def observing(testbed, tmp_path, *words):
    """Run observe on the node; yield a function that returns its lines so far."""
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        process = testbed.node.popen(
            [*PROGRAM, "observe", *words], stdout=output, env=testbed.agent.environment
        )
    try:
        # The last line may be incomplete.
        yield lambda: shown.read_text().split("\n")[:-1]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_observe_prints_connections_and_flows_with_client_names(testbed, tmp_path):
    pod = testbed["pod"]

    def found():
        assert pod.get(WEB.address) == "one"
        assert pod.asks(DNS.address) == "one: hello"
        records = map(json.loads, lines())
        kinds.update({one["kind"]: one for one in records if one["event"] == "ended"})
        return len(kinds) == 2

    kinds = {}
    with observing(testbed, tmp_path, "shop", "-o", "json", f"--from={testbed.ip('pod')}") as lines:
        wait_for("a connection and a flow", found, hint=lines)
        unseen = json.loads(lines()[0])
    tcp, udp = kinds["connection"], kinds["flow"]
    assert (tcp["service"], tcp["cause"], tcp["source"]) == ("shop/web", "complete", "client")
    assert (tcp["client_pod"], tcp["frontend"]) == (CART, "10.96.0.10:80")
    assert tcp["endpoint"] == f"{testbed.ip('one')}:8080"
    assert 0 <= tcp["first_byte_s"] <= tcp["duration_s"]
    assert tcp["sent_bytes"] > 0
    assert (udp["service"], udp["received_bytes"], udp["sent_bytes"]) == ("shop/dns", 5, 10)
    assert udp["first_byte_s"] is not None
    assert (unseen["event"], unseen["service"]) == ("unseen", "shop/empty")
