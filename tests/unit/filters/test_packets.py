from ipaddress import ip_network

import pytest

from tests.unit.filters.written import conditions
from userspace_proxy.filters import packets
from userspace_proxy.filters.packets import ANY_IP, FirstPacket, may_be_first
from userspace_proxy.model import Frontend, IPFamily, Protocol
from userspace_proxy.policy.locality import PodLink

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
NODE_PORT = Frontend("127.0.0.1", 30080, Protocol.TCP)


def meets(text, packet):
    return packets.meets(conditions(text), packet)


@pytest.mark.parametrize(
    ("condition", "frontend", "expected"),
    [
        pytest.param("", WEB, True, id="everything"),
        pytest.param("ip daddr 10.96.7.1/32 tcp dport 80", WEB, True, id="its-address"),
        pytest.param("ip daddr 10.96.0.0/12", WEB, True, id="its-range"),
        pytest.param("ip6 daddr fd00:96::/108", WEB_6, True, id="its-range-6"),
        pytest.param("tcp dport 80-90", WEB, True, id="its-port"),
        pytest.param("th dport 80", WEB, True, id="its-port-of-any-protocol"),
        pytest.param("…", WEB, None, id="not-understood"),
        pytest.param("… udp dport 80", WEB, False, id="looked-up-for-another-protocol"),
        pytest.param("ip daddr 10.96.7.2/32", WEB, False, id="another-address"),
        pytest.param("ip daddr 10.96.0.0/12 ip daddr 10.97.0.0/16", WEB, False, id="not-both"),
        pytest.param("ip daddr 0.0.0.0/0", WEB_6, False, id="another-family"),
        pytest.param("meta nfproto ipv4", WEB_6, False, id="another-family-in-words"),
        pytest.param("udp dport 80", WEB, False, id="another-protocol"),
    ],
)
def test_a_condition_matches_all_or_some_or_no_clients(condition, frontend, expected):
    assert meets(condition, FirstPacket(frontend)) is expected


@pytest.mark.parametrize(
    ("condition", "before", "after"),
    [
        pytest.param("tcp dport 80", True, False, id="its-port"),
        pytest.param("tcp dport 36001", False, True, id="the-proxy-port"),
        pytest.param("tcp dport 22,36000-36999", False, True, id="the-proxy-ports-range"),
        pytest.param("meta l4proto 1,58", False, False, id="other-protocols"),
        pytest.param("meta l4proto tcp,udp th dport 80", True, False, id="both-protocols"),
        pytest.param("ip daddr 10.96.7.1/32", True, None, id="its-address"),
        pytest.param("ip daddr 192.0.2.7/32", False, None, id="maybe-the-nodes-address"),
        pytest.param("ip daddr 192.0.2.7/32,0.0.0.0/0", True, True, id="all-of-several"),
        ("ct original ip daddr 10.96.7.2/32,10.96.7.1/32", True, True),
        pytest.param("ip6 daddr ::1/128", False, False, id="address-of-another-family"),
        pytest.param("ct original ip daddr 10.96.7.2/32", False, False, id="other-address"),
        pytest.param("ct original proto-dst 80", True, True, id="dialled-port"),
        pytest.param("ct original proto-dst 36001", False, False, id="other-port"),
        pytest.param("fib daddr type local", False, True, id="this-node"),
        pytest.param("ct status dnat", False, True, id="translated"),
        pytest.param("ct status ! dnat", True, False, id="not-translated"),
        pytest.param("ct state established,dnat", False, True, id="open-or-translated"),
        pytest.param("ct state new,established", True, True, id="new-or-open"),
        pytest.param("iif lo", False, False, id="from-this-node"),
    ],
)
def test_a_translated_packet_has_the_proxy_port_and_a_node_address(condition, before, after):
    assert meets(condition, FirstPacket(WEB)) is before
    assert meets(condition, FirstPacket(WEB, 36001)) is after


@pytest.mark.parametrize(
    ("condition", "first", "answer"),
    [
        pytest.param("tcp flags 2 != 0", True, True, id="syn-among-others"),
        pytest.param("tcp flags 23 == 2", True, False, id="syn-alone"),
        pytest.param("tcp flags 16 != 0", False, True, id="ack"),
    ],
)
def test_the_first_packet_of_tcp_matches_only_conditions_on_a_syn(condition, first, answer):
    assert meets(condition, FirstPacket(WEB)) is first
    assert meets(condition, FirstPacket(WEB, is_answer=True)) is answer
    assert meets(condition, FirstPacket(Frontend("10.96.7.1", 80, Protocol.UDP))) is False


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("ip saddr 10.96.7.1/32", True, id="from-the-frontend"),
        pytest.param("ip saddr 10.96.7.2/32", False, id="from-another"),
        pytest.param("ip daddr 192.0.2.7/32", None, id="to-some-address"),
        pytest.param("tcp dport 22,80", False, id="to-a-server"),
        pytest.param("tcp dport 22,30000-40000", None, id="maybe-to-the-client"),
        pytest.param("udp dport 40000", False, id="of-another-protocol"),
        pytest.param("tcp sport 22,80", True, id="from-its-port"),
        pytest.param("ct state established,related", True, id="of-open-connections"),
        pytest.param("ct state new", False, id="of-new-connections"),
        pytest.param("ct original ip daddr 10.96.7.1/32", True, id="of-its-connections"),
        pytest.param("fib daddr type local", True, id="to-this-node"),
    ],
)
def test_a_reply_goes_from_the_dialled_address_to_an_unprivileged_port(condition, expected):
    assert meets(condition, FirstPacket(WEB, is_answer=True)) is expected


