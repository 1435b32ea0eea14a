import pytest

from userspace_proxy.check.network import (
    SYSCTLS,
    judge_interfaces,
    judge_routes,
    judge_sysctls,
    sample_of,
)
from userspace_proxy.kernel.interfaces import InterfaceView


def texts(findings):
    return [f"{f.mark}: {f.what}" for f in findings]


def test_interfaces_without_an_address_are_reported_only_for_steering_by_rules():
    view = InterfaceView(("cali1", "cali2", "cali3", "cali4"), ("192.0.2.1",))
    (found,) = texts(judge_interfaces(view, "iptables", ["10.96.0.0/12", "fd00::/112"]))
    assert found.startswith("ok: cali1, cali2, cali3 and 1 more without an IPv4 address: ")
    assert "(192.0.2.1)" in found
    assert judge_interfaces(view, "local", ["10.96.0.0/12"]) == []
    assert judge_interfaces(None, "iptables", ["10.96.0.0/12"]) == []


def test_an_ipv6_cluster_requires_no_ipv4_addresses_on_interfaces():
    view = InterfaceView(("cni0", "eth0"))
    assert judge_interfaces(view, "nftables", ["fd00:10:96::1"]) == []
    assert [f.mark for f in judge_interfaces(view, "nftables", ["fd00:10:96::1", "10.96.0.1"])] == [
        "error"
    ]


@pytest.mark.parametrize(
    ("cidr", "ip"),
    [("10.96.0.0/12", "10.96.0.1"), ("10.96.0.10", "10.96.0.10"), ("fd00::/112", "fd00::1")],
)
def test_the_route_to_a_cidr_is_tested_with_its_first_address(cidr, ip):
    assert sample_of(cidr) == ip


def test_a_cidr_without_a_route_is_reported_with_a_command():
    found = judge_routes(
        ["10.96.0.0/12", "fd00::/112"], {"fd00::1": "Network is unreachable", "10.96.0.1": ""}
    )
    assert texts(found) == [
        "ok: programs on this node can dial 10.96.0.0/12",
        "warning: programs on this node can't dial fd00::/112: Network is unreachable, before any "
        "rule is evaluated",
    ]
    assert found[1].hint == "ip -6 route add fd00::/112 dev lo, or a default route"


def test_a_nearly_full_conntrack_table_is_reported():
    *_, count, limit = SYSCTLS
    values = {count: "950", limit: "1000"}
    (found,) = judge_sysctls(values)
    assert (found.mark, found.hint) == (
        "warning",
        f"sysctl -w {limit}=2000",
    )
    values[count] = "100"
    assert judge_sysctls(values) == []


def test_disabled_ip_forwarding_is_mentioned_but_is_no_problem():
    assert [f.mark for f in judge_sysctls({"net.ipv4.ip_forward": "0"})] == ["ok"]
    assert judge_sysctls({"net.ipv4.ip_forward": "1"}) == []


@pytest.mark.parametrize(
    ("reuse", "expected"),
    [
        pytest.param(
            "2", ["beyond 470 short connections per second to one endpoint"], id="default"
        ),
        pytest.param("0", ["beyond 470 short connections per second to one endpoint"], id="off"),
        pytest.param("1", [], id="on"),
    ],
)
def test_tcp_tw_reuse_other_than_1_is_a_warning(reuse, expected):
    ports, _, _, of_reuse, *_ = SYSCTLS
    found = judge_sysctls({of_reuse: reuse, ports: "32768\t60999"})
    shown = [
        (str(finding.mark), words in finding.what)
        for words, finding in zip(expected, found, strict=True)
    ]
    assert shown == [("warning", True)] * len(expected)
