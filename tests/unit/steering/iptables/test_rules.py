from __future__ import annotations

from textwrap import dedent

import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.iptables.rules import (
    Jump,
    NatRule,
    PortGuard,
    make_guard,
    read_refuse_port,
    refusal,
)


def as_text(guard: PortGuard) -> str:
    rules = (f"-A {chain} {line}" for chain, lines in guard.chains.items() for line in lines)
    return "".join(f"{line}\n" for line in (*guard.jumps, *rules))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            NatRule("tcp", "10.96.7.1", 80, 36001),
            "-d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001",
        ),
        (
            NatRule("udp", "10.96.0.10", 53, 36002, "192.0.2.1"),
            "-d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.1:36002",
        ),
        (
            NatRule("tcp", "fd00:96::1", 80, 36001),
            "-d fd00:96::1/128 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001",
        ),
        (
            NatRule("tcp", "10.96.7.1", 1, 36001, "192.0.2.1", last=65535),
            "-d 10.96.7.1/32 -p tcp -m tcp --dport 1:65535 -j DNAT "
            "--to-destination 192.0.2.1:36001",
        ),
    ],
)
def test_a_nat_rule_round_trips_as_text(rule, text):
    assert str(rule) == text
    assert NatRule.parse(text) == rule


@pytest.mark.parametrize(
    ("jump", "text"),
    [
        (Jump("UPROXY-O1abcd", "10.96.64.0", 18), "-d 10.96.64.0/18 -j UPROXY-O1abcd"),
        (Jump("UPROXY-O1abcd", "fd00:96::1:0", 112), "-d fd00:96::1:0/112 -j UPROXY-O1abcd"),
        (
            Jump("UPROXY-O1abcd", "192.0.2.1", 32, "tcp", 30720, 31743),
            "-d 192.0.2.1/32 -p tcp -m tcp --dport 30720:31743 -j UPROXY-O1abcd",
        ),
        (
            Jump("UPROXY-O1abcd", "fd00::1", 128, "udp", 0, 65535),
            "-d fd00::1/128 -p udp -m udp -j UPROXY-O1abcd",
        ),
    ],
)
def test_a_jump_round_trips_as_text(jump, text):
    assert str(jump) == text
    assert Jump.parse(text) == jump
    for port in (30719, 30720, 31743, 31744):
        rule = NatRule(jump.protocol or "tcp", jump.ip, port, 36001)
        assert jump.covers(rule) is (not jump.first_port or 30720 <= port <= 31743)


@pytest.mark.parametrize(
    "text",
    [
        "-j RETURN",
        "-d 10.96.64.0/18 -j OTHERS",
        "-d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT",
        "-d 10.96.7.1/32 -p tcp -m udp --dport 80 -j REDIRECT --to-ports 1",
        "-s 10.0.0.0/8 -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
        "-d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1 --random",
    ],
)
def test_rule_lines_of_other_programs_are_not_parsed(text):
    assert NatRule.parse(text) is None
    assert Jump.parse(text) is None


@pytest.mark.parametrize("is_ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_refuse_port_is_read_from_its_rule(protocol, is_ipv6):
    line = refusal(protocol, 35999, is_ipv6=is_ipv6)
    assert read_refuse_port(line, is_ipv6=is_ipv6) == 35999
    assert read_refuse_port(f"{line} -x", is_ipv6=is_ipv6) is None
    assert read_refuse_port("-j RETURN", is_ipv6=is_ipv6) is None


def test_the_frontend_of_a_nat_rule_is_its_destination():
    rule = NatRule("tcp", "10.96.7.1", 80, 36001, "192.0.2.1")
    assert rule.frontend == Frontend("10.96.7.1", 80, Protocol.TCP)


def test_the_guard_rejects_untranslated_connections_to_proxy_ports():
    guard = make_guard({"tcp": [36003, 36001, 36002], "udp": [36009]}, refuse_port=35999)
    assert as_text(guard) == dedent("""\
        -A INPUT -p tcp -m tcp --dport 35999:36003 -j UPROXY-TCP
        -A INPUT -p udp -m udp --dport 35999:36009 -j UPROXY-UDP
        -A UPROXY-TCP -p tcp -m tcp ! --tcp-flags SYN,ACK SYN -j ACCEPT
        -A UPROXY-TCP -p tcp -m conntrack --ctstate DNAT -m socket --transparent --nowildcard -j ACCEPT
        -A UPROXY-TCP -p tcp -m multiport --dports 36001:36003 -m conntrack --ctstate DNAT -m socket --nowildcard -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-TCP -p tcp -m multiport --dports 36001:36003 -m conntrack --ctstate DNAT -j ACCEPT
        -A UPROXY-TCP -p tcp -m multiport --dports 36001:36003 -j REJECT --reject-with tcp-reset
        -A UPROXY-TCP -p tcp -m tcp --dport 35999 -m conntrack --ctstate DNAT -m socket --nowildcard -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-TCP -p tcp -m tcp --dport 35999 -m conntrack --ctstate DNAT -j ACCEPT
        -A UPROXY-UDP -p udp -m multiport --dports 36009 -m conntrack --ctstate DNAT -m socket --transparent --nowildcard -j ACCEPT
        -A UPROXY-UDP -p udp -m multiport --dports 36009 -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-UDP -p udp -m udp --dport 35999 -m conntrack --ctstate DNAT -j REJECT --reject-with icmp-port-unreachable
    """)  # noqa: E501


def test_the_guard_matches_the_whole_port_range_and_rejects_only_ports_in_use():
    guard = as_text(make_guard({"tcp": [36005]}, refuse_port=0, proxy_ports=(36000, 36999)))
    assert guard.count("--dport 36000:36999 -j ") == 2
    assert ("--dports 36005 " in guard, "-A UPROXY-UDP" in guard) == (True, False)


def test_without_socket_lookup_the_guard_omits_the_socket_check():
    ports = {"tcp": [36001], "udp": [36002]}
    guard = make_guard(ports, refuse_port=35999, checks_sockets=False)
    assert "socket" not in as_text(guard)
    assert as_text(guard).count("-m conntrack --ctstate DNAT -j ACCEPT") == 3


def test_ipv6_guard_rules_reject_with_icmp6_port_unreachable():
    guard = make_guard({"udp": [36001]}, refuse_port=35999, is_ipv6=True)
    assert as_text(guard).count("icmp6-port-unreachable") == 3


def test_a_guard_rule_matches_up_to_fifteen_ports_and_a_range_counts_as_two():
    scattered = [36000 + 2 * i for i in range(14)] + [36101, 36102, 36200]
    lines = make_guard({"tcp": scattered}, refuse_port=0, checks_sockets=False).chains["UPROXY-TCP"]
    ports = [line.split()[5] for line in lines if "-j REJECT" in line]
    assert ports == [",".join(map(str, scattered[:14])), "36101:36102,36200"]


def test_without_proxy_ports_no_guard_rules_are_generated():
    assert as_text(make_guard({"tcp": []}, refuse_port=0)) == ""
