from __future__ import annotations

import os

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.interfaces import (
    InterfaceView,
    PreroutingAddress,
    choose_address,
    list_interfaces,
    not_forwarding,
    without_ipv6,
)
from userspace_proxy.model import Frontend, IPFamily, Protocol

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
# Passed as ``is_there``, bool is true for every address.
ALL_THERE = bool
VIEW = InterfaceView(addresses=("192.0.2.10", "198.51.100.20"))


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [
        pytest.param(("198.51.100.20", "192.0.2.10"), "198.51.100.20", id="first-preferred"),
        pytest.param(("203.0.113.1", "198.51.100.20"), "198.51.100.20", id="unassigned-is-skipped"),
    ],
)
def test_the_nodes_own_address_is_preferred_if_assigned_to_an_interface(preferred, expected):
    assert choose_address(preferred, VIEW, ALL_THERE) == expected


def test_without_a_preferred_address_an_interface_address_is_chosen():
    assert choose_address((), VIEW, ALL_THERE) in VIEW.addresses


def test_an_address_that_was_just_removed_is_skipped():
    preferred = "192.0.2.10", "198.51.100.20"
    assert choose_address(preferred, VIEW, "192.0.2.10".__ne__) == "198.51.100.20"


def test_choose_address_returns_an_empty_string_without_addresses():
    assert choose_address(("192.0.2.10",), InterfaceView(), ALL_THERE) == ""


@pytest.mark.parametrize(
    ("switched_off", "expected"),
    [
        pytest.param({"all": "0", "lo": "0"}, [], id="on"),
        pytest.param({"all": "1", "lo": "1", "eth0": "0"}, [], id="on-at-one"),
        pytest.param({"all": "1", "lo": "1", "eth0": "1"}, [WEB_6], id="off"),
        pytest.param({}, [WEB_6], id="not-built-in"),
        pytest.param({"all": ""}, [], id="unreadable"),
    ],
)
def test_ipv6_frontends_are_unsteered_if_no_interface_has_ipv6(tmp_path, switched_off, expected):
    for name, value in switched_off.items():
        (tmp_path / name).mkdir()
        setting = tmp_path / name / "disable_ipv6"
        setting.write_text(f"{value}\n") if value else setting.mkdir()
    conf = tmp_path if switched_off else tmp_path / "ipv6"
    found = without_ipv6([WEB, WEB_6], conf)
    assert {f: (one.what, one.hint) for f, one in found.items()} == dict.fromkeys(
        expected,
        (
            "cannot steer [fd00:96::1]:80/TCP: IPv6 is switched off on this node",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0",
        ),
    )


def test_a_family_without_ip_forwarding_is_reported_with_its_sysctl(tmp_path):
    assert not_forwarding(tmp_path) == {}
    for name, value in {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "0"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert not_forwarding(tmp_path) == {IPFamily.IPV6: "net.ipv6.conf.all.forwarding is 0"}


def test_interfaces_that_are_up_need_an_address_unless_they_are_ports_of_a_bridge(node):
    node.run(
        "ip link set lo up; ip address add 10.1.0.1/32 dev lo; ip link add br0 type bridge;"
        "ip link set br0 up; ip address add 169.254.1.1/32 dev br0 scope link;"
        "ip link add v0 type veth peer v1; ip link set v0 up master br0;"
        "ip link add w0 type veth peer w1; ip link set w0 up"
    )
    view = list_interfaces()
    assert (view.unnumbered, view.addresses) == (("w0",), ("10.1.0.1",))


def test_a_failure_to_open_the_second_socket_leaks_no_descriptor(node):
    # The traceback's frames keep open descriptors alive.
    with descriptors_left(1), pytest.raises(SteeringError) as _kept:
        PreroutingAddress(())
    with descriptors_left(1):
        os.close(os.dup(0))


@pytest.mark.parametrize(
    ("before", "now", "families"),
    [
        ("10.1.0.1/32", "del 10.1.0.1/32", {IPFamily.IPV4}),
        ("fd00::1/128", "del fd00::1/128", {IPFamily.IPV6}),
        ("10.1.0.1/32", "add 10.1.0.2/32 dev lo; ip address del 10.1.0.2/32", {IPFamily.IPV4}),
        ("fe80::1/128", "del fe80::1/128", set()),
        ("10.1.0.1/32", "add 10.1.0.2/32", set()),
    ],
)
def test_the_family_of_a_removed_address_is_reported_once_unless_it_is_link_local(
    node, before, now, families
):
    node.run(f"ip link set lo up; ip address add {before} dev lo")
    address = PreroutingAddress(())
    assert (address.choose(""), address.take_lost()) == ("", set())
    node.run(f"ip address {now} dev lo")
    assert address.has_changed()
    assert (address.choose(""), address.take_lost()) == ("", families)
    assert (address.has_changed(), address.take_lost()) == (False, set())
    address.close()


def test_addresses_of_both_families_count_as_lost_after_lost_events(node):
    node.run("ip link set lo up")
    address = PreroutingAddress(())
    assert (address.choose(""), address.take_lost()) == ("", set())
    # Without lost events, the loss of link-local addresses isn't reported, as tested above.
    node.run(
        "for word in add del; do for n in $(seq 1000); do "
        "echo address $word fe80::$n/128 dev lo; done; done | ip -batch -"
    )
    assert address.has_changed()
    assert address.take_lost() == {*IPFamily}
    address.close()


def test_a_lack_of_descriptors_does_not_make_the_chosen_address_count_as_removed(node):
    node.run("ip link set lo up; ip address add 10.1.0.1/32 dev lo")
    node.run("ip link add v0 type veth; ip link set v0 up")
    address = PreroutingAddress(())
    assert address.choose("10.1.0.1") == "10.1.0.1"
    node.run("ip address add 10.1.0.2/32 dev lo")
    with descriptors_left(0), pytest.raises(SteeringError, match="Too many open files"):
        address.choose("10.1.0.1")
    assert address.has_changed()
    node.run("ip address add 10.3.0.1/32 dev v0")
    assert address.choose("10.1.0.1") == "10.1.0.1"
    assert not address.has_changed()
    address.close()
    with pytest.raises(SteeringError, match="cannot watch interfaces"):
        address.choose("10.1.0.1")
