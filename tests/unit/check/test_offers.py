import errno
from dataclasses import replace

import pytest

from userspace_proxy.check.offers import (
    Offers,
    judge_offers,
    judge_path,
    judge_place,
    look_at_hooks,
)
from userspace_proxy.kernel.offers import LACKS_NOTHING, SOCKET_MATCH, KernelOffers
from userspace_proxy.steering.socket_lb import HookOptions, HookPlace
from userspace_proxy.steering.socket_lb.other_hooks import OtherHook

ALL = ("NET_ADMIN", "NET_RAW")


def lines(offers, wanted, taken, *, own_namespace=False):
    found = judge_offers(offers, wanted, taken, own_namespace=own_namespace)
    return [f"{f.mark} {f.topic}: {f.what}" for f in found]


@pytest.mark.parametrize(
    ("offers", "taken", "own_namespace", "why"),
    [
        (
            Offers(ALL),
            "nftables",
            False,
            "no legacy tables are in use here, and the kernel has nftables",
        ),
        (
            Offers(ALL, legacy_tables=("nat", "filter")),
            "iptables",
            False,
            "this node uses legacy tables already (nat, filter)",
        ),
        (
            Offers(ALL, legacy_tables=("nat",), lacks={"iptables": "python-iptables is missing"}),
            "nftables",
            False,
            "legacy tables are in use, but iptables can't be used (python-iptables is missing)",
        ),
        (
            Offers(ALL, lacks={"nftables": "cannot query nftables"}),
            "iptables",
            False,
            "nftables can't be used (cannot query nftables)",
        ),
        (Offers(ALL), "local", True, "this network namespace was created for the proxy"),
    ],
)
def test_the_steering_mode_that_auto_chooses_is_explained(offers, taken, own_namespace, why):
    last = lines(offers, "auto", taken, own_namespace=own_namespace)[-1]
    assert last == f"ok steering: auto chooses {taken}: {why}"


@pytest.mark.parametrize(
    ("part", "taken", "module"),
    [
        pytest.param("socket", "nftables", "nft_socket", id="nftables"),
        pytest.param("socket", "local", "nft_socket", id="local"),
        pytest.param(SOCKET_MATCH, "iptables", "xt_socket", id="iptables"),
    ],
)
def test_a_kernel_without_socket_lookup_is_reported(part, taken, module):
    kernel = KernelOffers({part: errno.ENOENT})
    found = lines(Offers(ALL, kernel), taken, taken)
    begin = f"warning steering: the kernel has no {module}: "
    assert [line.startswith(begin) for line in found].count(True) == 1
    without = Offers(ALL, kernel, {"nftables": "gone", "iptables": "gone"})
    assert not any(line.startswith(begin) for line in lines(without, taken, taken))


def test_missing_local_steering_is_an_error_unless_the_proxy_owns_the_namespace():
    works = {"instead": "nftables", "remedy": "--steering=nftables works here"}
    offers = Offers(ALL, lacks={"local": "it needs nftables"}, **works)
    *_, found = judge_offers(offers, "local", "local", own_namespace=False)
    assert str(found) == (
        "error    steering: local can't work here: it needs nftables -> "
        "modprobe nf_tables; run as root; or --steering=none; or --steering=nftables works here"
    )
    assert lines(offers, "local", "local", own_namespace=True)[-1] == (
        "ok steering: local, as set by --steering"
    )


def test_if_no_steering_mode_works_the_error_contains_all_reasons():
    offers = Offers((), lacks={"nftables": "no library", "iptables": "NET_ADMIN is missing"})
    assert lines(offers, "auto", "")[-1] == (
        "error steering: auto finds no working steering: nftables: no library; iptables: "
        "NET_ADMIN is missing"
    )


def test_user_namespaces_are_checked_without_privileges():
    allowed = lines(Offers(sysctls={"user.max_user_namespaces": "9"}), "nftables", "nftables")
    assert allowed[:2] == [
        "error privileges: NET_ADMIN and NET_RAW missing: rules and routes can't be read or "
        "changed",
        "ok privileges: user namespaces are allowed: demo and sandbox work without root",
    ]
    forbidden = Offers(("NET_ADMIN",), sysctls={"user.max_user_namespaces": "0"})
    found = judge_offers(forbidden, "nftables", "nftables", own_namespace=False)[1]
    assert (found.what, found.hint) == (
        "user.max_user_namespaces forbids user namespaces, so demo and sandbox also need root",
        "sysctl -w user.max_user_namespaces=15000",
    )


