"""Clients that leave before an endpoint answers, on a real node with two workers."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WAIT_S = 1.2
"""Of a client, for an answer."""
SUM = Service("sum", "10.96.0.10", target=9200)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves what answers the end of a client's input."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=2") as testbed:
        (one,) = testbed.add_pods("one", sum=SUM.target)
        testbed.serve(with_endpoints(SUM, [one]))
        yield testbed


def port_of(testbed, service):
    """Return what the JSON has of a Service's port."""
    (port,) = [port for port in testbed.agent.status()["ports"] if port["service"] == service.name]
    return port


def test_an_endpoint_that_answers_the_end_of_its_input_is_not_called_slow(testbed):
    for _ in range(3):
        with testbed["pod"].tcp() as client:
            client.connect(SUM.address)
            client.sendall(b"question")
            client.settimeout(WAIT_S)
            with pytest.raises(TimeoutError):
                client.recv(1)
    said = "answers right after its clients have left, and not before: its first byte took 1."
    wait_for(said, lambda: said in port_of(testbed, SUM)["state"]["sentence"])
    assert "waits for the end of its input" in port_of(testbed, SUM)["state"]["way_out"]
