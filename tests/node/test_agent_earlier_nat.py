"""Chains of other programs that take packets to a ClusterIP before ours: they are named (#12)."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import Client
from tests.node.manifests import Service, with_endpoints
from tests.node.observers import EXPLAIN
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
CAUSE = "nftables chain ip evil pre of another program (prerouting, priority -150) translates it"


def test_page_and_log_name_a_chain_that_takes_a_service(tmp_path):
    with Testbed(tmp_path, "nftables", clients=("pod",)) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))

        def problem() -> str:
            (port,) = testbed.agent.status()["ports"]
            return str(port["problem"])

        assert problem() == ""
        testbed.shell(
            "nft 'add table ip evil; "
            "add chain ip evil pre { type nat hook prerouting priority -150; }; "
            "add rule ip evil pre ip daddr 10.96.0.10 tcp dport 80 redirect to :9'"
        )
        wait_for("the problem", lambda: problem().startswith(CAUSE), hint=testbed.agent.log)
        testbed.shell("nft delete table ip evil")
        wait_for("its end", lambda: not problem(), hint=testbed.agent.log)
        assert testbed["pod"].get(WEB.address) == "one"
        assert testbed.agent.log().count(CAUSE) == 1


TO_NINE = "tcp dport 80 redirect to :9"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        pytest.param(["ip daddr 10.96.0.0/16 " + TO_NINE], "translates", id="range"),
        pytest.param(["iifname eth9 ip daddr 10.96.0.10 " + TO_NINE], "may translate", id="link"),
        pytest.param(
            ["ip daddr . tcp dport { 10.96.0.10 . 80 } redirect"], "translates", id="pair"
        ),
        pytest.param(["ip daddr @added " + TO_NINE], "may translate", id="dynamic-set"),
        pytest.param(
            ["dnat to ip daddr . tcp dport map { 10.96.0.10 . 80 : 192.0.2.77 . 9 }"],
            "may translate",
            id="map",
        ),
        pytest.param(["iifname eth9 " + TO_NINE], "", id="transparent-proxy"),
    ],
)
def test_only_translating_rules_are_reported(tmp_path, rules, said):
    with Testbed(tmp_path, "nftables", clients=()) as testbed:
        table = [
            "add table ip evil",
            "add set ip evil added { type ipv4_addr; size 9; flags dynamic; }",
            "add chain ip evil pre { type nat hook prerouting priority -150; }",
            *(f"add rule ip evil pre {rule}" for rule in rules),
        ]
        testbed.shell("\n".join(f"nft '{line}'" for line in table))
        testbed.serve(with_endpoints(WEB, ["10.244.9.9"]))
        cause = f"nftables chain ip evil pre of another program (prerouting, priority -150) {said}"
        if said:
            wait_for("the problem", lambda: testbed.agent.log().count(f"{cause} it") == 1)
            (port,) = testbed.agent.status()["ports"]
            assert f"{cause} it" in str(port)
        else:
            testbed.shell("nft add chain ip evil last '{ type nat hook output priority -150; }'")
            testbed.shell("nft add rule ip evil last ip daddr 10.96.0.10 redirect")
            wait_for("the last chain alone", lambda: "chain ip evil last" in testbed.agent.log())
            assert "chain ip evil pre" not in testbed.agent.log()


@pytest.mark.parametrize(
    ("steering", "verdict", "does"),
    [
        ("nftables", "drop", "drops packets to it"),
        ("iptables", "drop", "drops packets to it"),
        ("local", "drop", "drops packets to it"),
        ("nftables", "notrack", "keeps packets to it from being tracked (notrack)"),
    ],
)
def test_a_chain_that_drops_packets_before_the_proxy_is_named(tmp_path, steering, verdict, does):
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


WAY_IN = "add chain ip evil in { type filter hook input priority 0"
OPEN = "ct state vmap {{ established : accept, related : accept, invalid : drop }}"


@pytest.mark.parametrize("steering", ["nftables", "iptables"])
@pytest.mark.parametrize(
    ("chain", "rules", "besides"),
    [
        pytest.param(WAY_IN, ["tcp dport {port} drop"], "", id="proxy-port"),
        pytest.param(WAY_IN, ["ct original ip daddr 10.96.0.10 drop"], "", id="dialled"),
        pytest.param(
            f"{WAY_IN}; policy drop",
            ["iif lo accept", OPEN, "tcp dport {{ 22, 80-90 }} accept"],
            ", except those of this node's own programs",
            id="policy",
        ),
    ],
)
def test_a_chain_that_drops_packets_on_their_way_in_is_named(
    tmp_path, steering, chain, rules, besides
):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        pod = testbed["pod"]
        assert pod.get(WEB.address) == "one"
        port = testbed.agent.proxy_port("web")
        rules = [f"add rule ip evil in {rule.format(port=port)}" for rule in rules]
        testbed.shell(f"nft '{'; '.join(['add table ip evil', f'{chain}; }}', *rules])}'")
        cause = (
            "nftables chain ip evil in of another program (input, priority 0) drops packets to it"
            f"{besides}"
        )
        remedy = (
            "insert the rules `ct status dnat accept` and `ct state established accept` in that "
            "chain, or delete what drops them"
        )

        def state() -> tuple[str, str]:
            (port,) = testbed.agent.status()["ports"]
            return port["state"]["sentence"], port["state"]["hint"]

        named = f"Not served: {cause}", remedy
        wait_for("it", lambda: state() == named, hint=testbed.agent.log)
        explained = testbed.agent.run(command=[*EXPLAIN, "shop/web"]).stdout
        assert f"is not served: {cause}" in explained
        assert "✓ firewall" not in explained
        testbed.shell("nft insert rule ip evil in ct status dnat accept")
        wait_for("its end", lambda: state()[0].startswith("Served by 1"), hint=testbed.agent.log)
        assert pod.get(WEB.address) == "one"


NEXT = "add rule ip evil drops"


@pytest.mark.parametrize(
    ("steering", "hook", "rule", "does"),
    [
        ("nftables", "output", "ip daddr {} tcp dport 8080", "drops packets to it"),
        ("iptables", "output", "ip daddr {} tcp dport 8080", "drops packets to it"),
        ("local", "output", "ip daddr {} tcp dport 8080", "drops packets to it"),
        ("nftables", "output", f"oifname lo accept; {NEXT} ct state new", "drops packets to it"),
        ("nftables", "input", "ip saddr {}", "drops its answers"),
    ],
)
def test_a_chain_that_drops_an_endpoints_packets_is_named(tmp_path, steering, hook, rule, does):
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


DNS = Service("dns", "10.96.0.53", 53, "UDP", target=5000)


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local"])
def test_a_chain_that_drops_an_endpoints_datagrams_is_named(tmp_path, steering):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        (ip,) = testbed.add_pods("one", udp=5000)
        testbed.serve(with_endpoints(DNS, [ip]))
        testbed.shell(
            "nft 'add table ip evil; "
            "add chain ip evil drops { type filter hook input priority 0; }; "
            "add rule ip evil drops udp sport 5000 drop'"
        )
        sockets = [testbed["pod"].udp(DNS.address) for _ in range(3)]
        for sock in sockets:
            sock.send(b"hello")
        said = (
            f"Clients fail: {ip}:5000 does not answer: nftables chain ip evil drops of another "
            "program (input, priority 0) drops its answers"
        )

        def sentence() -> str:
            return str(testbed.agent.port("dns")["state"]["sentence"])

        wait_for(said, lambda: sentence() == said, hint=testbed.agent.log)
        explained = testbed.agent.run(command=[*EXPLAIN, "shop/dns"]).stdout
        assert "drops its answers" in explained
        assert "✓ firewall" not in explained
        testbed.shell("nft delete table ip evil")
        assert testbed["pod"].asks(DNS.address) == "one: hello"
        wait_for("its end", lambda: "chain" not in sentence(), hint=testbed.agent.log)


IN = "nftables chain inet evil in of another program (input, priority 0) drops packets to it"
SETS = """
    set closed { type ipv4_addr; }
    set ports { type inet_service; flags interval; }"""


class Rules:
    """A chain of another program at the input of a node, with named sets.

    Args:
        testbed: With an agent that serves WEB.
        rule: Its only one.
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


