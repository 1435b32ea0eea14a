"""The commands status, top and explain on a real node: what they print, and their exit status."""

import re
import subprocess
import sys

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

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


def test_explain_dials_the_service_and_each_endpoint(testbed, run):
    status, text = run("explain", "shop/web", "--probe", "--from", testbed.ip("one"))
    lines = [line.strip() for line in text.splitlines()]
    assert status == 0, text
    assert "✓ rules      nftables: the kernel is as planned, compared every second" in lines
    assert "✓ firewall   No chain of another program is known to drop packets to it" in lines
    assert re.search(r"[✓·] address +10\.96\.0\.10:80/TCP, ClusterIP: proxy port \d+", text)
    assert re.search(r"✓ dial +10\.96\.0\.10:80 accepts a connection after ", text)
    assert re.search(rf"✓ {testbed.ip('two')}:8080: accepts a connection after ", text)


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
