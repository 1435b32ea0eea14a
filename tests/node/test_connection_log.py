"""The connection log of a real agent with two workers."""

import json

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service
from tests.node.steerings import steerings
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)


@pytest.fixture(params=steerings("nftables", "local"))
def steering(request):
    return request.param


def make(tmp_path, steering, *flags):
    testbed = Testbed(tmp_path, steering, "--workers=2", *flags, clients=("pod",))
    one, _ = testbed.add_pods("one", "two", tcp=8080, udp=53)
    testbed.agent.manifests.write(
        *(Service(s.name, s.ip, s.port, s.protocol, [one], s.target) for s in (WEB, DNS))
    )
    return testbed


def logged(testbed):
    lines = [json.loads(line) for line in testbed.agent.log().splitlines()]
    return [line for line in lines if line["logger"] == "userspace_proxy.connections"]


def test_a_line_of_a_connection_and_one_of_a_flow(tmp_path, steering):
    flags = ("--connection-log=1", "--log-format=json", "--udp-idle-timeout=1s")
    with make(tmp_path, steering, *flags) as testbed:
        testbed.agent.start_until_ready()
        pod = testbed["pod"]
        assert pod.get(WEB.address) == "one"
        assert pod.asks(DNS.address) == "one: hello"
        wait_for("both lines", lambda: len(logged(testbed)) == 2, hint=testbed.agent.log)
        tcp, udp = sorted(logged(testbed), key=lambda line: line["kind"])
        own = testbed.ip("pod")
        assert (tcp["service"], tcp["client"].rpartition(":")[0]) == ("shop/web", own)
        assert (tcp["frontend"], tcp["endpoint"]) == ("10.96.0.10:80", f"{testbed.ip('one')}:8080")
        assert (tcp["cause"], tcp["dials"]) == ("complete", 1)
        assert 0 < tcp["waited_s"] <= tcp["duration_s"]
        assert (udp["kind"], udp["service"], udp["cause"]) == ("flow", "shop/dns", "idle")
        assert (udp["received_bytes"], udp["sent_bytes"]) == (5, 10)
        assert udp["frontend"] == ("10.96.0.53:53" if steering == "local" else "")


def test_by_default_there_are_none(tmp_path):
    with make(tmp_path, "local", "--log-format=json", "--v=3") as testbed:
        testbed.agent.start_until_ready()
        assert testbed["pod"].get(WEB.address) == "one"
        wait_for(
            "the connection to be counted",
            lambda: sum(port["connections"] for port in testbed.agent.status()["ports"]) == 1,
        )
        testbed.agent.stop()
        assert logged(testbed) == []
