from __future__ import annotations

from contextlib import closing

import pytest

from tests.unit.chains.rules import nft
from userspace_proxy.kernel.nf_tables.chains import ChainTable
from userspace_proxy.kernel.nf_tables.looked_up import ELEMENTS_MAX
from userspace_proxy.steering.others.nft import (
    CHAINS_MAX,
    NftReader,
    read_chains,
)

OF_FIREWALL = ChainTable("inet", "firewall")
FIREWALL = """nft '
    table inet firewall {
        chain input {
            type filter hook input priority 10; policy drop;
            ct state established,related accept
            tcp dport 22 jump admitted
        }
        chain admitted { accept; }
        chain unused { drop; }
    }
    table ip other { chain forward { type filter hook forward priority 0; drop; }; }'"""


@pytest.fixture
def reader(node):
    with closing(NftReader()) as reader:
        yield reader


def test_all_chains_are_listed_without_their_rules(node, reader):
    node.run(FIREWALL)
    tables = reader.chains()
    assert {name: set(chains) for name, chains in tables.items()} == {
        OF_FIREWALL: {"input", "admitted", "unused"},
        ChainTable("ip", "other"): {"forward"},
    }
    chain = tables[OF_FIREWALL]["input"]
    assert (chain.kind, chain.hook, chain.priority, chain.policy, chain.steps) == (
        *("filter", "input", 10, "drop"),
        (),
    )


def test_a_chain_that_was_removed_has_no_rules(node, reader):
    node.run(FIREWALL)
    chain = reader.chains()[OF_FIREWALL]["unused"]
    assert reader.with_steps(chain).steps == (nft("drop"),)
    node.run("nft delete chain inet firewall unused")
    assert reader.with_steps(chain).steps == ()


def test_sets_that_are_part_of_a_rule_are_read(node, reader):
    node.run(
        "nft 'table inet firewall { set ports { type inet_service; elements = { 22 }; }; "
        "chain zone { }; chain input { "
        "tcp dport { 22, 80-90 } ct state vmap { established : accept, new : jump zone }; "
        "meta l4proto { tcp, udp } th dport 53 accept; "
        "tcp dport @ports accept; tcp dport != { 22, 80 } drop; }; }'"
    )
    chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    assert sorted(chain.steps[:2]) == [
        nft("accept", "tcp dport 22,80-90 ct state established"),
        nft("jump zone", "tcp dport 22,80-90 ct state new"),
    ]
    assert chain.steps[2] in (
        nft("accept", "meta l4proto tcp,udp th dport 53"),
        nft("accept", "meta l4proto udp,tcp th dport 53"),
    )
    assert chain.steps[3:] == (
        nft("accept", "tcp dport 22"),
        nft("drop", "meta l4proto tcp …dport"),
    )


NAMED = """nft '
    table inet firewall {
        set closed { type inet_service; flags interval; elements = { 22, 80-90 }; }
        set sources { type ipv4_addr; elements = { 10.244.3.7 }; }
        set pairs { type ipv4_addr . inet_service; elements = { 10.96.7.1 . 80 }; }
        set none { type ipv4_addr; }
        set expiring { type ipv4_addr; flags timeout; elements = { 10.96.7.1 timeout 1h }; }
        set added { type ipv4_addr; size 9; flags dynamic; elements = { 10.96.7.1 }; }
        map verdicts { type ipv4_addr : verdict; elements = { 10.96.7.1 : drop }; }
        chain input {
            tcp dport @closed drop
            ip saddr != @sources ip daddr . tcp dport @pairs drop
            ip daddr @none drop
            ip daddr @expiring drop
            ip daddr @added drop
            ip daddr vmap @verdicts
        }
    }'"""


