from __future__ import annotations

from contextlib import closing

import pytest

from tests.unit.filters.written import nft
from userspace_proxy.filters.chains import ChainTable, Step
from userspace_proxy.filters.reading import (
    CHAINS_MAX,
    ELEMENTS_MAX,
    NftReader,
    read_chains,
    write_out,
)
from userspace_proxy.kernel.netlink.messages import nested, number, text
from userspace_proxy.kernel.nf_tables.expressions import ACCEPT, DATA_VERDICT, JUMP
from userspace_proxy.kernel.nf_tables.reader import ListedElement, ListedSet
from userspace_proxy.steering.names import is_own_table

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
    with closing(NftReader(is_own_table)) as reader:
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


def test_chains_of_a_dormant_table_are_skipped(node, reader):
    node.run(f"{FIREWALL}; nft 'add table inet firewall {{ flags dormant; }}'")
    assert list(reader.chains()) == [ChainTable("ip", "other")]


def test_a_removed_chain_has_no_rules(node, reader):
    node.run(FIREWALL)
    chain = reader.chains()[OF_FIREWALL]["unused"]
    assert reader.with_steps(chain).steps == (nft("drop"),)
    node.run("nft delete chain inet firewall unused")
    assert reader.with_steps(chain).steps == ()


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


def test_named_sets_that_change_only_with_the_generation_are_read(node, reader):
    node.run(NAMED)
    chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    ipv4 = "meta nfproto ipv4"
    assert [str(step) for step in chain.steps] == [
        "tcp dport 22,80-90 drop",
        f"{ipv4} ip saddr != 10.244.3.7/32 meta l4proto tcp ip daddr 10.96.7.1/32 th dport 80 drop",
        f"{ipv4} … drop",
        f"{ipv4} … drop",
        f"{ipv4} ip daddr 10.96.7.1/32 drop",
    ]
    with closing(NftReader(is_own_table, has_passing=True)) as reader:
        chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    assert [str(step) for step in chain.steps[2:]] == [f"{ipv4} ip daddr 10.96.7.1/32 drop"] * 3


def test_changed_elements_create_a_new_generation_and_are_read(node, reader):
    node.run(NAMED)
    before = reader.generation()
    assert reader.with_steps(reader.chains()[OF_FIREWALL]["input"]).steps[0].matches
    node.run("nft delete element inet firewall closed { 80-90 }")
    assert reader.generation() == before + 1
    node.run("nft add element inet firewall closed { 443 }")
    assert reader.generation() == before + 2
    chain = reader.with_steps(reader.chains()[OF_FIREWALL]["input"])
    assert chain.steps[0] == nft("drop", "tcp dport 22,443")


def test_a_large_set_is_not_evaluated(node, reader, tmp_path):
    rules = tmp_path / "rules"
    ports = ", ".join(map(str, range(1, ELEMENTS_MAX + 2)))
    rules.write_text(
        f"table inet big {{ set ports {{ type inet_service; elements = {{ {ports} }}; }}\n"
        "chain input { tcp dport @ports drop; }; }\n"
    )
    node.run(f"nft -f {rules}")
    chain = reader.with_steps(reader.chains()[ChainTable("inet", "big")]["input"])
    assert chain.steps == (nft("drop", "meta l4proto tcp …"),)


def test_only_chains_for_packets_to_this_node_are_read_with_their_rules(node):
    node.run(FIREWALL)
    tables = read_chains(is_own_table, "input")
    steps = {str(c): c.steps for chains in tables.values() for c in chains.values() if c.steps}
    assert steps == {
        "inet firewall input": (
            nft("accept", "ct state established,related"),
            nft("jump admitted", "tcp dport 22"),
        ),
        "inet firewall admitted": (nft("accept"),),
    }


def test_too_many_chains_of_one_program_do_not_hide_other_programs_chains(node, tmp_path):
    """The other programs' tables precede and follow the table with many chains."""
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
    tables = read_chains(is_own_table, "input")
    read = {name: {c.name for c in t.values() if c.steps} for name, t in tables.items()}
    assert len(read[ChainTable("inet", "many")]) == CHAINS_MAX
    assert read[ChainTable("inet", "many")] >= {"input", "c0"}
    assert read[ChainTable("inet", "one")] == read[ChainTable("inet", "two")] == {"input", "others"}


PLAIN, INTERVALS, MAP = 0x3, 0x7, 0xB
PORTS = nft("accept", "tcp dport @__set0")


def element(number: int, *, is_end: bool = False, value: bytes = b"", width: int = 2):
    order = "big" if width == 2 else "little"
    return ListedElement(number.to_bytes(width, order), is_end, value)


def verdict(code: int, chain: str = "") -> bytes:
    return nested(DATA_VERDICT, number(1, code) + (text(2, chain) if chain else b""))


def written(step: Step, flags: int, *elements: ListedElement) -> list[Step]:
    return list(write_out(step, ListedSet("__set0", flags, ()), elements))


def test_ports_states_and_protocols_of_a_set_are_inlined_into_the_rule():
    assert written(PORTS, PLAIN, element(22), element(80)) == [nft("accept", "tcp dport 22,80")]
    states = nft("accept", "ct state @__set0 …")
    open_states = [element(2, width=4), element(4, width=4)]
    assert written(states, PLAIN, *open_states) == [nft("accept", "ct state established,related …")]
    both = nft("accept", "meta l4proto @__set0 th dport 53")
    assert written(both, PLAIN, element(6), element(17)) == [
        nft("accept", "meta l4proto tcp,udp th dport 53")
    ]


