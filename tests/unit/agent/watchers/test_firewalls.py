"""Firewalls in the way are shown and logged, once each."""

import pytest

from userspace_proxy.agent.watchers.firewalls import FirewallWatch, read_forward_rules
from userspace_proxy.errors import SteeringError
from userspace_proxy.facts import FirewallFacts, StatusFacts
from userspace_proxy.filters.node import Firewall
from userspace_proxy.model import IPFamily, Protocol, SocketAddress

DROP = Firewall(
    "ip filter INPUT",
    "its policy is drop",
    "nft insert rule … ct status dnat accept",
    IPFamily.IPV4,
)


async def test_a_firewall_is_logged_when_it_appears_and_when_it_disappears(caplog):
    caplog.set_level("INFO")
    there = [DROP]
    watch = FirewallWatch("nftables", (17000, 29999), read=lambda: list(there))
    for _ in range(2):
        await watch.look()
    assert watch.found == (DROP,)
    (record,) = caplog.records
    assert record.getMessage().endswith(f": {DROP.chain}: {DROP.why}")
    assert (record.chain, record.cause, record.remedy) == (DROP.chain, DROP.why, DROP.hint)
    there.clear()
    await watch.look()
    assert watch.found == ()
    assert caplog.records[-1].getMessage() == "firewalls no longer drop packets to Services"
    await watch.close()


async def test_an_unreadable_firewall_keeps_the_last_result():
    said = [[DROP]]

    def read():
        if not said:
            raise SteeringError("cannot list chains: Operation not permitted")
        return said.pop()

    watch = FirewallWatch("nftables", (17000, 29999), read=read)
    for _ in range(2):
        await watch.look()
    assert watch.found == (DROP,)
    facts = StatusFacts()
    watch.show(facts)
    assert facts.firewalls == [FirewallFacts(DROP.chain, DROP.why, DROP.hint, "IPv4")]
    await watch.close()


class Looks:
    """Counts how often the firewalls are read, and has the number of changes."""

    def __init__(self):
        self.count = self.changes = 0

    def read(self):
        self.count += 1
        return []


@pytest.fixture
def looks():
    return Looks()


@pytest.fixture
async def watch(looks):
    watch = FirewallWatch(
        "nftables", (17000, 29999), read=looks.read, generation=lambda: looks.changes
    )
    yield watch
    await watch.close()


async def test_firewalls_are_read_after_a_change_and_each_minute(watch, looks):
    seen = []
    for now, changes in ((100.0, 1), (101.0, 1), (115.0, 2), (116.0, 2), (174.0, 2), (175.0, 2)):
        looks.changes = changes
        await watch.look_if_due(now)
        seen.append(looks.count)
    assert seen == [1, 1, 2, 2, 2, 3]


async def test_while_everything_changes_firewalls_are_read_only_now_and_then(watch, looks):
    for turn in range(1000):
        looks.changes += 1
        await watch.look_if_due(100.0 + turn * 1e-6)
    assert looks.count < 100


def test_what_drops_forwarded_packets_is_named_as_of_the_read(node):
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
    assert read_forward_rules()(endpoint, Protocol.TCP) is None, "of the node"
