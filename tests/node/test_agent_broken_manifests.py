"""Manifests that are broken, at the start or later: they are shown, and all else goes on."""

import os
from dataclasses import replace

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
BROKEN = """\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  clusterIP: 10.96.0.11
  ports:
  - port: 70000
"""
BROKEN_SAYS = "spec.ports[0].port: 70000 is not in 1–65535"
NOT_YAML = "spec: {clusterIP: 10.96.0.11\n"


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node whose agent began with a good and a broken manifest."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables") as testbed:
        testbed.agent.manifests.write_text(BROKEN, name="cart.yaml")
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        yield testbed


def problems(testbed):
    return testbed.agent.status()["source"]["problems"]


def test_a_manifest_that_is_broken_at_the_start_is_shown_and_the_others_are_served(testbed):
    place = testbed.agent.manifests.folder / "cart.yaml"
    assert problems(testbed) == [f"{place}:7: {BROKEN_SAYS}"]
    assert f"{place}:7: {BROKEN_SAYS}" in testbed.agent.read("/")[1]
    assert f'problem="{place}:7: {BROKEN_SAYS}"' in testbed.agent.log()
    assert testbed["pod"].get(WEB.address) == "one"


@pytest.mark.parametrize("text", [NOT_YAML, BROKEN], ids=["not-yaml", "bad-port"])
def test_a_manifest_that_breaks_later_keeps_its_last_good_state(testbed, text):
    path = testbed.agent.manifests.folder / "shop.yaml"
    good = path.read_text()
    testbed.agent.manifests.write_text(text)
    wait_for("the problem", lambda: any(p.startswith(f"{path}:") for p in problems(testbed)))
    assert testbed["pod"].get(WEB.address) == "one"
    # The page is made once a second.
    wait_for("the page", lambda: str(path) in testbed.agent.read("/")[1])
    testbed.agent.manifests.write_text(good)
    wait_for("its end", lambda: not any(str(path) in p for p in problems(testbed)))


def test_a_corrected_manifest_is_served_and_its_problem_ends(testbed):
    path = testbed.agent.manifests.folder / "cart.yaml"
    path.write_text(BROKEN.replace("70000", "80"))
    wait_for("a good manifest", lambda: not problems(testbed))
    wait_for("the Service", lambda: testbed["pod"].tcp_refusal(("10.96.0.11", 80)) == "refused")


def test_a_pipe_in_the_folder_is_shown_and_files_are_followed(testbed):
    pipe = testbed.agent.manifests.folder / "pipe.yaml"
    os.mkfifo(pipe)
    said = f"{pipe}: cannot read: it is a pipe, a socket or a device"
    wait_for("the problem", lambda: any(p.startswith(said) for p in problems(testbed)))
    testbed.agent.manifests.write(Service("late", "10.96.0.12"), name="late.yaml")
    wait_for("a later file", lambda: testbed["pod"].tcp_refusal(("10.96.0.12", 80)) == "refused")
    pipe.unlink()
    wait_for("its end", lambda: not problems(testbed))


def test_a_service_at_the_nodes_own_address_is_told_and_all_others_are_served(testbed):
    own = str(testbed.sandbox.node.ip)
    ports = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    service = replace(with_endpoints(Service("own", own), [testbed.ip("one")]), more=ports)
    before = testbed.kernel()
    testbed.agent.manifests.write(service, name="own.yaml")

    def said():
        ignored = testbed.agent.status()["ignored"]
        return [(item["service"], item["cause"]["sentence"]) for item in ignored]

    sentence = f"its clusterIP {own} is an address of this node"
    wait_for("the cause", lambda: said() == [("shop/own", sentence)])
    # The state is known before its line is written.
    wait_for("its line", lambda: testbed.agent.log().count(sentence) == 1)
    assert "Give it a clusterIP that no machine has" in testbed.agent.log()
    assert testbed.kernel() == before
    assert [testbed["pod"].tcp_refusal((own, port)) for port in (80, 30080)] == ["refused"] * 2
    assert testbed["pod"].get(WEB.address) == "one"
    service = replace(service, ip="10.96.0.13")
    testbed.agent.manifests.write(service, name="own.yaml")
    wait_for("a good address", lambda: said() == [])
    # The plan says so; the rules follow.
    wait_for("its rules", lambda: service.ip in str(testbed.kernel()))
    assert testbed["pod"].get(service.address) == "one"


def test_a_manifests_folder_that_vanishes_changes_nothing(testbed):
    folder = testbed.agent.manifests.folder
    folder.rename(folder.with_name("moved"))
    said = f"{folder}: cannot read: No such file or directory"
    wait_for("the problem", lambda: said in problems(testbed))
    assert testbed["pod"].get(WEB.address) == "one"
    folder.with_name("moved").rename(folder)
    wait_for("its end", lambda: said not in problems(testbed))
