"""Which chain of others drops what is steered to the proxy."""

from dataclasses import replace

from userspace_proxy.kernel.nf_tables.chains import Chain, Step
from userspace_proxy.steering.others import Firewall, find_firewalls

INPUT = Chain("ip filter", "INPUT", "filter", "input", policy="drop")
PORTS = (17000, 29999)


def test_a_chain_that_drops_is_reported_with_the_rule_that_admits():
    tables = {INPUT.table: {INPUT.name: INPUT}}
    assert find_firewalls(tables, {}, "nftables", PORTS) == [
        Firewall(
            "ip filter INPUT",
            "its policy is drop",
            "nft insert rule ip filter INPUT ct status dnat accept; "
            "nft insert rule ip filter INPUT ct state established,related accept",
        )
    ]


def test_without_steering_no_firewall_is_reported():
    assert find_firewalls({INPUT.table: {INPUT.name: INPUT}}, {}, "none", PORTS) == []


def test_this_proxys_legacy_chains_accept_clients_and_not_replies():
    opens = Step("accept", "ct state established,related")
    legacy = Chain("legacy ip filter", "INPUT", "filter", "input", policy="drop")
    tables = {legacy.table: {legacy.name: legacy}}
    assert [f.way_out for f in find_firewalls({}, tables, "iptables", PORTS)] == [
        "iptables-legacy -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    ]
    tables = {legacy.table: {legacy.name: replace(legacy, steps=(opens,))}}
    assert find_firewalls({}, tables, "iptables", PORTS) == []
    assert [f.chain for f in find_firewalls({}, tables, "nftables", PORTS)] == [str(legacy)]
