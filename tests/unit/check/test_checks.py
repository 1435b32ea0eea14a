"""Tests of which findings the check collects, and in which order."""

import socket

import pytest

from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.check.checks import check_node, check_settings, log_findings
from userspace_proxy.check.finding import Mark
from userspace_proxy.check.network import SYSCTLS
from userspace_proxy.config import Settings
from userspace_proxy.config.values import InheritedSocket
from userspace_proxy.model import SocketAddress

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
"""


@pytest.fixture
def manifests(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return str(path)


def topics(found):
    return list(dict.fromkeys(finding.topic for finding in found))


INPUT, STEERING = ["config", "manifests"], ["privileges", "nftables", "iptables", "steering"]
NODE = ["kube-proxy", "kernel", "ports", "firewall", "client addresses"]


@pytest.mark.parametrize(
    ("steering", "expected"),
    [
        pytest.param("nftables", [*INPUT, *STEERING, *NODE, "routes", "limits"], id="nftables"),
        # In `local` mode, routes to ClusterIPs aren't checked, because the proxy creates them.
        pytest.param("local", [*INPUT, *STEERING, *NODE, "limits"], id="local"),
        pytest.param("none", [*INPUT, "steering", "limits"], id="none"),
    ],
)
def test_findings_are_ordered_by_input_steering_and_node(node, manifests, steering, expected):
    found = check_settings(Settings(manifests=manifests, steering=steering), ())
    assert topics(found) == expected
    assert Mark.ERROR not in {finding.mark for finding in found}


def test_required_hooks_are_checked_after_steering(node, manifests, tmp_path):
    hooks = {"socket_lb": "required", "socket_lb_cgroup": str(tmp_path)}
    found = check_settings(Settings(manifests=manifests, steering="nftables", **hooks), ())
    assert topics(found)[: len(INPUT) + len(STEERING) + 1] == [*INPUT, *STEERING, "socket LB"]
    # The directory is no cgroup v2, or the test has no permission to attach hooks.
    assert [f.mark for f in found if f.topic == "socket LB"] == [Mark.ERROR]


def test_client_addresses_are_checked_only_if_they_are_preserved(node, manifests):
    settings = Settings(manifests=manifests, steering="nftables", preserve_client_address="never")
    assert "client addresses" not in topics(check_settings(settings, ()))


def test_unusable_settings_end_the_check_with_the_reason():
    inherited = InheritedSocket(999)
    found = check_settings(Settings(metrics_bind_address=inherited), ("flag --x is ignored",))
    assert [(f.mark, f.topic) for f in found] == [("warning", "config"), ("error", "config")]
    assert "descriptor 999 is not an inherited socket" in found[-1].what


@pytest.mark.parametrize(
    ("changed", "marks"),
    [
        pytest.param({}, ["error"], id="same-name"),
        pytest.param({"take_over": True}, ["warning"], id="take-over"),
        pytest.param({"steering": "none"}, ["warning"], id="without-steering"),
        pytest.param({"service_proxy_name": ""}, [], id="other-name"),
    ],
)
def test_a_running_proxy_of_the_same_name_is_an_error(node, manifests, changed, marks):
    name = "a-canary.of.a-long-name"
    lock = NodeLock(name)
    lock.take()
    try:
        usual = {"steering": "nftables", "service_proxy_name": name}
        found = check_settings(Settings(manifests=manifests, **usual | changed), ())
        assert [f.mark for f in found if "another userspace-proxy" in f.what] == marks
    finally:
        lock.release()


@pytest.mark.parametrize("address", ["192.0.2.1:53", "in use"])
def test_a_dns_address_that_cannot_be_bound_is_an_error(node, manifests, address):
    with socket.create_server(("127.0.0.1", 0)) as used:
        ip, port = used.getsockname() if address == "in use" else ("192.0.2.1", 53)
        dns = SocketAddress(ip, port)
        found = check_settings(Settings(manifests=manifests, dns_bind_address=dns), ())
    assert [(f.mark, f.topic) for f in found if f.topic == "dns"] == [("error", "dns")]


def test_the_agents_check_skips_firewalls_and_checks_nothing_without_steering(node):
    assert check_node(Settings(), "none") == []
    assert topics(check_node(Settings(), "nftables")) == ["kube-proxy", "kernel", "ports"]


def test_the_agents_check_reports_a_path_setting_without_effect(node):
    settings = Settings(path="kernel")
    assert topics(check_node(settings, "none")) == ["path"]
    assert topics(check_node(settings, "local")) == ["path", "kube-proxy", "kernel", "ports"]


def test_only_warnings_and_errors_are_logged(node, caplog):
    (reuse,) = (name for name in SYSCTLS if "reuse" in name)
    node.run(f"sysctl -qw {reuse}=1")
    log_findings(Settings(), "nftables")
    assert caplog.records == []
    node.run("ip link add kube-ipvs0 type bridge")
    log_findings(Settings(), "nftables")
    (record,) = caplog.records
    assert record.message == f"check found a problem: {record.finding} ({record.remedy})"
    assert record.topic == "kube-proxy"
    assert record.where == "interface kube-ipvs0"
    assert record.remedy