def link_to(testbed: Testbed, client: Client) -> str:
    """Return the node's interface to a client."""
    return testbed.shell(f"ip -o route get {client.host.ip}").split(" dev ")[1].split()[0]


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local"])
def test_a_chain_that_drops_packets_of_one_source_is_named(tmp_path, steering):
    with Testbed(tmp_path, steering, clients=("pod", "laptop")) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        pod, laptop = testbed["pod"], testbed["laptop"]
        assert (pod.get(WEB.address), laptop.get(WEB.address)) == ("one", "one")
        dialled = "ip daddr" if steering == "local" else "ct original ip daddr"
        rules = Rules(testbed, f"ip saddr {pod.host.ip} {dialled} 10.96.0.10 reject")
        said = f"{IN} of some clients: rule"
        rules.wait_for(f"Served by 1 endpoint; {said}", "attention")
        with pytest.raises(OSError, match="refused"):
            pod.get(WEB.address)
        assert laptop.get(WEB.address) == "one"
        explained = testbed.agent.run(command=[*EXPLAIN, "shop/web"]).stdout
        assert f"{said} ip saddr {pod.host.ip}/32" in explained.replace("meta nfproto ipv4 ", "")
        rules.change("delete table inet evil")
        rules.wait_for("Served by 1 endpoint", "ok")


