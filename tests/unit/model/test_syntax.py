from __future__ import annotations

import pytest

from userspace_proxy.model.syntax import (
    check_address,
    check_common_address,
    check_family,
    check_label,
    check_label_value,
    check_port_name,
    check_protocol,
    check_qualified_name,
    check_subdomain,
    check_target_port,
)
from userspace_proxy.model.wire import FieldError


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_label, ["a", "a-b", "0", "a" * 63], ["", "A", "a.b", "-a", "a" * 64]),
        (check_subdomain, ["a.b", "a" * 253], ["", "a..b", "a_b", "a\n"]),
        (check_label_value, ["", "A_b.c-1"], ["-a", "a b", "a" * 64]),
    ],
)
def test_dns_names_are_checked_as_the_api_server_checks_them(check, good, bad):
    for text in good:
        check(text, "x")
    for text in bad:
        with pytest.raises(FieldError, match=r"^x: .* is not a "):
            check(text, "x")


def test_only_a_single_port_may_be_unnamed_and_names_must_be_unique():
    names: set[str] = set()
    check_port_name(None, 1, names, "x")
    check_port_name("http", 2, names, "x")
    assert names == {"http"}
    for name, problem in (
        ("http", "is already the name of another port"),
        (None, "is missing: one of several ports needs a name"),
        ("HTTP", "HTTP"),
    ):
        with pytest.raises(FieldError, match=problem):
            check_port_name(name, 2, names, "x")


def test_protocols_must_be_upper_case():
    for protocol in (None, "", "TCP", "UDP", "SCTP"):
        check_protocol(protocol, "x")
    with pytest.raises(FieldError, match=r"^x: 'udp' is not one of TCP, UDP, SCTP$"):
        check_protocol("udp", "x")


@pytest.mark.parametrize(
    ("ip", "kind"),
    [
        pytest.param("0.0.0.0", "unspecified", id="unspecified"),
        pytest.param("::", "unspecified", id="unspecified-v6"),
        pytest.param("127.8.8.8", "a loopback address", id="loopback"),
        pytest.param("::1", "a loopback address", id="loopback-v6"),
        pytest.param("169.254.169.254", "link-local", id="metadata-server"),
        pytest.param("fe80::1", "link-local", id="link-local-v6"),
        pytest.param("224.0.0.251", "link-local multicast", id="mdns"),
        pytest.param("ff02::fb", "link-local multicast", id="mdns-v6"),
        pytest.param("ff12::fb", "link-local multicast", id="transient-v6"),
    ],
)
def test_addresses_reaching_no_other_machine_are_rejected(ip, kind):
    assert check_address(ip, "x") == ip
    with pytest.raises(FieldError) as caught:
        check_common_address(ip, "x")
    assert caught.value.problem.startswith(f"{ip} is {kind}: ")


@pytest.mark.parametrize("ip", ["192.0.2.1", "239.1.1.1", "ff05::1", "2001:db8::1", "10.0.0.1"])
def test_addresses_accepted_by_the_api_server_are_accepted(ip):
    assert check_common_address(ip, "x") == ip


def test_addresses_must_be_canonical_and_of_the_given_family():
    assert check_address("2001:DB8::0001", "x") == "2001:db8::1"
    for text in (None, "", "10.0.0.01", "::ffff:10.0.0.1"):
        with pytest.raises(FieldError):
            check_address(text, "x")
    check_family("fd00::1", "IPv6", "x")
    with pytest.raises(FieldError, match=r"^x: 10\.0\.0\.1 is not IPv6$"):
        check_family("10.0.0.1", "IPv6", "x")


@pytest.mark.parametrize("name", ["a", "A.b_c-d", "a.b/c", "a" * 63])
def test_qualified_names_are_accepted(name):
    check_qualified_name(name, "metadata.labels")


@pytest.mark.parametrize("name", ["", "-a", "a b", "A/b", "/a", "a.b/", "a/b/c", "a" * 64])
def test_invalid_qualified_names_are_rejected(name):
    with pytest.raises(FieldError, match=r"metadata.labels: "):
        check_qualified_name(name, "metadata.labels")


@pytest.mark.parametrize("port", [0, 1, 65535, "", "web", "web-1", "a1", "a" * 15])
def test_valid_target_ports_are_accepted(port):
    check_target_port(port, "p")


@pytest.mark.parametrize(
    ("port", "end"),
    [
        (65536, "in 1–65535"),
        (-1, "in 1–65535"),
        ("80", ": write 80 without quotes"),
        ("a--b", "at most 15"),
        ("a" * 16, "at most 15"),
    ],
)
def test_invalid_target_ports_are_rejected_with_the_reason(port, end):
    with pytest.raises(FieldError, match=f"^p: {port!r} is not .*{end}$"):
        check_target_port(port, "p")
