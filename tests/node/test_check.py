"""``userspace-proxy check`` on nodes that are really so: each state makes its line."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys

import pytest
import steering_nodes as nodes
from steering_nodes import Net

from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.cli import main
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

pytestmark = pytest.mark.netns

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
"""
OTHER = WEB.replace("name: web", "name: shop")
HEADLESS = WEB.replace("name: web", "name: db").replace("10.96.0.10", "None")
CLEAN_UP = "run kube-proxy --cleanup once, from the image"


class Node(Net):
    """A node on which check is run."""

    def __init__(self, folder) -> None:
        super().__init__("node")
        self.folder = folder
        self.manifests = folder / "web.yaml"
        self.manifests.write_text(WEB)
        self.environment = {**os.environ, "XTABLES_LOCKFILE": str(folder / "xtables.lock")}
        self.run("ip route add default dev lo")

    def run(self, command: str) -> str:
        lock = f"XTABLES_LOCKFILE={self.folder}/xtables.lock" if hasattr(self, "folder") else ""
        return super().run(f"export {lock}; {command}" if lock else command)

    def check(self, *flags: str, manifests: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command here; its output is text."""
        source = [f"--manifests={self.manifests}"] if manifests else []
        command = [sys.executable, "-m", "userspace_proxy", "check", *source, *flags]
        return subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command],
            pass_fds=[self.fd],
            capture_output=True,
            text=True,
            timeout=30,
            env=self.environment,
        )

    def findings(self, *flags: str, manifests: bool = True) -> list[dict[str, str]]:
        """Return all findings of the command, run by a thread that stands here."""
        source = [f"--manifests={self.manifests}"] if manifests else []
        with self, contextlib.redirect_stdout(io.StringIO()) as said:
            status = main(["check", *source, *flags, "-o", "json"])
        answer = json.loads(said.getvalue())
        assert status == (1 if answer["mark"] == "error" else 0)
        found: list[dict[str, str]] = answer["findings"]
        return found

    def about(self, topic: str, *flags: str, manifests: bool = True) -> list[str]:
        """Return what is found about a topic: mark, sentence and place."""
        return [
            f"{f['mark']}: {f['what']}" + (f" [{f['where']}]" if f["where"] else "")
            for f in self.findings(*flags, manifests=manifests)
            if f["topic"] == topic
        ]

    def way_out(self, topic: str, *flags: str) -> str:
        """Return the only way out of what is found about a topic."""
        (way_out,) = {f["way_out"] for f in self.findings(*flags) if f["topic"] == topic}
        return way_out

    def kernel(self) -> str:
        """Return rules, routes and tables in use as text."""
        return self.run(
            "nft list ruleset; ip route; ip -6 route; ip rule; ip addr; cat /proc/net/ip*_names"
        )


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    nodes.need_namespaces()
    net = Node(tmp_path)
    yield net
    net.close()


def test_on_a_node_where_all_is_well_everything_is_ok(node):
    before = node.kernel()
    done = node.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"ok"}
    assert done.stdout.splitlines()[-1].startswith("0 error, 0 warning, ")
    assert node.kernel() == before


# -- input


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


def test_a_flag_that_cant_be_is_wrong_usage(node):
    done = node.check("--steering=magic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --steering")


def test_broken_manifests_are_errors_with_their_line(node):
    node.manifests.write_text(WEB.replace("port: 80", "port: 70000"))
    (found,) = node.about("manifests")
    assert found.startswith(f"error: {node.manifests}:")
    assert "70000 is not in 1–65535" in found


def test_services_in_each_others_way_are_errors_and_headless_ones_are_not(node):
    node.manifests.write_text(f"{WEB}---\n{OTHER}---\n{HEADLESS}")
    assert node.about("manifests") == [
        f"ok: 3 Services read [{node.manifests}]",
        "error: Service shop/web would not be served: 10.96.0.10:80/TCP is already held by "
        "shop/shop",
        "ok: no listener by design for shop/db (it is headless (clusterIP: None): clients reach "
        "its endpoints directly)",
    ]


def test_an_api_server_that_nobody_answers_for_is_an_error(node):
    assert node.about("API server", "--master=http://127.0.0.1:9", manifests=False) == [
        "error: cannot reach the API server at http://127.0.0.1:9: Connection refused"
    ]


# -- what there is


def test_auto_joins_what_the_node_uses(node):
    node.run("iptables-legacy -t nat -L >/dev/null")
    assert node.about("steering") == [
        "ok: auto chooses iptables: this node uses legacy tables already (nat)"
    ]


def test_auto_takes_nftables_on_a_clean_node(node):
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


# -- leftovers


@pytest.mark.parametrize(
    ("steering", "found"),
    [
        pytest.param(
            "iptables",
            "warning: still there: chain KUBE-SERVICES and 1 more; this proxy's rules are "
            "evaluated first, and the old rules see all other traffic",
            id="iptables",
        ),
        pytest.param(
            "nftables",
            "warning: still there: chain KUBE-SERVICES and 1 more; this proxy's rules are "
            "evaluated first, and the old rules see all other traffic",
            id="nftables",
        ),
    ],
)
@pytest.mark.parametrize(("tool", "family"), [("iptables", "ip"), ("ip6tables", "ip6")])
def test_legacy_rules_of_kube_proxy_lose_and_are_told(node, tool, family, steering, found):
    node.run(
        f"{tool}-legacy -t nat -N KUBE-SERVICES; {tool}-legacy -t nat -N KUBE-SEP-ABC; "
        f"{tool}-legacy -t nat -A PREROUTING -j KUBE-SERVICES"
    )
    steering = f"--steering={steering}"
    assert node.about("kube-proxy", steering) == [f"{found} [table legacy {family} nat]"]
    assert node.way_out("kube-proxy", steering).startswith(CLEAN_UP)


def test_chains_of_kubelet_are_not_leftovers(node):
    node.run(
        "iptables-legacy -t nat -N KUBE-KUBELET-CANARY; iptables-legacy -t nat -N KUBE-MARK-MASQ; "
        "iptables-legacy -N KUBE-FIREWALL"
    )
    assert node.about("kube-proxy") == ["ok: nothing left behind"]


def test_rules_of_kube_proxy_in_nftables_may_win_over_legacy_ones(node):
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
    assert node.way_out("kube-proxy").endswith("or nft delete table ip kube-proxy")


def test_the_interface_of_ipvs_mode_is_told(node):
    # The kernel may have no dummy interfaces; only the name tells.
    node.run("ip link add kube-ipvs0 type bridge")
    assert node.about("kube-proxy") == [
        "warning: kube-ipvs0 still holds Service addresses: after a Service is deleted, this "
        "node's own daemons answer at its address [interface kube-ipvs0]"
    ]


def test_beside_kube_proxy_its_rules_are_as_they_should_be(node):
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


@pytest.mark.parametrize("steering", ["iptables", "nftables"])
def test_rules_of_ours_that_a_crash_left_are_told_once_nobody_runs(node, steering):
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
            f"warning: another userspace-proxy (pid {os.getpid()}) steers this node"
        ]
    finally:
        lock.release()
    assert node.about("leftovers") == [
        f"warning: rules of a userspace-proxy that isn't running [{place[steering]}]"
    ]
    assert "userspace-proxy cleanup removes them" in node.way_out("leftovers")


# -- firewalls

FIREWALLD = (
    "nft add table inet firewalld",
    "nft 'add chain inet firewalld filter_INPUT { type filter hook input priority 10; }'",
    "nft add rule inet firewalld filter_INPUT ct state established,related accept",
)
REJECT = "nft add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited"
LETS_IN = "nft add rule inet firewalld filter_INPUT ct status dnat accept"


# As a kernel without nft_socket answers to a transaction with such an expression.
WITHOUT_SOCKETS = """
import errno
from userspace_proxy.kernel.nf_tables import Ruleset
from userspace_proxy.kernel.nf_tables.errors import NftablesError

def refuse(method):
    def call(self, messages):
        if any(b"socket\\0" in message for message in messages):
            raise NftablesError(errno.ENOENT, "add rule")
        return method(self, messages)
    return call

Ruleset.try_out = refuse(Ruleset.try_out)
"""


def test_a_kernel_without_nft_socket_steers_and_is_named(node):
    folder = node.folder / "patched"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT_SOCKETS)
    node.environment["PYTHONPATH"] = str(folder)
    said = node.check("--steering=nftables").stdout
    assert "can't work here" not in said
    assert "the kernel has no nft_socket" in said
    assert "modprobe nft_socket" in said


def test_a_policy_of_drop_in_nftables_is_an_error_and_the_way_out_mends_it(node):
    node.run("iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
    assert node.about("firewall") == [
        "error: packets to Services may be dropped on their way in: its policy is drop "
        "[chain ip filter INPUT]"
    ]
    node.run(node.way_out("firewall"))
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


def test_a_rule_that_drops_in_a_chain_below_is_found(node):
    node.run(
        "iptables-nft -N ufw-before-input; iptables-nft -A INPUT -j ufw-before-input; "
        "iptables-nft -A ufw-before-input -p tcp --dport 22 -j ACCEPT; "
        "iptables-nft -A ufw-before-input -m comment --comment 'all others' -j REJECT"
    )
    assert node.about("firewall") == [
        "error: packets to Services may be dropped on their way in: chain ufw-before-input: rule "
        "reject [chain ip filter INPUT]"
    ]


def test_a_firewalld_that_lets_translated_packets_in_is_ok(node):
    node.run("; ".join([*FIREWALLD, LETS_IN, REJECT]))
    assert node.about("firewall") == ["ok: firewalld is running and accepts translated packets"]


@pytest.mark.parametrize(
    "opens",
    [
        pytest.param("ct state '{ established, related }' accept", id="set"),
        pytest.param("ct state vmap '{ established : accept, invalid : drop }'", id="map"),
    ],
)
def test_a_set_or_map_of_states_lets_endpoints_answers_in(node, opens):
    node.run("; ".join([*FIREWALLD[:2], LETS_IN, REJECT]))
    assert len(node.about("firewall")) == 1
    node.run(f"nft insert rule inet firewalld filter_INPUT {opens}")
    assert node.about("firewall") == ["ok: firewalld is running and accepts translated packets"]


def test_a_firewalld_that_does_not_is_an_error(node):
    node.run("; ".join([*FIREWALLD, REJECT]))
    (found,) = node.about("firewall")
    assert found.endswith("rule reject [chain inet firewalld filter_INPUT]")


def test_a_legacy_policy_of_drop_that_admits_answers_matters_to_nftables_steering_alone(node):
    node.run(
        "iptables-legacy -P INPUT DROP; "
        "iptables-legacy -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    assert node.about("firewall", "--steering=iptables") == [
        "ok: no chain drops packets that are steered to the proxy"
    ]
    assert node.about("firewall", "--steering=nftables") == [
        "error: packets to Services may be dropped on their way in: its policy is drop "
        "[chain legacy ip filter INPUT]"
    ]
    node.run(node.way_out("firewall", "--steering=nftables"))
    assert node.about("firewall", "--steering=nftables") == [
        "ok: no chain drops packets that are steered to the proxy"
    ]


# -- network


def test_an_unnumbered_interface_is_told_with_the_address_that_stands_in(node):
    node.run("ip link add veth0 type veth peer name veth1; ip link set veth0 up")
    assert node.about("interfaces") == [
        "error: veth0 without an IPv4 address, and this node has no other: traffic that arrives "
        "there can't be steered"
    ]
    node.run("ip addr add 192.0.2.1/32 dev lo")
    assert node.about("interfaces") == [
        "ok: veth0 without an IPv4 address: traffic that arrives there is sent to an address of "
        "this node "
        "(192.0.2.1) instead of the interface's"
    ]


def test_without_a_route_host_clients_cant_dial_and_the_way_out_mends_it(node):
    node.run("ip route del default")
    assert node.about("routes") == [
        "warning: programs on this node can't dial 10.96.0.0/12: Network is unreachable, before "
        "any rule is evaluated"
    ]
    node.run(node.way_out("routes").partition(", or")[0])
    assert node.about("routes") == ["ok: programs on this node can dial 10.96.0.0/12"]


@pytest.mark.parametrize(
    ("sysctl", "flags", "found"),
    [
        pytest.param(
            "net.ipv4.ip_local_port_range=20000 60999",
            (),
            [
                "warning: the node's own connections may take proxy ports 20000-29999: "
                "net.ipv4.ip_local_port_range is 20000-60999 "
                "[/proc/sys/net/ipv4/ip_local_port_range]",
                "warning: the node's own connections may take node ports 30000-32767: "
                "net.ipv4.ip_local_port_range is 20000-60999 "
                "[/proc/sys/net/ipv4/ip_local_port_range]",
            ],
            id="proxy-and-node-ports",
        ),
        pytest.param(
            "net.ipv4.ip_local_port_range=32768 60999",
            ("--proxy-port-range=29000-31000",),
            [
                "warning: --proxy-port-range=29000-31000 overlaps node ports (30000-31000): a "
                "Service's node port may be in use"
            ],
            id="among-node-ports",
        ),
    ],
)
def test_ports_that_others_may_take_are_told(node, sysctl, flags, found):
    set_sysctl(node, sysctl)
    assert node.about("ports", *flags) == found


def test_reserved_ports_are_nobody_elses(node):
    set_sysctl(node, "net.ipv4.ip_local_port_range=20000 60999")
    set_sysctl(node, "net.ipv4.ip_local_reserved_ports=20000-32767")
    assert node.about("ports") == [
        "ok: the node's own connections don't use the proxy ports 17000-29999"
    ]


def test_a_strict_reverse_path_keeps_no_answer_and_is_no_finding(node):
    set_sysctl(node, "net.ipv4.conf.all.rp_filter=1")
    assert not [f for f in node.findings() if "rp_filter" in f["what"] or f["mark"] != "ok"]


def test_whether_endpoints_see_their_clients_addresses_is_told_and_why_not(node):
    topic = "client addresses"
    assert node.about(topic) == [
        "ok: endpoints on this node see client addresses; a pod that reaches itself through a "
        "Service sees this node's address"
    ]
    node.run("ip link add cilium_host type veth peer name cilium_net")
    (found,) = node.about(topic)
    assert found.startswith("warning: endpoints see this node's address, not the client's: ")
    assert "Cilium delivers" in found
    assert not node.about(topic, "--preserve-client-address=never")
    assert not node.about(topic, "--steering=none")


def set_sysctl(node: Node, setting: str) -> None:
    name, _, value = setting.partition("=")
    node.run(f"printf '%s' '{value}' > /proc/sys/{name.replace('.', '/')}")


def test_who_has_the_health_port_is_named(node):
    with node.tcp() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("0.0.0.0", 10256))
        taker.listen()
        found = node.about("ports")
    assert found[1].startswith("error: --healthz-bind-address=0.0.0.0:10256: ")
    assert found[1].endswith(f"(pid {os.getpid()}) uses that port")