def test_a_chain_that_drops_packets_that_come_in_by_an_interface_is_named(tmp_path):
    with Testbed(tmp_path, "nftables", clients=("pod", "laptop")) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        pod, laptop = testbed["pod"], testbed["laptop"]
        link = link_to(testbed, pod)
        port = testbed.agent.proxy_port("web")
        rules = Rules(testbed, f"iifname {link} tcp dport {port} reject")
        rules.wait_for(f"{IN} of some clients: rule iifname {link}", "attention")
        with pytest.raises(OSError, match="refused"):
            pod.get(WEB.address)
        assert laptop.get(WEB.address) == "one"


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local"])
def test_a_chain_that_drops_packets_of_pods_to_all_services_is_named(tmp_path, steering):
    with Testbed(tmp_path, steering, clients=("pod", "laptop")) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        pod, laptop = testbed["pod"], testbed["laptop"]
        link, uplink = link_to(testbed, pod), link_to(testbed, laptop)
        assert (pod.get(WEB.address), laptop.get(WEB.address)) == ("one", "one")
        rules = Rules(testbed, f"iifname {link} ct state new reject")
        rules.wait_for(f"Served by 1 endpoint; {IN} that come in by {link}", "attention")
        with pytest.raises(OSError, match="refused"):
            pod.get(WEB.address)
        assert laptop.get(WEB.address) == "one"
        explained = testbed.agent.run(command=[*EXPLAIN, "shop/web"]).stdout
        assert f"{IN} that come in by {link}" in explained
        assert "No chain of another program" not in explained
        rules.change(f"flush chain inet evil in; add rule inet evil in iifname {uplink} reject")
        rules.wait_for("Served by 1 endpoint", "ok")
        assert pod.get(WEB.address) == "one"


@pytest.mark.parametrize(
    ("rule", "elements"),
    [
        ("ct original ip daddr @closed reject", "closed { 10.96.0.10 }"),
        ("tcp dport @ports reject", "ports { 17000-29999 }"),
    ],
)
def test_elements_of_a_named_set_count_as_soon_as_they_are_added(tmp_path, rule, elements):
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
