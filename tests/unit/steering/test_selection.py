from __future__ import annotations

import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.offers import FOR_SOCKETS, LACKS_NOTHING, NEEDS, KernelOffers
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering import (
    EndpointChoice,
    KernelTarget,
    SteeringFacts,
    Target,
    make_steering,
    selection,
)
from userspace_proxy.steering.base import NoSteering
from userspace_proxy.steering.selection import Leftovers, remove_leftovers

FACTS = SteeringFacts(refuse_port=35999)
WITHOUT_NFTABLES = KernelOffers({"nf_tables": errno.EPROTONOSUPPORT})


@pytest.mark.parametrize("name", ["iptables", "nftables", "local", "none"])
def test_the_name_of_a_steering_mode_selects_its_class(name):
    assert make_steering(name, FACTS).name == name


def test_auto_chooses_local_in_the_proxys_own_namespace():
    steering = make_steering("auto", FACTS, own_namespace=True)
    assert steering.name == "local"


@pytest.mark.parametrize("name", ["iptables", "nftables", "local", "none"])
async def test_the_predicted_reasons_against_a_kernel_path_equal_the_steerings_reasons(node, name):
    node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=0")
    steering = make_steering(name, FACTS)
    await steering.start()
    try:
        assert selection.find_no_kernel_path(name, LACKS_NOTHING) == steering.no_kernel_path
    finally:
        await steering.clean_up()
        await steering.close()


NO_NFT = "cannot query nftables: Invalid argument"
NO_PIP = "python-iptables is missing"


@pytest.mark.parametrize(
    ("has_legacy", "iptables_lacks", "nftables_lacks", "expected"),
    [
        pytest.param(False, "", "", "nftables", id="both-supported"),
        pytest.param(True, "", "", "iptables", id="legacy-tables-in-use"),
        pytest.param(True, NO_PIP, "", "nftables", id="legacy-tables-but-no-python-iptables"),
        pytest.param(False, "", NO_NFT, "iptables", id="no-nftables"),
        pytest.param(
            False,
            NO_PIP,
            NO_NFT,
            "cannot choose a steering: nftables: cannot query nftables: Invalid argument; "
            "iptables: python-iptables is missing "
            "(only --steering=none works here)",
            id="nothing",
        ),
    ],
)
def test_auto_chooses_a_supported_steering_mode_and_prefers_the_tables_in_use(
    has_legacy, iptables_lacks, nftables_lacks, expected
):
    lacks = {"iptables": iptables_lacks, "nftables": nftables_lacks}
    try:
        hint = "only --steering=none works here"
        answer = selection.choose_by(lacks, has_legacy=has_legacy, hint=hint)
    except SteeringError as exc:
        answer = str(exc)
    assert answer == expected


def test_unknown_steering_modes_are_errors_with_a_remedy():
    with pytest.raises(SteeringError) as caught:
        make_steering("ipvs", FACTS)
    assert str(caught.value) == (
        "cannot steer by 'ipvs': no such steering (use auto, iptables, nftables, local or none)"
    )


def test_requirements_of_a_steering_mode_are_checked_before_startup(monkeypatch):
    selection.check_steering("nftables", LACKS_NOTHING, own_namespace=False)
    selection.check_steering("none", LACKS_NOTHING, own_namespace=False)
    monkeypatch.setattr(selection, "has_net_admin", lambda: False)
    with pytest.raises(SteeringError, match=r"cannot steer by iptables: .*NET_ADMIN is missing"):
        selection.check_steering("iptables", LACKS_NOTHING, own_namespace=False)


def test_a_kernel_without_nftables_aborts_startup_naming_an_alternative():
    for check in (selection.check_kernel, selection.check_steering):
        with pytest.raises(SteeringError) as caught:
            check("nftables", WITHOUT_NFTABLES, own_namespace=False)
        assert str(caught.value) == (
            "cannot steer by nftables: this kernel lacks nf_tables "
            "(modprobe nf_tables, CONFIG_NF_TABLES) (--steering=iptables works here)"
        )
    assert selection.choose("auto", WITHOUT_NFTABLES, own_namespace=False) == "iptables"
    selection.check_kernel("iptables", WITHOUT_NFTABLES, own_namespace=False)