def test_each_verdict_of_a_map_becomes_a_rule():
    step = nft("vmap", "ct state @__set0")
    to_zone = element(8, width=4, value=verdict(JUMP, "zone"))
    assert written(step, MAP, element(2, width=4, value=verdict(ACCEPT)), to_zone) == [
        nft("accept", "ct state established"),
        nft("jump zone", "ct state new"),
    ]


def test_a_map_without_verdicts_is_read_as_a_set_of_its_keys():
    to_pod = ListedElement(bytes([10, 96, 7, 1]), False, number(1, 5))
    step = nft("translate", "ip daddr @__set0")
    assert written(step, MAP, to_pod) == [nft("translate", "ip daddr 10.96.7.1/32")]


def test_only_a_map_of_random_numbers_contains_each_number():
    drawn = nft("drop", "numgen/hash")
    assert written(nft("drop", "numgen @__set0"), PLAIN, element(0)) == [drawn]
    assert written(nft("translate", "numgen @__set0"), MAP, element(0)) == [nft("translate")]
    first, last = (element(n, value=verdict(JUMP, f"pod-{n}")) for n in (0, 1))
    assert written(nft("vmap", "numgen @__set0"), MAP, first, last) == [
        nft("jump pod-0", "numgen/hash"),
        nft("jump pod-1"),
    ]


def test_an_interval_of_a_set_ends_before_the_next_element():
    elements = [
        element(0, is_end=True),
        element(22),
        element(23, is_end=True),
        element(90),
        element(80),
        element(90, is_end=True),
        element(101, is_end=True),
        element(60000),
    ]
    assert written(PORTS, INTERVALS, *elements) == [
        nft("accept", "tcp dport 22,80-89,90-100,60000-65535")
    ]


def test_addresses_of_a_set_become_networks_with_or_without_ports():
    web, ten = bytes([10, 96, 7, 1]), bytes([10, 96, 0, 0])
    named = nft("drop", "ip daddr @__set0")
    hosts = [ListedElement(web, False, b""), ListedElement(ten, False, b"")]
    assert written(named, PLAIN, *hosts) == [nft("drop", "ip daddr 10.96.7.1/32,10.96.0.0/32")]
    end = ListedElement(bytes([10, 97, 0, 0]), True, b"")
    assert written(named, INTERVALS, hosts[1], end) == [nft("drop", "ip daddr 10.96.0.0/16")]
    last = ListedElement(bytes([255, 255, 255, 254]), False, b"")
    assert written(named, INTERVALS, last) == [nft("drop", "ip daddr 255.255.255.254/31")]
    pair = nft("drop", "meta l4proto tcp ip daddr . th dport @__set0 …")
    both = ListedElement(web + bytes([0, 80, 0, 0]), False, b"")
    other = ListedElement(ten + bytes([0, 81, 0, 0]), False, b"")
    assert written(pair, PLAIN, both, other) == [
        nft("drop", "meta l4proto tcp ip daddr 10.96.7.1/32 th dport 80 …"),
        nft("drop", "meta l4proto tcp ip daddr 10.96.0.0/32 th dport 81 …"),
    ]
    assert written(pair, INTERVALS, both) == [nft("drop", "meta l4proto tcp … …")]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("ip daddr . th dport @__set0", "…"),
        ("tcp dport @__set0", "meta l4proto tcp …"),
        ("ct state @__set0", "…"),
        ("ip saddr @__set0", "…"),
        ("ip saddr != @__set0", "…"),
    ],
)
def test_a_set_that_is_unknown_or_cannot_be_inlined_is_not_evaluated(condition, expected):
    step = nft("accept", condition)
    assert list(write_out(step, None, [])) == [nft("accept", expected)]
    of_map = element(80, value=verdict(ACCEPT))
    assert written(step, INTERVALS | MAP, of_map) == [nft("accept", expected)]
    many = [element(port) for port in range(ELEMENTS_MAX + 1)]
    assert written(step, PLAIN, *many) == [nft("accept", expected)]
    all_others = ListedElement(b"", is_end=False, value=b"")
    assert written(step, MAP, element(22), all_others) == [nft("accept", expected)]


def test_negated_source_sets_are_inlined_into_the_rule():
    ten, end = ListedElement(bytes([10, 0, 0, 0]), False, b""), bytes([11, 0, 0, 0])
    step = nft("drop", "ip saddr != @__set0 …")
    assert written(step, INTERVALS, ten, ListedElement(end, True, b"")) == [
        nft("drop", "ip saddr != 10.0.0.0/8 …")
    ]
    assert written(step, PLAIN, ten) == [nft("drop", "ip saddr != 10.0.0.0/32 …")]


@pytest.mark.parametrize("condition", ["iifname @__set0", "iifname != @__set0"])
def test_a_set_with_an_interface_of_unknown_name_is_not_evaluated(condition):
    names = [name.ljust(16, b"\0") for name in (b"eth0", b"a b")]
    elements = [ListedElement(name, False, b"") for name in names]
    assert written(nft("drop", condition), PLAIN, *elements) == [nft("drop", "…")]


def test_an_empty_set_matches_no_packet():
    assert written(PORTS, 0) == []
    assert written(PORTS, 0x4, element(0, is_end=True)) == []
    assert written(nft("drop", "ip saddr != @__set0"), 0) == [nft("drop")]
