"""Chains of other programs that get a ClusterIP's packets first are reported (#12)."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")


def test_a_chain_dropping_an_endpoints_packets_is_reported(tmp_path):
    with Testbed(tmp_path, "nftables", clients=("pod",)) as testbed:
        (ip,) = testbed.add_pods("one", tcp=8080)
        testbed.serve(with_endpoints(WEB, [ip]))
        testbed.shell(
            "nft 'add table ip evil; "
            "add chain ip evil drops { type filter hook output priority 0; }; "
            f"add rule ip evil drops ip daddr {ip} tcp dport 8080 drop'"
        )
        with pytest.raises(OSError, match=r"reset|refused|timed out"):
            testbed["pod"].get(WEB.address)
        said = (
            f"Clients fail: {ip}:8080 does not answer: nftables chain ip evil drops of another "
            "program (output, priority 0) drops packets to it"
        )

        def sentence() -> str:
            return str(testbed.agent.port("web")["state"]["sentence"])

        wait_for(said, lambda: sentence() == said, hint=testbed.agent.log)
        testbed.shell("nft delete table ip evil")
        wait_for("its end", lambda: "chain" not in sentence(), hint=testbed.agent.log)