BRIDGE = PodLink(4, "cni0", (ip_network("10.244.2.0/24"), ip_network("fd00:2::/64")))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("iifname cni0", True, id="link"),
        pytest.param("iifname cni*", True, id="links"),
        pytest.param("iifname cni", False, id="another-link"),
        pytest.param("iifname != cni*", False, id="other-links"),
        pytest.param("iif 4", True, id="number"),
        pytest.param("iif lo", False, id="loopback"),
        pytest.param("ip saddr 10.244.0.0/16", True, id="all-sources"),
        pytest.param("ip saddr 10.1.0.0/16,10.244.2.0/23", True, id="all-sources-of-a-list"),
        pytest.param("ip saddr 10.244.2.7/32", None, id="one-source"),
        pytest.param("ip saddr != 10.9.0.0/16", True, id="not-among-others"),
        pytest.param("ip6 saddr fd00:2::/64", False, id="of-another-family"),
    ],
)
def test_a_pods_source_address_follows_from_its_link(condition, expected):
    assert meets(condition, FirstPacket(WEB, 36001, link=BRIDGE)) is expected


def test_a_pods_source_is_unknown_without_a_route_of_its_family():
    packet = FirstPacket(WEB_6, 36001, link=PodLink(2, "cali1", (ip_network("10.244.1.1/32"),)))
    assert meets("ip6 saddr fd00::/8", packet) is None
    assert meets("ip6 saddr fd00::/8", packet._replace(link=BRIDGE)) is True


def test_only_packets_to_this_nodes_addresses_leave_through_loopback():
    assert meets("oif lo", FirstPacket(WEB)) is False
    assert meets("oif lo", FirstPacket(NODE_PORT)) is True


def test_packets_of_local_programs_arrive_through_loopback():
    assert meets("iif lo", FirstPacket(WEB, 36001, is_own=True)) is True
    assert meets("iif lo tcp dport 22", FirstPacket(WEB, 36001, is_own=True)) is False
    assert meets("iifname eth1", FirstPacket(WEB, 36001, is_own=True)) is False
    assert meets("iif != 2", FirstPacket(WEB, 36001, is_own=True)) is True


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("", True, id="everything"),
        pytest.param("ct state invalid", False, id="invalid"),
        pytest.param("ct state established,related", False, id="open-connections"),
        pytest.param("ct state established,new", True, id="open-or-new"),
        pytest.param("ip saddr 192.0.2.1/32", False, id="some-clients"),
        pytest.param("iifname eth1 tcp dport 80", False, id="by-an-interface"),
        pytest.param("iif lo", True, id="own-programs"),
        pytest.param("numgen/hash", False, id="drawn"),
        pytest.param("limit", False, id="limit"),
        pytest.param("tcp dport 80 …", False, id="not-understood"),
    ],
)
def test_may_be_first_is_false_for_conditions_not_met_by_every_first_packet(condition, expected):
    assert may_be_first(conditions(condition)) is expected


ENDPOINT = Frontend("10.244.1.1", 8080, Protocol.TCP)
UPLINK = PodLink(9, "eth0", (ip_network("0.0.0.0/0"),))
ITS_LINK = PodLink(2, "cali1", (ip_network("10.244.1.1/32"),))


@pytest.mark.parametrize(
    ("condition", "first", "answer"),
    [
        pytest.param("ip daddr 10.244.1.1/32 tcp dport 8080", True, None, id="the-endpoint"),
        pytest.param("ip saddr 10.244.1.1/32 tcp sport 8080", None, True, id="from-the-endpoint"),
        pytest.param("ip saddr 0.0.0.0/0", True, True, id="from-anywhere"),
        pytest.param("ct status dnat", True, True, id="translated"),
        pytest.param("ct state new", True, False, id="new"),
        pytest.param("ct state != established", True, False, id="not-established"),
        pytest.param("iifname eth0 oifname cali*", True, False, id="way-there"),
        pytest.param("iifname cali1,docker0 oif 9", False, True, id="way-back"),
        pytest.param("iifname != docker0 oifname != docker0", True, True, id="past-docker"),
        pytest.param("iif lo", False, False, id="loopback"),
        pytest.param("fib daddr type local", False, False, id="not-here"),
        pytest.param("ct original ip daddr 10.96.7.1/32", None, None, id="dialled-address"),
        pytest.param("ct original proto-dst 80", None, None, id="dialled-port"),
    ],
)
def test_a_forwarded_packet_has_the_endpoints_address_and_both_interfaces(condition, first, answer):
    packet = FirstPacket(ENDPOINT, is_forwarded=True, link=UPLINK, way_out=ITS_LINK)
    back = packet._replace(is_answer=True, link=ITS_LINK, way_out=UPLINK)
    assert (meets(condition, packet), meets(condition, back)) == (first, answer)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("ip daddr 10.96.0.0/12", None, id="some-addresses"),
        pytest.param("ip daddr 0.0.0.0/0", True, id="all-addresses"),
        pytest.param("tcp dport 80", None, id="a-port"),
        pytest.param("ip saddr 10.0.0.0/8", False, id="some-clients"),
        pytest.param("ip saddr 0.0.0.0/0", True, id="all-clients"),
    ],
)
def test_a_packet_of_any_frontend_certainly_matches_only_general_conditions(condition, expected):
    anything = FirstPacket(Frontend(ANY_IP[IPFamily.IPV4], 0, Protocol.TCP), is_other=True)
    assert meets(condition, anything) is expected
