"""``userspace-proxy check``: what it finds about input, steering and leftovers of other proxies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from tests.node.checked_nodes import SLICE, WEB, checked_node
from tests.node.steerings import steerings
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

pytestmark = pytest.mark.netns

OTHER = WEB.replace("name: web", "name: shop")
HEADLESS = WEB.replace("name: web", "name: db").replace("10.96.0.10", "None")
NODE_PORT = WEB.replace("{clusterIP", "{type: NodePort, clusterIP").replace(
    "port: 80", "port: 80, nodePort: 30080"
)
CLEAN_UP = "run kube-proxy --cleanup once, from the image"

node = pytest.fixture(checked_node)


@pytest.mark.kernel
def test_on_a_sound_node_everything_is_ok(node):
    before = node.kernel()
    done = node.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"ok"}
    assert done.stdout.splitlines()[-1].startswith("0 error, 0 warning, ")
    assert node.kernel() == before


def test_a_kernel_that_may_reset_clients_is_not_ok(node):
    node.run("sysctl -qw net.ipv4.tcp_tw_reuse=2")
    (line,) = (line for line in node.check().stdout.splitlines() if "clients are reset" in line)
    assert line.startswith("warning  kernel: net.ipv4.tcp_tw_reuse is 2")
    assert line.endswith("-> sysctl -w net.ipv4.tcp_tw_reuse=1")


def test_a_file_that_cant_be_read_is_an_error_with_its_line(node):
    config = node.folder / "config.yaml"
    config.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        "bindAddress: [1]\n"
    )
    done = node.check(f"--config={config}")
    assert done.returncode == 1
    assert f"error    config: {config}:3: " in done.stdout
    # The rest is checked nevertheless.
    assert "auto chooses nftables" in done.stdout


def test_an_invalid_flag_is_wrong_usage(node):
    done = node.check("--steering=magic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --steering")


def test_broken_manifests_are_errors_with_their_line(node):
    node.manifests.write_text(WEB.replace("port: 80", "port: 70000"))
    (found,) = node.about("manifests")
    assert found.startswith(f"error: {node.manifests}:")
    assert "70000 is not in 1–65535" in found


def test_services_that_conflict_are_errors_and_headless_ones_are_not(node):
    node.manifests.write_text(f"{WEB}---\n{OTHER}---\n{HEADLESS}")
    assert node.about("manifests") == [
        f"ok: 3 Services read [{node.manifests}]",
        "error: Service shop/web would not be served: 10.96.0.10:80/TCP is already held by "
        f"shop/shop [{node.manifests}:1]",
        "warning: shop/shop would refuse clients: no EndpointSlice belongs to shop/shop, and it "
        f"has no selector [{node.manifests}:6]",
        "ok: no listener by design for shop/db (it is headless (clusterIP: None): clients reach "
        "its endpoints directly)",
    ]


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local", "none"])
def test_a_node_port_that_run_would_serve_is_no_finding(node, steering):
    node.run("ip link add v0 type veth; ip link set v0 up; ip addr add 10.9.9.1/24 dev v0")
    node.manifests.write_text(NODE_PORT + SLICE)
    assert node.about("manifests", f"--steering={steering}") == [
        f"ok: 1 Service read [{node.manifests}]"
    ]


def test_a_node_port_without_an_address_of_this_node_is_a_warning(node):
    node.manifests.write_text(NODE_PORT + SLICE)
    assert node.about("manifests", "--nodeport-addresses=10.9.9.0/24")[1:] == [
        "warning: Service shop/web: node port 30080 is not served: this node has no IPv4 address "
        f"for it [{node.manifests}:1]"
    ]


def test_endpoints_on_loopback_are_refused_except_without_steering(node):
    node.manifests.write_text((WEB + SLICE).replace("10.244.0.7", "127.0.0.1"))
    assert len(node.about("manifests", "--steering=none")) == 1
    _, found = node.about("manifests", "--steering=local")
    assert found.startswith("warning: shop/web would refuse clients: its only endpoint is refused:")


def test_the_kernel_path_that_a_service_asks_for_and_this_node_lacks_is_a_warning(node):
    asks = "shop, annotations: {userspace-proxy.io/path: kernel}}"
    node.manifests.write_text(WEB.replace("shop}", asks) + SLICE)
    node.run("sysctl -qw net.ipv4.ip_forward=1")
    assert len(node.about("manifests", "--steering=nftables")) == 1
    node.run("sysctl -qw net.ipv4.ip_forward=0")
    warning = "warning: Service shop/web: path kernel is not used: {} [{}:1]"
    for steering, why in (
        ("nftables", "net.ipv4.ip_forward is 0"),
        ("iptables", "this steering has no kernel path: it needs --steering=nftables"),
    ):
        assert node.about("manifests", f"--steering={steering}")[1:] == [
            warning.format(why, node.manifests)
        ]


def test_an_unreachable_api_server_is_an_error(node):
    assert node.about("API server", "--master=http://127.0.0.1:9", manifests=False) == [
        "error: cannot reach the API server at http://127.0.0.1:9: Connection refused"
    ]


@pytest.mark.needs("legacy tables")
def test_auto_chooses_what_the_node_uses(node):
    node.run("iptables-legacy -t nat -L >/dev/null")
    assert node.about("steering") == [
        "ok: auto chooses iptables: this node uses legacy tables already (nat)"
    ]


@pytest.mark.kernel
def test_auto_chooses_nftables_on_a_clean_node(node):
    assert node.about("steering") == [
        "ok: auto chooses nftables: no legacy tables are in use here, and the kernel has nftables"
    ]


def test_without_privileges_the_missing_ones_are_named(node):
    command = ["nsenter", f"--net=/proc/self/fd/{node.fd}"]
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    inner = [sys.executable, "-m", "userspace_proxy", "check", f"--manifests={node.manifests}"]
    done = subprocess.run(
        [*command, *drop, *inner],
        pass_fds=[node.fd],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "error    privileges: NET_ADMIN and NET_RAW missing" in done.stdout
    assert "error    steering: auto finds no working steering" in done.stdout


@pytest.mark.needs("legacy tables")
@pytest.mark.parametrize("steering", ["iptables", "nftables"])
@pytest.mark.parametrize(("tool", "family"), [("iptables", "ip"), ("ip6tables", "ip6")])
def test_legacy_rules_of_kube_proxy_have_no_effect_and_are_reported(node, tool, family, steering):
    node.run(
        f"{tool}-legacy -t nat -N KUBE-SERVICES; {tool}-legacy -t nat -N KUBE-SEP-ABC; "
        f"{tool}-legacy -t nat -A PREROUTING -j KUBE-SERVICES"
    )
    steering = f"--steering={steering}"
    assert node.about("kube-proxy", steering) == [
        "warning: still there: chain KUBE-SERVICES and 1 more; this proxy's rules are evaluated "
        f"first, and the old rules see all other traffic [table legacy {family} nat]"
    ]
    assert node.hint("kube-proxy", steering).startswith(CLEAN_UP)


@pytest.mark.needs("legacy tables")
def test_chains_of_kubelet_are_not_leftovers(node):
    node.run(
        "iptables-legacy -t nat -N KUBE-KUBELET-CANARY; iptables-legacy -t nat -N KUBE-MARK-MASQ; "
        "iptables-legacy -N KUBE-FIREWALL"
    )
    assert node.about("kube-proxy") == ["ok: nothing left behind"]


@pytest.mark.needs("legacy tables")
def test_rules_of_kube_proxy_in_nftables_may_precede_legacy_ones(node):
    node.run("iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -A OUTPUT -j KUBE-SERVICES")
    assert node.about("kube-proxy", "--steering=iptables") == [
        "error: chain KUBE-SERVICES may be evaluated before this proxy's rules [table ip nat]"
    ]
    assert node.about("kube-proxy", "--steering=nftables") == [
        "warning: still there: chain KUBE-SERVICES; this proxy's rules are evaluated first, and "
        "the old rules see all other traffic [table ip nat]"
    ]


def test_the_table_of_kube_proxys_nftables_mode_is_an_error(node):
    node.run("nft add table ip kube-proxy; nft add chain ip kube-proxy services")
    assert node.about("kube-proxy") == [
        "error: its table rejects traffic for which it has no endpoint, under any steering "
        "[nftables table ip kube-proxy]"
    ]
    assert node.hint("kube-proxy").endswith("or nft delete table ip kube-proxy")


def test_the_interface_of_ipvs_mode_is_reported(node):
    # The kernel may have no dummy interfaces; only the name tells.
    node.run("ip link add kube-ipvs0 type bridge")
    assert node.about("kube-proxy") == [
        "warning: kube-ipvs0 still holds Service addresses: after a Service is deleted, this "
        "node's own daemons answer at its address [interface kube-ipvs0]"
    ]


@pytest.mark.needs("legacy tables")
def test_beside_kube_proxy_its_rules_are_no_finding(node):
    node.run("iptables-legacy -t nat -N KUBE-SERVICES")
    assert node.about("kube-proxy", "--service-proxy-name=canary") == [
        "ok: its rules serve the Services that this proxy doesn't [table legacy ip nat]"
    ]


async def leave_behind(name: str) -> None:
    """Steer, and go without taking the rules away."""
    left = make_steering(name, SteeringFacts(refuse_port=29999, proxy_ports=(17000, 29999)))
    await left.start()
    await left.apply({Frontend("10.96.0.10", 80, Protocol.TCP): 17000})
    await left.close()


@pytest.mark.parametrize("steering", steerings("nftables", "iptables"))
def test_rules_left_by_a_crash_are_reported_while_no_proxy_runs(node, steering):
    place = {
        "iptables": "table legacy ip nat, table legacy ip filter",
        "nftables": "nftables table inet userspace-proxy",
    }
    with node:
        asyncio.run(leave_behind(steering))
        lock = NodeLock()
        lock.take()
    try:
        assert node.about("leftovers") == [
            f"error: another userspace-proxy (pid {os.getpid()}) steers this node"
        ]
    finally:
        lock.release()
    assert node.about("leftovers") == [
        f"warning: rules of a userspace-proxy that isn't running [{place[steering]}]"
    ]
    assert "userspace-proxy cleanup removes them" in node.hint("leftovers")
