"""Another program's nftables set that libnftables 1.0.6 can't parse, beside each steering (#12)."""

from __future__ import annotations

import sys

import foreign_sets
import pytest
from load import Flow

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = [pytest.mark.long, pytest.mark.netns]

ECHO = Service("echo", "10.96.0.7", 7, target=7)
WEB = Service("web", "10.96.0.10")
COMMAND = [sys.executable, "-m", "userspace_proxy"]
# Where a program undoes what; ``nft`` itself crashes while such a set is there.
UNDO = {
    "nftables": "NftTable('userspace-proxy').remove()",
    "auto-on-a-node": "NftTable('userspace-proxy').remove()",
    "local-on-a-node": "NftTable('userspace-proxy/local').remove()",
}
IMPORTS = "from userspace_proxy.kernel.nf_tables import list_tables\n"
IMPORTS += "from userspace_proxy.kernel.nf_tables.nft_table import NftTable\n"


def on_the_node(testbed: Testbed, script: str) -> str:
    """Run Python in the node's network namespace; return what it prints."""
    return testbed.node.run([sys.executable, "-c", IMPORTS + script]).stdout


@pytest.mark.parametrize("before", [True, False], ids=["set-first", "agent-first"])
@pytest.mark.parametrize("steering", steerings(*UNDO))
def test_everything_works_beside_a_set_that_libraries_cannot_parse(steering, before, tmp_path):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        pod = testbed["pod"]
        ips = testbed.add_pods("one", tcp=8080, echo=7)
        add_set = [sys.executable, foreign_sets.__file__]
        if before:
            testbed.node.run(add_set)
        testbed.serve(with_endpoints(ECHO, ips))
        if not before:
            testbed.node.run(add_set)
        with Flow(pod.dial(ECHO.address)) as flow:
            testbed.edit(with_endpoints(ECHO, ips), with_endpoints(WEB, ips))
            testbed.agent.wait_until_settled(with_endpoints(ECHO, ips), with_endpoints(WEB, ips))
            assert pod.get(WEB.address) == "one"
            on_the_node(testbed, UNDO[steering])
            wait_for(
                "the repair", lambda: "repaired" in testbed.agent.log(), hint=testbed.agent.log
            )
            assert pod.get(WEB.address) == "one"
            flow.until_it_flows()
            assert not flow.broken
        check = testbed.agent.run(command=[*COMMAND, "check", "--take-over", testbed.agent.source])
        assert (check.returncode, check.stderr) == (0, ""), check.stdout
        testbed.agent.kill()
        cleanup = testbed.agent.run(command=[*COMMAND, "cleanup"])
        assert cleanup.returncode == 0, cleanup.stderr
        assert on_the_node(testbed, "print(list_tables())") == "['other']\n"


def test_the_set_crashes_nft_itself(tmp_path):
    with Testbed(tmp_path, "nftables", clients=()) as testbed:
        testbed.node.run([sys.executable, foreign_sets.__file__])
        listed = testbed.node.run(["nft", "list", "ruleset"], check=False)
        assert listed.returncode < 0
