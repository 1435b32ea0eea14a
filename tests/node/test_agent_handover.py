"""Changing a Service port's policy with local steering refuses no client."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import refusal, repeated
from tests.node.manifests import Service
from tests.node.testbed import Testbed, steerings

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB_PORT, DNS_PORT = 30080, 30053
# How long to wait for an answer before asking again: a policy change may have lost it.
LOST_S = 0.3
POLICIES = ("Cluster", "Local") * 10


class OnThisNode(Service):
    """A Service whose endpoints are pods on this node."""

    def objects(self):
        for found in super().objects():
            for endpoint in found.get("endpoints", ()):
                endpoint["nodeName"] = "node-1"
            yield found


WEB = OnThisNode("web", "10.96.0.10")
DNS = OnThisNode("dns", "10.96.0.53", 53, "UDP", target=53)
NODE_PORTS = {"web": WEB_PORT, "dns": DNS_PORT}


def with_policy(service: Service, policy: str, ips: list[str]) -> Service:
    node_port = NODE_PORTS[service.name]
    port = {"port": service.port, "protocol": service.protocol, "nodePort": node_port}
    more = {"type": "NodePort", "externalTrafficPolicy": policy, "ports": [port]}
    return replace(service, endpoints=ips, more=more)


@pytest.fixture(params=steerings("local", "local-on-a-node"))
def testbed(request, tmp_path):
    with Testbed(
        tmp_path, request.param, "--workers=2", "--v=4", clients=["laptop", "pod"]
    ) as testbed:
        testbed.ips = testbed.add_pods("one", tcp=8080, udp=53)
        testbed.serve(*(with_policy(service, "Cluster", testbed.ips) for service in (WEB, DNS)))
        yield testbed


def wait_for_another(seen: list[str]) -> None:
    before = len(seen)
    wait_for("one more", lambda: len(seen) > before)


def ask_once(client, address) -> str:
    with client.new_udp() as sock:
        sock.settimeout(LOST_S)
        sock.connect(address)
        return refusal(sock)


def test_no_client_is_refused_while_a_services_policy_changes(testbed):
    client, other, node = testbed["laptop"], testbed["pod"], str(testbed.node.ip)

    def flip(policy: str) -> None:
        flipped = [with_policy(service, policy, testbed.ips) for service in (WEB, DNS)]
        before = testbed.agent.log().count("plan applied")
        testbed.edit(*flipped)
        wait_for(
            f"the policy {policy}",
            lambda: testbed.agent.log().count("plan applied") > before,
            hint=testbed.agent.log,
        )

    with (
        repeated(lambda: client.tcp_refusal((node, WEB_PORT))) as dialled,
        repeated(lambda: ask_once(other, (node, DNS_PORT))) as asked,
    ):
        for policy in POLICIES[1:]:
            flip(policy)
            wait_for_another(dialled)
    assert set(dialled) == {"accepted"}
    assert set(asked) <= {"answered", "timed out"}
    assert len(dialled) > len(POLICIES)
