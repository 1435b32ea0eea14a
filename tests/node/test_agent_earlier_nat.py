"""Chains of other programs that get a ClusterIP's packets first are reported (#12)."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.observers import EXPLAIN
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")


@pytest.mark.parametrize(
    ("steering", "verdict", "does"),
    [
        ("nftables", "drop", "drops packets to it"),
        ("nftables", "notrack", "keeps packets to it from being tracked (notrack)"),
    ],
)
def test_a_chain_dropping_packets_before_the_proxy_is_reported(tmp_path, steering, verdict, does):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        testbed.shell(
            "nft 'add table ip evil; "
            "add chain ip evil raw { type filter hook prerouting priority raw; }; "
            f"add rule ip evil raw ip daddr 10.96.0.10 tcp dport 80 {verdict}'"
        )
        cause = f"nftables chain ip evil raw of another program (prerouting, priority -300) {does}"

        def sentence() -> str:
            (port,) = testbed.agent.status()["ports"]
            return str(port["state"]["sentence"])

        wait_for("it", lambda: sentence().startswith(f"Not served: {cause}"))
        explained = testbed.agent.run(command=[*EXPLAIN, "shop/web"])
        assert f"is not served: {cause}" in explained.stdout.splitlines()[-2]
        assert explained.stdout.endswith("\nnext: nft list chain ip evil raw\n")
        testbed.shell("nft delete table ip evil")
        wait_for("its end", lambda: sentence().startswith("Ready: 1"), hint=testbed.agent.log)
        assert testbed["pod"].get(WEB.address) == "one"


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


IN = "nftables chain inet evil in of another program (input, priority 0) drops packets to it"
SETS = """
    set closed { type ipv4_addr; }
    set ports { type inet_service; flags interval; }"""


class Rules:
    """A chain of another program at the input of a node, with named sets.

    Args:
        testbed: Has an agent that serves WEB.
        rule: The chain's only rule.
    """

    def __init__(self, testbed: Testbed, rule: str) -> None:
        self._testbed = testbed
        hook = "type filter hook input priority 0;"
        self.change(f"table inet evil {{ {SETS}\n chain in {{ {hook} {rule}; }}; }}")

    def change(self, command: str) -> None:
        self._testbed.shell(f"nft '{command}'")

    def wait_for(self, said: str, level: str) -> None:
        agent = self._testbed.agent

        def is_shown() -> bool:
            state = agent.port("web")["state"]
            return said in state["sentence"] and state["level"] == level

        wait_for(said, is_shown, hint=agent.log)


@pytest.mark.parametrize(
    ("rule", "elements"),
    [
        ("ct original ip daddr @closed reject", "closed { 10.96.0.10 }"),
        ("tcp dport @ports reject", "ports { 17000-29999 }"),
    ],
)
def test_an_element_added_to_a_named_set_takes_effect(tmp_path, rule, elements):
    with Testbed(tmp_path, "nftables", clients=("pod",)) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        pod = testbed["pod"]
        rules = Rules(testbed, rule)
        assert pod.get(WEB.address) == "one"
        rules.wait_for("Served by 1 endpoint", "ok")
        rules.change(f"add element inet evil {elements}")
        rules.wait_for(f"Not served: {IN}", "trouble")
        with pytest.raises(OSError, match="refused"):
            pod.get(WEB.address)
        rules.change(f"delete element inet evil {elements}")
        rules.wait_for("Served by 1 endpoint", "ok")
        assert pod.get(WEB.address) == "one"
