"""Requests to an iptables helper, which changes a real kernel."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel import conntrack
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.iptables.helper import FULL_COMPARISON_EVERY
from userspace_proxy.steering.iptables.helper_process import (
    HelperEnded,
    HelperProcess,
    as_rows,
    from_rows,
)

FACTS = {"refuse_port": 35999, "proxy_ports": [36000, 36999], "node_addresses": ["10.1.0.1"]}
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
DATA = Frontend("10.96.7.3", 1, Protocol.TCP, last=30100)


@pytest.fixture
def ask(node):
    helper = HelperProcess(4)

    def ask(request, ports=None):
        rows = {} if ports is None else {"ports": as_rows(ports)}
        return helper.ask({"do": request, "facts": FACTS, **rows})

    yield ask
    helper.close()


def test_a_helper_applies_changes_and_removes_rules(node, ask):
    assert ask("start") == []
    ask("apply", {WEB: 36001})
    ask("change", {WEB: 36003, DNS: 35999})
    assert from_rows(ask("in_force")) == {WEB: 36003, DNS: 35999}
    assert from_rows(ask("start")) == {WEB: 36003, DNS: 0}
    ask("change", {WEB: None})
    assert from_rows(ask("in_force")) == {DNS: 35999}
    assert ask("labels") == [""]
    ask("clean_up")
    assert "UPROXY" not in node.run("iptables-legacy-save")


def test_a_port_range_is_a_single_rule_after_all_single_port_rules(node, ask):
    data = replace(DATA, ip=WEB.ip)
    others = [replace(DATA, port=port, last=port + 9) for port in range(100, 300, 10)]
    ask("apply", {data: 36001})
    ask("change", {WEB: 36002})
    rules = node.run("iptables-legacy-save -t nat")
    assert re.findall(r"-A UPROXY-OUT .* --dport (\S+)", rules) == ["80", "1:30100"]
    ask("change", dict.fromkeys(others, 35999))
    steered = {WEB: 36002, data: 36001, **dict.fromkeys(others, 35999)}
    assert from_rows(ask("in_force")) == steered
    assert [ask("repair") for _ in range(FULL_COMPARISON_EVERY)] == [0] * FULL_COMPARISON_EVERY
    ask("change", {data: None, replace(data, last=40000): 36001})
    assert "1:30100" not in node.run("iptables-legacy-save -t nat")
    ask("change", {WEB: None, replace(data, last=40000): None, **dict.fromkeys(others)})
    assert not re.search(r"--dport|UPROXY-R", node.run("iptables-legacy-save -t nat"))


def test_a_port_is_guarded_until_the_second_repair_after_its_last_frontend_is_removed(node, ask):
    def guarded():
        rules = node.run("iptables-legacy-save -t filter")
        return re.findall(r"-p tcp -m multiport --dports (\S+) -j REJECT", rules)

    ask("apply", {WEB: 36001})
    ask("change", {WEB: 36003})
    assert [guarded(), ask("repair"), guarded()] == [["36001,36003"], 0, ["36001,36003"]]
    assert [ask("repair"), guarded(), ask("repair")] == [0, ["36003"], 0]
    ask("change", {WEB: None})
    ask("change", {WEB: 36003})
    assert [ask("repair"), ask("repair"), guarded()] == [0, 0, ["36003"]]


@pytest.mark.parametrize("before", [0, FULL_COMPARISON_EVERY - 2], ids=["quick", "full"])
def test_the_expiry_of_a_guard_does_not_count_as_drift(node, ask, before):
    ask("apply", {WEB: 36001})
    assert [ask("repair") for _ in range(before)] == [0] * before
    ask("change", {WEB: 36003})
    assert ask("repair") == 0
    # At this repair, the guard expires and everything is compared.
    node.run("iptables-legacy -A INPUT -p tcp --dport 9999 -j ACCEPT")
    assert [ask("repair"), ask("repair")] == [0, 0]
    assert "36001" not in node.run("iptables-legacy-save -t filter")


def test_drift_visible_in_the_tables_size_is_repaired_immediately(node, ask):
    ask("apply", {WEB: 36001})
    assert ask("repair") == 0
    node.run("iptables-legacy -t nat -F UPROXY-PRE")
    assert ask("in_force") == []
    assert [ask("repair"), ask("repair")] == [1, 0]


def test_drift_that_keeps_the_table_size_is_repaired_by_the_full_comparison(node, ask):
    ask("apply", {WEB: 36001})
    node.run("iptables-legacy -t nat -R UPROXY-PRE 1 -d 10.96.7.9 -p tcp --dport 80 -j REDIRECT")
    assert sum(ask("repair") for _ in range(FULL_COMPARISON_EVERY)) > 0
    assert from_rows(ask("in_force")) == {WEB: 36001}


def test_flows_translated_to_a_removed_node_address_are_ended(node, ask):
    def flows():
        with node:
            return conntrack.count_by_endpoint(4, socket.IPPROTO_UDP).entries.total()

    node.run("ip link set lo up; ip route add 10.96.0.0/16 dev lo")
    node.run("ip address add 10.1.0.1/32 dev lo")
    ask("apply", {DNS: 36002})
    # These rules do what REDIRECT does for a client outside this node.
    node.run(r"""
        nft add table ip client
        nft add chain ip client output { type nat hook output priority -150\; }
        nft add rule ip client output udp dport 53 dnat to 10.1.0.1:36002""")
    with node, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (DNS.ip, DNS.port))
    assert [ask("repair"), flows()] == [0, 1]
    node.run("ip address del 10.1.0.1/32 dev lo")
    assert [ask("repair"), flows()] == [0, 0]


def test_a_helper_reports_that_the_kernel_supports_socket_lookup(ask):
    assert ask("checks_sockets") is True


def test_a_helper_error_keeps_its_hint(node, ask, monkeypatch, tmp_path):
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path))
    with pytest.raises(SteeringError) as raised:
        ask("apply", {WEB: 36001})
    assert raised.value.hint == "set XTABLES_LOCKFILE to a file that you may write"
    with pytest.raises(SteeringError, match="no steering was applied before"):
        ask("change", {DNS: 36002})


def test_an_unknown_request_ends_the_helper(ask):
    with pytest.raises(HelperEnded, match="no such request: dance"):
        ask("dance")