@pytest.mark.parametrize("part", ["inet tables", "sets", "nat", "redirect", "ct", "reject"])
def test_a_missing_nftables_feature_makes_auto_choose_iptables(part):
    kernel = KernelOffers({part: errno.EOPNOTSUPP})
    assert selection.choose("auto", kernel, own_namespace=False) == "iptables"
    with pytest.raises(SteeringError, match=f"this kernel lacks {part}"):
        selection.check_kernel("nftables", kernel, own_namespace=False)


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_legacy_tables_of_either_family_are_in_use_once_read(node, program):
    assert not selection.has_legacy_tables()
    node.run(f"{program}-legacy -t nat -L -n")
    assert selection.has_legacy_tables()


def test_a_kernel_without_legacy_tables_suggests_nftables():
    kernel = KernelOffers({"legacy tables": errno.ENOPROTOOPT})
    assert selection.iptables_lacks(kernel).startswith("this kernel lacks legacy tables (modprobe ")
    with pytest.raises(SteeringError) as caught:
        selection.check_kernel("iptables", kernel, own_namespace=False)
    assert caught.value.hint == "--steering=nftables works here"
    assert selection.choose("auto", kernel, own_namespace=False) == "nftables"


def test_without_conntrack_netlink_only_local_steering_works():
    kernel = KernelOffers({"conntrack netlink": errno.EINVAL})
    with pytest.raises(SteeringError) as caught:
        selection.choose("auto", kernel, own_namespace=False)
    assert caught.value.hint == "--steering=local works here"
    selection.check_kernel("local", kernel, own_namespace=False)


def test_the_remedy_names_mode_none_if_no_other_mode_is_supported(monkeypatch):
    neither = KernelOffers(dict.fromkeys(("inet tables", "legacy tables"), errno.EOPNOTSUPP))
    assert selection.remedy("auto", neither) == "only --steering=none works here"
    assert selection.remedy("local", neither) == "only --steering=none works here"
    monkeypatch.setattr(selection, "has_net_admin", lambda: False)
    assert selection.remedy("auto", neither).startswith("run as root or grant NET_ADMIN")


def test_local_steering_requires_nftables_only_beside_other_daemons():
    selection.check_kernel("local", WITHOUT_NFTABLES, own_namespace=True)
    with pytest.raises(SteeringError, match="cannot steer by local: this kernel lacks nf_tables"):
        selection.check_kernel("local", WITHOUT_NFTABLES, own_namespace=False)


@pytest.mark.parametrize("steering", ["none", NoSteering(FACTS)], ids=["none", "callers-object"])
def test_steering_modes_without_rules_probe_only_sockets(steering, monkeypatch):
    tried = []

    def note(names=NEEDS):
        tried.extend(names)
        return LACKS_NOTHING

    monkeypatch.setattr(selection, "read_kernel_offers", note)
    selection.read_offers_for(steering)
    assert tried == list(FOR_SOCKETS)
    selection.read_offers_for("auto")
    assert tried == [*FOR_SOCKETS, *NEEDS]


WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
TO_ENDPOINT = KernelTarget(36001, (EndpointChoice((SocketAddress("10.244.1.2", 80),)),))
IN_FORCE = "nft list tables; ip route show table local proto 117; iptables-legacy-save -t nat"


async def leave(steering: str, proxy_name: str = "", target: Target = 36001) -> None:
    facts = SteeringFacts(refuse_port=35999, proxy_name=proxy_name)
    left = make_steering(steering, facts)
    await left.apply({WEB: target})
    await left.close()


@pytest.mark.parametrize("steering", ["iptables", "nftables", "local"])
async def test_leftovers_of_other_steering_modes_are_removed(node, steering):
    await leave(steering)
    assert await remove_leftovers(steering, "") == Leftovers((), ())
    chosen = "local" if steering == "nftables" else "nftables"
    assert await remove_leftovers(chosen, "") == Leftovers((steering,), ())
    left = node.run(IN_FORCE)
    assert "userspace-proxy" not in left
    assert "UPROXY" not in left
    assert "10.96.7.1" not in left


async def test_leftovers_of_another_proxy_are_kept(node):
    await leave("nftables", "canary")
    assert await remove_leftovers("local", "") == Leftovers((), ())
    assert "userspace-proxy-canary" in node.run("nft list tables")


async def test_a_leftover_kernel_path_table_without_proxy_ports_is_removed(node):
    await leave("nftables", target=TO_ENDPOINT)
    # The kernel path's table was written first, so it exists without the table of proxy ports.
    node.run("nft delete table inet userspace-proxy")
    assert "userspace-proxy/paths" in node.run(IN_FORCE)
    assert await remove_leftovers("local", "") == Leftovers(("nftables",), ())
    assert "userspace-proxy" not in node.run(IN_FORCE)
