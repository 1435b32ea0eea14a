from ipaddress import ip_address, ip_network

import pytest

from tests.unit.filters.written import conditions
from userspace_proxy.filters.matches import (
    Match,
    MatchField,
    Ports,
    ends_of,
    in_words,
    number_of,
    states,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ip saddr 10.0.0.0/8,192.0.2.1/32 ip6 daddr fd00::/8",
        "ip saddr != 10.0.0.0/8",
        "ct original ip daddr 10.96.7.1/32 ct original proto-dst 80",
        "ct original ip6 daddr fd00:96::1/128",
        "tcp dport 22,80-90 ct state new,established",
        "udp sport 53 th dport 53",
        "meta l4proto tcp,udp th dport 53",
        "meta nfproto ipv4 meta l4proto 58",
        "ct status dnat fib daddr type local socket transparent",
        "ct status ! dnat",
        "iif lo oif lo",
        "iifname != cali* iif 2",
        "… … … … …",
    ],
)
def test_conditions_are_shown_in_the_syntax_of_nft(text):
    assert in_words(conditions(text)) == text


def test_a_condition_on_tcp_flags_is_shown_with_its_mask():
    assert in_words(conditions("tcp flags 18 != 2")) == "tcp flags != 0x2 / 0x12"


def test_has_is_true_for_the_ports_or_addresses_of_a_match():
    ports = Match(MatchField.DESTINATION_PORT, (Ports(22, 22), Ports(80, 90)))
    assert [port for port in (21, 22, 23, 79, 80, 90, 91) if ports.has(port)] == [22, 80, 90]
    (listed,) = conditions("ip daddr 10.96.7.1/32,10.97.0.0/16")
    addresses = ("10.96.7.1", "10.96.7.2", "10.97.255.255", "10.98.0.0", "::a60:701")
    assert [ip for ip in addresses if listed.has(number_of(ip_address(ip)))] == [
        "10.96.7.1",
        "10.97.255.255",
    ]


def test_ipv6_and_ipv4_addresses_have_distinct_numbers():
    assert number_of(ip_address("::1")) > number_of(ip_address("255.255.255.255"))
    assert ends_of(ip_network("10.0.0.0/30")) == (10 << 24, (10 << 24) + 3)


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("ip daddr 10.0.0.0/8,0.0.0.0/0", {4: True}),
        ("ip daddr 0.0.0.0/0,10.0.0.0/8", {4: True}),
        ("ip6 daddr fd00::/8", {6: False}),
    ],
)
def test_a_condition_records_whether_it_matches_all_addresses_of_its_family(text, versions):
    (listed,) = conditions(text)
    assert listed.versions == versions


def test_conntrack_states_are_parsed_and_only_the_first_eight_are_shown():
    assert states(["dnat"]) == conditions("ct status dnat")[0]
    assert states(["established", "dnat"]) == conditions("ct state established,dnat")[0]
    many = states([str(number) for number in range(9)])
    assert str(many) == "ct state 0,1,2,3,4,5,6,7,…"
