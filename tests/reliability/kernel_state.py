"""Rows about kernel state that other programs or administrators change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.cluster.waiting import wait_for
from tests.node import foreign_sets
from tests.node.conntrack import fill_for_good

from .evidence import Evidence, LogLine, Metric, Problem
from .machine import add_service, remove_service
from .rig import WEB, Rig, is_served
from .row import Group, Limits

GROUP = Group("Kernel state")


class IptablesRig(Rig):
    """A node with iptables steering."""

    steering = "iptables"


class LocalRig(Rig):
    """A node with local steering."""

    steering = "local"


class NodePortRig(Rig):
    """A node whose Service also has a node port."""

    web = replace(
        WEB,
        more={"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]},
    )


class DualStackRig(Rig):
    """A node whose Service also has an IPv6 address."""

    web = replace(
        WEB,
        more={
            "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
        },
    )

    def prepare(self) -> None:
        ips = [str(self.pod(name).ip6) for name in ("one", "two")]
        label = {"kubernetes.io/service-name": WEB.name}
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": "web-6", "labels": label},
            "addressType": "IPv6",
            "ports": [{"port": WEB.target, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip]} for ip in ips],
        }
        self.agent.manifests.write_objects([slice_], name="six.yaml")


class DualStackIptablesRig(DualStackRig):
    """A dual-stack node with iptables steering."""

    steering = "iptables"


class DualStackLocalRig(DualStackRig):
    """A dual-stack node with local steering."""

    steering = "local"


RIGS: dict[str, type[Rig]] = {"nftables": Rig, "iptables": IptablesRig, "local": LocalRig}
DUAL_STACK_RIGS: dict[str, type[Rig]] = {
    "nftables": DualStackRig,
    "iptables": DualStackIptablesRig,
    "local": DualStackLocalRig,
}
Fault = Callable[[Rig], Iterator[None]]

FLUSHES = {
    "nftables": "nft flush ruleset",
    "iptables": "for t in filter nat mangle raw; do iptables-legacy -t $t -F; done",
    "local": "ip route flush table local proto 117; nft flush ruleset",
}
REMOVALS = {
    "nftables": "nft delete table inet userspace-proxy",
    "iptables": "iptables-legacy -t nat -F PREROUTING; iptables-legacy -t nat -F UPROXY-PRE; "
    "iptables-legacy -t nat -X UPROXY-PRE",
    "local": "nft delete table inet userspace-proxy/local",
}
# The proxy compares rules each second; on a busy machine, the repair takes another second.
REPAIRED = Limits(failed=0.5, other_failed=100, other_p99_ms=250, fault_s=2.0, back_s=2.0)
REPAIR: list[Evidence] = [
    Metric("steering_repairs"),
    LogLine("repaired steering rules that another program had changed"),
]
GAP = "until the repair, at most 2 s, new connections fail; open connections continue"


def runs(script: str) -> Fault:
    """Return a fault caused by a script on the node, which the proxy itself repairs."""

    def fault(rig: Rig) -> Iterator[None]:
        rig.testbed.shell(script)
        yield

    return fault


def damages(name: str, breaks: str, scripts: dict[str, str]) -> None:
    """Add a row for each steering mode's script."""
    for steering, script in scripts.items():
        add = GROUP.row(
            f"`{steering}`: {breaks}",
            REPAIRED,
            REPAIR,
            name=f"{name}-{steering}",
            rig=RIGS[steering],
            not_promised=GAP,
        )
        add(runs(script))


damages("flush", "another program flushes all rules of the node", FLUSHES)
damages("removal", "another program removes the proxy's table, or one of its chains", REMOVALS)


@GROUP.row(
    "`nftables`: another program flushes all rules ten times in three seconds",
    Limits(failed=1.0, other_failed=400, other_p99_ms=250, back_s=2.0),
    REPAIR,
    not_promised="between a flush and the repair new connections find no rule",
)
def flushes_again_and_again(rig: Rig) -> Iterator[None]:
    rig.testbed.shell(f"for i in 1 2 3 4 5 6 7 8 9 10; do {FLUSHES['nftables']}; sleep 0.3; done")
    yield


