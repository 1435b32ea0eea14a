import pytest

from userspace_proxy.check.kernel_view import KernelView
from userspace_proxy.check.leftovers import judge_kube_proxy, judge_own
from userspace_proxy.steering.others import Chain


def table(name, *chains):
    return {name: {chain: Chain(name, chain) for chain in chains}}


LEGACY = KernelView(legacy_nat=table("legacy ip nat", "PREROUTING", "KUBE-SERVICES", "KUBE-SVC-A"))
IN_NFT = KernelView(nft=table("ip nat", "KUBE-NODEPORTS"))
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
def test_leftovers_that_win_are_errors_and_others_warnings(kernel, steering, mark):
    (found,) = judge_kube_proxy(kernel, steering, is_beside=False)
    assert found.mark == mark
    assert "kube-proxy --cleanup" in found.way_out


def test_chains_that_only_look_like_kube_proxys_are_nobodys():
    kernel = KernelView(
        nft=table("ip nat", "KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-KUBELET-CANARY")
        | table("inet mine", "KUBE-SERVICES")
    )
    (found,) = judge_kube_proxy(kernel, "iptables", is_beside=False)
    assert found.what == "nothing left behind"


def test_what_could_not_be_read_is_not_called_well():
    assert judge_kube_proxy(KernelView(unread=("no right",)), "nftables", is_beside=False) == []


def test_rules_of_ours_are_left_behind_where_nobody_of_their_name_runs():
    kernel = KernelView(
        nft=table("inet userspace-proxy") | table("inet userspace-proxy-canary"),
        legacy_nat=table("legacy ip nat", "UPROXY-PRE-canary", "KUBE-SERVICES"),
    )
    assert [(f.what, f.where) for f in judge_own(kernel, [""])] == [
        (
            "rules of a userspace-proxy named canary that isn't running",
            "nftables table inet userspace-proxy-canary, table legacy ip nat",
        )
    ]
    assert judge_own(kernel, ["", "canary"]) == []


def test_the_fence_of_local_steering_is_a_leftover_too():
    kernel = KernelView(nft=table("inet userspace-proxy/local", "input"))
    assert [f.where for f in judge_own(kernel, [])] == ["nftables table inet userspace-proxy/local"]
    assert judge_own(kernel, [""]) == []