def test_named_sets_are_read_that_change_with_the_generation(node, reader):
    node.run(NAMED)
    chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    ipv4 = "meta nfproto ipv4"
    assert [str(step) for step in chain.steps] == [
        "tcp dport 22,80-90 drop",
        f"{ipv4} ip saddr != 10.244.3.7/32 meta l4proto tcp ip daddr 10.96.7.1/32 th dport 80 drop",
        f"{ipv4} …daddr drop",
        f"{ipv4} …daddr drop",
        f"{ipv4} ip daddr 10.96.7.1/32 drop",
    ]


def test_a_change_of_elements_is_a_new_generation_and_is_read(node, reader):
    node.run(NAMED)
    before = reader.generation()
    assert reader.with_steps(reader.chains()[OF_FIREWALL]["input"]).steps[0].matches
    node.run("nft delete element inet firewall closed { 80-90 }")
    assert reader.generation() == before + 1
    node.run("nft add element inet firewall closed { 443 }")
    assert reader.generation() == before + 2
    chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    assert chain.steps[0] == nft("drop", "tcp dport 22,443")


def test_sets_are_listed_once_for_all_rules_of_a_table(node, reader, monkeypatch):
    node.run(NAMED)
    calls: list[str] = []
    listed = reader._ruleset.sets
    monkeypatch.setattr(
        reader._ruleset, "sets", lambda *place: calls.append(place[1]) or listed(*place)
    )
    for _ in range(2):
        reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    assert calls == ["firewall", "firewall"]


def test_a_large_set_is_not_understood(node, reader, tmp_path):
    rules = tmp_path / "rules"
    ports = ", ".join(map(str, range(1, ELEMENTS_MAX + 2)))
    rules.write_text(
        f"table inet big {{ set ports {{ type inet_service; elements = {{ {ports} }}; }}\n"
        "chain input { tcp dport @ports drop; }; }\n"
    )
    node.run(f"nft -f {rules}")
    chain = reader.with_steps(reader.chains()[ChainTable("inet", "big")]["input"])
    assert chain.steps == (nft("drop", "meta l4proto tcp …dport"),)


def test_a_set_that_was_removed_is_not_understood(reader):
    step = nft("accept", "tcp dport @__set0")
    assert list(reader._written_out(step, 1, "gone")) == [nft("accept", "meta l4proto tcp …dport")]


def test_the_generation_grows_with_each_change(node, reader):
    before = reader.generation()
    node.run("nft add table inet more")
    assert reader.generation() == before + 1


def test_only_chains_for_packets_to_this_node_are_read_with_rules(node):
    node.run(FIREWALL)
    tables = read_chains()
    steps = {str(c): c.steps for chains in tables.values() for c in chains.values() if c.steps}
    assert steps == {
        "inet firewall input": (
            nft("accept", "ct state established,related"),
            nft("jump admitted", "tcp dport 22"),
        ),
        "inet firewall admitted": (nft("accept"),),
    }


def test_of_twice_as_many_chains_as_are_read_those_of_others_are_too(node, tmp_path):
    """A program with many chains hides none of another program, before it or after it."""
    numbers = range(2 * CHAINS_MAX)
    chains = "".join(f"chain c{n} {{ jump d{n}; }}; chain d{n} {{ drop; }}; " for n in numbers)
    jumps = "; ".join(f"jump c{n}" for n in numbers)
    hook = "type filter hook input priority 0;"
    other = f"chain input {{ {hook} jump others; }}; chain others {{ drop; }}"
    rules = tmp_path / "rules"
    rules.write_text(
        f"table inet one {{ {other}; }}\n"
        f"table inet many {{ {chains} chain input {{ {hook} {jumps}; }}; }}\n"
        f"table inet two {{ {other}; }}\n"
    )
    node.run(f"nft -f {rules}")
    tables = read_chains()
    read = {name: {c.name for c in t.values() if c.steps} for name, t in tables.items()}
    assert len(read[ChainTable("inet", "many")]) == CHAINS_MAX
    assert read[ChainTable("inet", "many")] >= {"input", "c0"}
    assert read[ChainTable("inet", "one")] == read[ChainTable("inet", "two")] == {"input", "others"}
