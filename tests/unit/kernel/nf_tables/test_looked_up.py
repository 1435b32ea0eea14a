import pytest

from tests.unit.chains.rules import nft
from userspace_proxy.kernel.netlink.messages import nested, number, text
from userspace_proxy.kernel.nf_tables.chains import Step
from userspace_proxy.kernel.nf_tables.expressions import ACCEPT, DATA_VERDICT, JUMP
from userspace_proxy.kernel.nf_tables.looked_up import (
    ELEMENTS_MAX,
    is_constant,
    is_of_rule,
    set_of,
    write_out,
)
from userspace_proxy.kernel.nf_tables.reader import ListedElement, ListedSet

PLAIN, INTERVALS, MAP = 0x3, 0x7, 0xB
PORTS = nft("accept", "tcp dport @__set0")


def element(number: int, *, is_end: bool = False, value: bytes = b"", width: int = 2):
    order = "big" if width == 2 else "little"
    return ListedElement(number.to_bytes(width, order), is_end, value)


def verdict(code: int, chain: str = "") -> bytes:
    return nested(DATA_VERDICT, number(1, code) + (text(2, chain) if chain else b""))


def written(step: Step, flags: int, *elements: ListedElement) -> list[Step]:
    return list(write_out(step, ListedSet("__set0", flags, ()), elements))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("tcp dport @__set0", "__set0", id="ports"),
        pytest.param("meta l4proto @__set1 th dport 53", "__set1", id="protocols"),
        pytest.param("ct state @__map2", "__map2", id="states"),
        pytest.param("tcp dport @__set0 ct state @__map2", "__set0", id="the-first-of-two"),
        pytest.param("ip saddr != @clients", "clients", id="not-in-it"),
        pytest.param("tcp dport 80", "", id="none"),
    ],
)
def test_the_set_of_a_rule_is_found(condition, expected):
    found = set_of(nft("accept", condition))
    assert (found.name if found else "") == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param(PLAIN, True, id="of-a-rule"),
        pytest.param(INTERVALS, True, id="intervals-of-a-rule"),
        pytest.param(MAP, True, id="map-of-a-rule"),
        pytest.param(0, True, id="named"),
        pytest.param(0x2, True, id="named-constant"),
        pytest.param(0x4, True, id="named-intervals"),
        pytest.param(0x8, True, id="named-map"),
        pytest.param(0x10, False, id="elements-expire"),
        pytest.param(0x20, False, id="packets-add-elements"),
        pytest.param(0x23, False, id="packets-add-elements-to-a-rules"),
        pytest.param(0x84, False, id="intervals-of-several-fields"),
    ],
)
def test_only_sets_that_change_with_the_ruleset_are_read(flags, expected):
    assert is_constant(ListedSet("ports", flags, ())) == expected


def test_a_set_without_a_name_belongs_to_a_rule():
    assert is_of_rule(ListedSet("__set0", PLAIN, ()))
    assert not is_of_rule(ListedSet("ports", 0, ()))


def test_ports_states_and_protocols_are_written_into_the_rule():
    assert written(PORTS, PLAIN, element(22), element(80)) == [nft("accept", "tcp dport 22,80")]
    states = nft("accept", "ct state @__set0 …")
    open_states = [element(2, width=4), element(4, width=4)]
    assert written(states, PLAIN, *open_states) == [nft("accept", "ct state established,related …")]
    both = nft("accept", "meta l4proto @__set0 th dport 53")
    assert written(both, PLAIN, element(6), element(17)) == [
        nft("accept", "meta l4proto tcp,udp th dport 53")
    ]


def test_each_verdict_of_a_map_is_a_rule():
    step = nft("vmap", "ct state @__set0")
    to_zone = element(8, width=4, value=verdict(JUMP, "zone"))
    assert written(step, MAP, element(2, width=4, value=verdict(ACCEPT)), to_zone) == [
        nft("accept", "ct state established"),
        nft("jump zone", "ct state new"),
    ]


def test_an_interval_ends_in_front_of_the_next_element():
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


def test_addresses_are_networks_and_may_stand_beside_ports():
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
    assert written(pair, INTERVALS, both) == [nft("drop", "meta l4proto tcp …daddr …")]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("ip daddr . th dport @__set0", "…daddr"),
        ("ct state . meta l4proto @__set0", "…state"),
        ("tcp dport @__set0", "meta l4proto tcp …dport"),
        ("th dport @__set0", "…dport"),
        ("ct state @__set0", "…state"),
        ("meta l4proto @__set0", "…"),
        ("ip saddr @__set0", "…saddr"),
        ("ip saddr != @__set0", "…saddr"),
        ("ip saddr . ip daddr @__set0", "…daddr"),
    ],
)
def test_a_set_that_is_not_known_is_not_understood(condition, expected):
    step = nft("accept", condition)
    assert list(write_out(step, None, [])) == [nft("accept", expected)]
    assert written(step, INTERVALS | MAP, element(80)) == [nft("accept", expected)]
    many = [element(port) for port in range(ELEMENTS_MAX + 1)]
    assert written(step, PLAIN, *many) == [nft("accept", expected)]
    all_others = ListedElement(b"", is_end=False, value=b"")
    assert written(step, MAP, element(22), all_others) == [nft("accept", expected)]


def test_sources_that_are_not_in_a_set_are_written_into_the_rule():
    ten, end = ListedElement(bytes([10, 0, 0, 0]), False, b""), bytes([11, 0, 0, 0])
    step = nft("drop", "ip saddr != @__set0 …")
    assert written(step, INTERVALS, ten, ListedElement(end, True, b"")) == [
        nft("drop", "ip saddr != 10.0.0.0/8 …")
    ]
    assert written(step, PLAIN, ten) == [nft("drop", "ip saddr != 10.0.0.0/32 …")]


def test_no_packet_is_in_an_empty_set():
    assert written(PORTS, 0) == []
    assert written(PORTS, 0x4, element(0, is_end=True)) == []
    assert written(nft("drop", "ip saddr != @__set0"), 0) == [nft("drop")]


def test_a_rule_without_a_set_has_nothing_to_write():
    assert list(write_out(nft("accept", "tcp dport 80"), None, [])) == []
