"""Chains of other programs that get a ClusterIP's packets first are reported (#12)."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")


NEXT = "add rule ip evil drops"


@pytest.mark.parametrize(
    ("steering", "hook", "rule", "does"),
    [
        ("nftables", "output", "ip daddr {} tcp dport 8080", "drops packets to it"),
        ("nftables", "output", f"oifname lo accept; {NEXT} ct state new", "drops packets to it"),
        ("nftables", "input", "ip saddr {}", "drops its answers"),
    ],
)
def test_a_chain_dropping_an_endpoints_packets_is_reported(tmp_path, steering, hook, rule, does):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        (ip,) = testbed.add_pods("one", tcp=8080)
        testbed.serve(with_endpoints(WEB, [ip]))
        testbed.shell(
            "nft 'add table ip evil; "
            f"add chain ip evil drops {{ type filter hook {hook} priority 0; }}; "
            f"{NEXT} {rule.format(ip)} drop'"
        )
        with pytest.raises(OSError, match=r"reset|refused|timed out"):
            testbed["pod"].get(WEB.address)
        said = (
            f"Clients fail: {ip}:8080 does not answer: nftables chain ip evil drops of another "
            f"program ({hook}, priority 0) {does}"
        )

        def sentence() -> str:
            return str(testbed.agent.port("web")["state"]["sentence"])

        wait_for(said, lambda: sentence() == said, hint=testbed.agent.log)
        testbed.shell("nft delete table ip evil")
        wait_for("its end", lambda: "chain" not in sentence(), hint=testbed.agent.log)


NAT, EARLY = "nat hook prerouting priority -120", "filter hook prerouting priority -150"


@pytest.mark.parametrize(
    ("chain", "rule", "level", "does"),
    [
        (
            NAT,
            "ip saddr 10.0.0.0/8 {} dnat to 10.244.9.9:80",
            "trouble",
            "translates packets to it",
        ),
        (EARLY, "{} meta mark 0 drop", "ok", "may drop packets to it"),
    ],
)
def test_a_chain_taking_the_packets_of_pods_is_reported(tmp_path, chain, rule, level, does):
    with Testbed(tmp_path, "nftables", clients=("pod",)) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        assert testbed["pod"].get(WEB.address) == "one"
        rule = rule.format(f"ip daddr {WEB.ip} tcp dport 80")
        testbed.shell(f"nft 'table ip evil {{ chain pre {{ type {chain}; {rule}; }}; }}'")
        with pytest.raises(OSError, match=r"No route|timed out"):
            testbed["pod"].get(WEB.address)

        def state() -> tuple[str, bool]:
            shown = testbed.agent.port("web")["state"]
            return shown["level"], "ip evil pre of another program" in shown["sentence"]

        wait_for(does, lambda: state() == (level, True), hint=testbed.agent.log)
        assert does in testbed.agent.port("web")["state"]["sentence"]
        assert testbed.agent.port("web")["state"]["word"] != "served"
        testbed.shell("nft delete table ip evil")
        wait_for("its end", lambda: state() == ("ok", False), hint=testbed.agent.log)
