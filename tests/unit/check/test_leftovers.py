import pytest

from userspace_proxy.check.leftovers import judge_kube_proxy, judge_own
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.steering.kernel_view import KernelView

NAT = ChainTable("ip", "nat")
LEGACY_NAT = ChainTable("ip", "nat", is_legacy=True)
LEGACY_FILTER = ChainTable("ip", "filter", is_legacy=True)


def table(name, *chains):
    return {name: {chain: Chain(name, chain) for chain in chains}}


LEGACY = KernelView(legacy_nat=table(LEGACY_NAT, "PREROUTING", "KUBE-SERVICES", "KUBE-SVC-A"))
IN_NFT = KernelView(nft=table(NAT, "KUBE-NODEPORTS"))
IPVS = KernelView(links=("lo", "kube-ipvs0"))


@pytest.mark.parametrize(
    ("kernel", "steering", "mark"),
    [
        pytest.param(LEGACY, "iptables", "warning", id="legacy-under-iptables"),
        pytest.param(LEGACY, "nftables", "warning", id="legacy-under-nftables"),
        pytest.param(LEGACY, "local", "error", id="legacy-under-local"),
        pytest.param(IN_NFT, "nftables", "warning", id="nft-under-nftables"),
        pytest.param(IN_NFT, "iptables", "error", id="nft-under-iptables"),
        pytest.param(IN_NFT, "local", "error", id="nft-under-local"),
        pytest.param(IPVS, "nftables", "warning", id="ipvs-under-nftables"),
        pytest.param(IPVS, "local", "error", id="ipvs-under-local"),
    ],
)
def test_effective_leftovers_are_errors_and_other_leftovers_are_warnings(kernel, steering, mark):
    (found,) = judge_kube_proxy(kernel, steering, is_beside=False)
    assert found.mark == mark
    assert "kube-proxy --cleanup" in found.hint


def test_chains_with_names_similar_to_kube_proxys_chains_are_ignored():
    kernel = KernelView(
        nft=table(NAT, "KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-KUBELET-CANARY")
        | table(ChainTable("inet", "mine"), "KUBE-SERVICES")
    )
    (found,) = judge_kube_proxy(kernel, "iptables", is_beside=False)
    assert found.what == "nothing left behind"


def test_unreadable_tables_are_not_reported_as_ok():
    assert judge_kube_proxy(KernelView(unread=("no right",)), "nftables", is_beside=False) == []


def test_rules_of_a_stopped_proxy_are_leftovers():
    kernel = KernelView(
        inet_tables=("userspace-proxy", "userspace-proxy-canary"),
        legacy_nat=table(LEGACY_NAT, "UPROXY-PRE-canary", "KUBE-SERVICES"),
        legacy_filter=table(LEGACY_FILTER, "UPROXY-GUARD-canary"),
    )
    assert [(f.what, f.where) for f in judge_own(kernel, [""])] == [
        (
            "rules of a userspace-proxy named canary that isn't running",
            "nftables table inet userspace-proxy-canary, table legacy ip nat, "
            "table legacy ip filter",
        )
    ]
    assert judge_own(kernel, ["", "canary"]) == []


def test_a_leftover_guard_table_is_reported():
    kernel = KernelView(inet_tables=("userspace-proxy/local",))
    assert [f.where for f in judge_own(kernel, [])] == ["nftables table inet userspace-proxy/local"]
    assert judge_own(kernel, [""]) == []


def test_each_stopped_proxy_with_chains_in_a_shared_table_is_reported():
    chains = ("PREROUTING", "UPROXY-PRE", "UPROXY-PRE-canary")
    kernel = KernelView(legacy_nat=table(LEGACY_NAT, *chains))
    unnamed, canary = judge_own(kernel, [])
    assert unnamed.what == "rules of a userspace-proxy that isn't running"
    assert canary.what == "rules of a userspace-proxy named canary that isn't running"
    assert [judge_own(kernel, [name]) for name in ("canary", "")] == [[unnamed], [canary]]
