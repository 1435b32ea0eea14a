"""Firewalls that block clients are shown, and logged once each."""

import pytest

from tests.unit.filters.usual import POD
from tests.unit.filters.written import nft
from userspace_proxy.agent.watchers.firewalls import FirewallWatch, read_forward_rules
from userspace_proxy.facts import StatusFacts
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.node import Firewall
from userspace_proxy.model import IPFamily, Protocol, SocketAddress
from userspace_proxy.steering.kernel_view import KernelView

INPUT = Chain(ChainTable("ip", "filter"), "INPUT", "filter", "input", policy="drop")
NAT = {ChainTable("ip", "nat", is_legacy=True): {}}
CLOSED = KernelView({INPUT.table: {INPUT.name: INPUT}}, NAT, links=("kube-ipvs0",))
EVIL = ChainTable("inet", "evil")
AT_RANDOM = (nft("drop", "numgen/hash"),)
SOME = KernelView({EVIL: {"in": Chain(EVIL, "in", "filter", "input", steps=AT_RANDOM)}})
KUBE_PROXY = ("interface kube-ipvs0",)
PORTS = (17000, 29999)


class Kernel:
    """The kernel's rules, and how often they were read and changed."""

    def __init__(self):
        self.count = self.changes = 0
        self.view = CLOSED
        self.has_nat, self.legacy = [], []

    def read(self, *_hooks, has_nat):
        self.count += 1
        self.has_nat.append(has_nat)
        return self.view


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
async def watch(kernel):
    watch = FirewallWatch(
        "nftables", PORTS, is_sole=True, read=kernel.read, generation=lambda: kernel.changes
    )
    yield watch
    await watch.close()


def shown(watch):
    facts = StatusFacts()
    watch.show(facts)
    return facts


async def test_a_firewalls_appearance_and_removal_are_logged(watch, kernel, caplog):
    caplog.set_level("INFO")
    for _ in range(2):
        await watch.look()
    (drop,) = shown(watch).firewalls
    (record,) = caplog.records
    assert record.getMessage().startswith("chain ip filter INPUT drops packets of Services: ")
    assert (record.chain, record.cause, record.remedy) == (drop.chain, drop.why, drop.hint)
    kernel.view = KernelView()
    await watch.look()
    assert shown(watch).firewalls == []
    assert caplog.records[-1].getMessage() == "firewalls no longer drop packets of Services"


async def test_a_chain_that_drops_packets_to_services_is_shown_for_each_family(watch, kernel):
    kernel.view = KernelView({**SOME.nft, **CLOSED.nft})
    await watch.look()
    facts = shown(watch)
    assert [one.chain for one in facts.firewalls] == ["ip filter INPUT"]
    found = {at: one.chain for at, one in facts.dropped.items() if "UDP" in at}
    assert found == {"IPv4/UDP": "ip filter INPUT", "IPv6/UDP": "inet evil in"}
    assert facts.dropped["IPv6/TCP"].what.endswith(": rule numgen/hash drop, for some packets")


async def test_rules_that_name_pods_are_shown(watch, kernel):
    forward = Chain(EVIL, "f", "filter", "forward", steps=(nft("drop", "ip daddr 10.244.1.1"),))
    kernel.view = KernelView({EVIL: {"f": forward}}, clients=(POD,))
    await watch.look()
    (rule,) = shown(watch).pod_rules
    assert (rule.ip, "inet evil f" in rule.what, bool(rule.hint)) == ("10.244.1.1", True, True)


async def test_while_the_ruleset_is_unreadable_the_last_result_is_shown(watch, kernel):
    await watch.look()
    kernel.view = KernelView(unread=("Operation not permitted",), is_nft_read=False)
    await watch.look()
    (drop,) = shown(watch).firewalls
    assert (drop.chain, drop.why, drop.family) == ("ip filter INPUT", "its policy is drop", "IPv4")
    assert shown(watch).kube_proxy == KUBE_PROXY


@pytest.mark.parametrize(("is_sole", "places"), [(True, KUBE_PROXY), (False, ())])
async def test_only_a_sole_proxy_shows_kube_proxys_rules(kernel, is_sole, places):
    calls = {"read": kernel.read, "note_legacy": kernel.legacy.append}
    watch = FirewallWatch("nftables", PORTS, is_sole=is_sole, **calls)
    for _ in range(2):
        await watch.look()
    assert (shown(watch).kube_proxy, kernel.has_nat) == (places, [is_sole, False])
    assert kernel.legacy == [NAT if is_sole else {}] * 2
    await watch.close()


async def test_firewalls_are_read_after_a_change_and_every_minute(watch, kernel):
    seen = []
    for now, changes in ((100.0, 1), (101.0, 1), (115.0, 2), (116.0, 2), (174.0, 2), (175.0, 2)):
        kernel.changes = changes
        await watch.look_if_due(now)
        seen.append(kernel.count)
    assert seen == [1, 1, 2, 2, 2, 3]


async def test_constant_changes_do_not_cause_constant_firewall_reads(watch, kernel):
    for turn in range(1000):
        kernel.changes += 1
        await watch.look_if_due(100.0 + turn * 1e-6)
    assert kernel.count < 100


def test_a_chain_dropping_forwarded_packets_is_named(node):
    endpoint = SocketAddress("10.244.1.1", 8080)
    node.run("ip link add eth0 type bridge; ip link set eth0 up; ip route add default dev eth0")
    assert read_forward_rules()(endpoint, Protocol.TCP) is None
    node.run("nft 'table ip f { chain f { type filter hook forward priority 0; policy drop; }; }'")
    rule = "nft insert rule ip f f ct"
    hint = f"{rule} status dnat accept; {rule} state established,related accept"
    by = Firewall("ip f f", "its policy is drop", hint, IPFamily.IPV4)
    assert read_forward_rules()(endpoint, Protocol.TCP) == by
    node.run(
        "nft delete table ip f; "
        "nft 'table ip g { chain p { type filter hook postrouting priority 0; policy drop; }; }'"
    )
    by = read_forward_rules()(endpoint, Protocol.TCP)
    assert by is not None
    assert by.chain == "ip g p"
    node.run("ip addr add 10.244.1.1/32 dev eth0")
    assert read_forward_rules()(endpoint, Protocol.TCP) is None, "an address of the node"