@GROUP.row(
    "`iptables`: another program inserts a rule before the proxy's that accepts everything",
    REPAIRED,
    REPAIR,
    rig=IptablesRig,
    not_promised=GAP,
)
def rule_before_ours_iptables(rig: Rig) -> Iterator[None]:
    rig.testbed.shell("iptables-legacy -t nat -I PREROUTING -j ACCEPT")
    yield
    rig.testbed.shell("iptables-legacy -t nat -D PREROUTING -j ACCEPT")


@GROUP.row(
    "`iptables`: rules appear in the tables of the other flavour of iptables, then disappear",
    Limits(),
    [],
    rig=IptablesRig,
)
def both_iptables(rig: Rig) -> Iterator[None]:
    nft = "iptables-nft -t nat"
    rig.testbed.shell(f"{nft} -N OTHER; {nft} -A PREROUTING -j OTHER; {nft} -A OTHER -j RETURN")
    yield
    rig.testbed.shell("nft delete table ip nat")


@GROUP.row(
    "`nftables`: another program adds a set that libnftables can't parse, and Services change",
    Limits(),
    [],
)
def foreign_set(rig: Rig) -> Iterator[None]:
    rig.testbed.node.run([sys.executable, foreign_sets.__file__])
    add_service(rig)
    yield
    remove_service(rig)
    rig.testbed.node.run([sys.executable, "-c", REMOVE_OTHER])


REMOVE_OTHER = (
    "from userspace_proxy.kernel.nf_tables.nft_table import NftTable; NftTable('other').remove()"
)


@GROUP.row(
    "the kernel's connection tracking table is full",
    Limits(failed=1.0, slowest_s=30, other_failed=10_000, other_p99_ms=30_000),
    [
        Metric("conntrack_full"),
        Problem("conntrack table is full"),
        LogLine("conntrack table is full"),
    ],
    not_promised="the kernel drops all new connections of the node; page and health ports answer",
)
def conntrack_full(rig: Rig) -> Iterator[None]:
    fill_for_good(rig.testbed)
    yield
    rig.testbed.shell("conntrack -F")


SWITCH_IPV6 = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo {} > $f; done"


def ipv6_off_and_on(rig: Rig) -> Iterator[None]:
    """Disable and enable IPv6; restore the addresses and routes that the kernel removed."""
    addresses = rig.testbed.shell("ip -6 -o address show scope global").splitlines()
    routes = rig.testbed.shell("ip -6 route show").splitlines()
    rig.testbed.shell(SWITCH_IPV6.format(1))
    yield
    rig.testbed.shell(SWITCH_IPV6.format(0))
    for line in addresses:
        _, link, _, address, *_ = line.split()
        rig.testbed.shell(f"ip -6 address replace {address} dev {link} nodad")
    for line in routes:
        if "proto kernel" not in line:
            rig.testbed.shell(f"ip -6 route replace {line}")


for _steering, _rig in DUAL_STACK_RIGS.items():
    GROUP.row(
        f"`{_steering}`: IPv6 is switched off on the node, then on; IPv4 clients",
        Limits(),
        [Problem("IPv6"), LogLine("IPv6")],
        name=f"ipv6-off-{_steering}",
        rig=_rig,
        not_promised="IPv6 clients are not served while the kernel has no IPv6",
    )(ipv6_off_and_on)


@GROUP.row(
    "the node gets an interface with an address and loses it; it serves node ports meanwhile",
    Limits(),
    [],
    rig=NodePortRig,
)
def node_address(rig: Rig) -> Iterator[None]:
    rig.testbed.shell(
        "ip link add late type veth peer name late-peer; "
        "ip address add 192.0.2.77/32 dev late; ip address add 192.0.2.78/32 dev late-peer; "
        "ip link set late up; ip link set late-peer up"
    )
    try:
        at_the_new_address = ("192.0.2.77", 30080)
        wait_for("the node port", lambda: is_served(rig, at_the_new_address), deadline_s=5.0)
        yield
    finally:
        rig.testbed.shell("ip link del late")