def test_steering_mode_none_requires_no_kernel_feature():
    assert lines(Offers(), "none", "none") == [
        "ok steering: none: clients dial loopback addresses, no privilege is needed"
    ]


@pytest.mark.parametrize("path", ["kernel", "auto"])
@pytest.mark.parametrize("taken", ["iptables", "local", "none"])
def test_a_path_unsupported_by_the_steering_mode_is_a_warning(path, taken):
    (found,) = judge_path(path, taken)
    assert str(found) == (
        f"warning  path: --path={path} has no effect: steering {taken} has no kernel path, so the "
        "proxy carries all Services -> --steering=nftables, or --path=userspace"
    )
    assert judge_path("userspace", taken) == []


def test_the_path_is_not_checked_with_nftables_or_without_steering():
    assert judge_path("kernel", "nftables") == judge_path("kernel", "") == []


def test_a_missing_kernel_feature_is_named_with_its_alternative():
    offers = Offers(ALL, KernelOffers({"numgen": errno.ENOENT}))
    *_, found = judge_offers(offers, "nftables", "nftables", own_namespace=False)
    assert str(found) == (
        "ok       kernel: it lacks numgen, needed for the kernel path; instead: the proxy -> "
        "modprobe nft_numgen"
    )


def test_the_remedy_names_another_steering_mode_only_if_that_mode_works():
    works = {"instead": "nftables", "remedy": "--steering=nftables works here"}
    offers = Offers(ALL, lacks={"iptables": "python-iptables is missing"}, **works)
    *_, found = judge_offers(offers, "iptables", "iptables", own_namespace=False)
    assert found.hint.endswith("; or --steering=nftables works here")
    of_kernel = replace(
        offers, lacks={"iptables": "this kernel lacks legacy tables"}, is_in_kernel=True
    )
    *_, found = judge_offers(of_kernel, "iptables", "iptables", own_namespace=False)
    assert found.hint == "--steering=nftables works here"
    neither = Offers(ALL, lacks={"iptables": "no", "nftables": "no"})
    *_, found = judge_offers(neither, "iptables", "iptables", own_namespace=False)
    assert "works here" not in found.hint


def test_missing_socket_features_are_named_without_steering():
    kernel = KernelOffers({"IPv6": errno.EAFNOSUPPORT})
    assert lines(Offers(kernel=kernel), "none", "none")[1:] == [
        "ok kernel: it lacks IPv6, needed for Services of IPv6; instead: IPv4"
    ]


UNKNOWN = OtherHook("another program", "mine, id 6", "bpftool prog show id 6")
MARKS = {"required": "error", "auto": "warning"}


def hooks(value):
    return HookOptions(is_required=value == "required")


def test_disabled_hooks_have_no_findings():
    assert look_at_hooks(None, "nftables", LACKS_NOTHING) == []


@pytest.mark.parametrize(("value", "mark"), MARKS.items())
@pytest.mark.parametrize("taken", ["iptables", ""])
def test_hooks_are_reported_as_unsupported_in_other_steering_modes(value, mark, taken):
    (found,) = look_at_hooks(hooks(value), taken, LACKS_NOTHING)
    assert found.mark == mark
    assert found.what.startswith(f"--socket-lb={value} has no effect: steering ")


@pytest.mark.parametrize(("value", "mark"), MARKS.items())
def test_a_missing_attach_point_is_an_error_only_if_hooks_are_required(value, mark):
    (found,) = look_at_hooks(hooks(value), "nftables", KernelOffers({"connect hooks": 22}))
    assert found.mark == mark
    assert found.what.startswith("cannot translate connect(): this kernel lacks connect hooks")
    assert found.hint


def test_a_usable_attach_point_is_ok_and_other_programs_on_it_are_warnings(tmp_path):
    place = HookPlace(tmp_path, tmp_path, [UNKNOWN])
    assert [(f.mark, f.where) for f in judge_place(place)] == [
        ("warning", "mine, id 6"),
        ("ok", str(tmp_path)),
    ]


def test_a_cgroup_other_than_the_root_is_a_warning(tmp_path):
    (tmp_path / "cgroup.events").touch()
    (found,) = judge_place(HookPlace(tmp_path, tmp_path, []))
    assert (found.mark, found.what.partition(":")[0]) == (
        "warning",
        "this isn't the root of cgroup v2",
    )
