"""The commands status, top and explain on a real node: what they print, and their exit status."""

import json
import re
import subprocess
import sys

import pytest

from tests.cluster.waiting import wait_for
from tests.node.broken_services import firewall
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say

pytestmark = pytest.mark.netns

PROGRAM = (sys.executable, "-m", "userspace_proxy")
WEB = Service("web", "10.96.0.10")
FLAKY = Service("flaky", "10.96.0.20")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves web, with two pods, and flaky, with one of them and one that is dead."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=1") as testbed:
        one, two = testbed.add_pods("one", "two", tcp=8080)
        testbed.sandbox.add_pod("gone")
        testbed.serve(
            with_endpoints(WEB, [one, two]), with_endpoints(FLAKY, [one, testbed.ip("gone")])
        )
        yield testbed


@pytest.fixture
def run(testbed):
    """Run a command on the node; returns its exit status and its output."""

    def run(*words):
        done = testbed.agent.run(command=[*PROGRAM, *words])
        assert done.stderr == ""
        return done.returncode, done.stdout

    return run


def test_curl_gets_the_same_text(testbed):
    text = testbed.shell("curl -s http://127.0.0.1:10249/")
    assert re.match(r"\S+  nftables  2 Service ports", text)


def test_explain_dials_the_service_and_each_endpoint(testbed, run):
    status, text = run("explain", "shop/web", "--probe", "--from", testbed.ip("one"))
    lines = [line.strip() for line in text.splitlines()]
    assert status == 0, text
    assert "✓ rules      nftables: the kernel is as planned, compared every second" in lines
    assert "✓ firewall   No chain of another program is known to drop packets to it" in lines
    assert re.search(r"[✓·] address +10\.96\.0\.10:80/TCP, ClusterIP: proxy port \d+", text)
    assert re.search(r"✓ dial +10\.96\.0\.10:80 accepts a connection after ", text)
    assert re.search(rf"✓ {testbed.ip('two')}:8080: accepts a connection after ", text)


def test_explain_ends_with_the_endpoint_that_refuses(testbed, run):
    gone = f"{testbed.ip('gone')}:8080"
    status, text = run("explain", "shop/flaky", "--probe", "-o", "json")
    explained = json.loads(text)
    assert (status, explained["level"]) == (3, "trouble")
    assert explained["sentence"] == (f"1 of 2 used endpoints failed: {say(refuses(gone))}")


def test_explain_sees_rules_that_another_program_removes_repaired(testbed, run):
    testbed.shell("nft delete table inet userspace-proxy")
    repaired = re.compile("the kernel is as planned, compared every second, [0-9]+ repairs? so far")
    wait_for("the repair", lambda: repaired.search(run("explain", "shop/web")[1]))


def test_explain_names_a_firewall(testbed, run):
    with firewall(testbed):
        wait_for("the firewall", lambda: "Chain ip filter INPUT" in run("explain", "shop/web")[1])
        status, text = run("explain", "shop/web")
    assert status == 3
    assert re.search(r"✕ firewall +Chain ip filter INPUT of another program may drop", text)


def test_top_shows_rates_of_the_busiest(testbed, run):
    testbed["pod"].get(WEB.address)
    wait_for("the answer to be counted", lambda: "✓ shop/web" in run("status", "shop/web")[1])
    process = testbed.node.popen(
        [*PROGRAM, "top"], stdout=subprocess.PIPE, env=testbed.agent.environment
    )
    try:
        for line in process.stdout:
            # A frame a second: traffic in one is a rate in the next.
            testbed["pod"].get(WEB.address)
            words = line.split()
            if "shop/web" in words and words[6] not in ("-", "0"):
                break
    finally:
        process.terminate()
        process.communicate()
    assert words[:2] == ["✓", "shop/web"]


@pytest.mark.long
def test_status_has_a_line_for_each_service_and_its_exit_status(testbed, run):
    # The last test: what its clients meet decides the other ones' words for a minute.
    status, text = run("status", "shop/web")
    assert status == 0
    assert re.search(r"^  [✓·] shop/web +10\.96\.0\.10:80 +2 of 2 ", text, re.MULTILINE)
    for _ in range(2):
        testbed["pod"].get(FLAKY.address)
    wait_for("flaky to need attention", lambda: run("status")[0] == 3)
    _, text = run("status")
    assert text.splitlines()[1].startswith("  ! shop/flaky  10.96.0.20:80  1 of 2  ")
    assert say(refuses("10.244.0.1:8080"), Form.PREDICATE) in text.splitlines()[1]
