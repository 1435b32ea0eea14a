import pytest

from userspace_proxy.config.values import (
    InheritedSocket,
    PortRange,
    parse_bool,
    parse_cidr,
    parse_listen_address,
    parse_port,
    parse_port_range,
)
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "t", "T", "true", "TRUE", "True")),
        *((text, False) for text in ("0", "f", "F", "false", "FALSE", "False")),
    ],
)
def test_a_boolean_accepts_the_twelve_spellings_of_go(text, value):
    assert parse_bool(text) is value


@pytest.mark.parametrize("text", ["", "yes", "on", "2", "tRUE", " true"])
def test_other_spellings_are_rejected_as_booleans(text):
    with pytest.raises(ConfigError, match="is not true or false"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("0.0.0.0", SocketAddress("0.0.0.0", 10256), id="address-alone"),
        pytest.param("10.0.0.1:80", SocketAddress("10.0.0.1", 80), id="address-and-port"),
        pytest.param(":8080", SocketAddress("0.0.0.0", 8080), id="port-alone"),
        pytest.param("127.0.0.1:0", SocketAddress("127.0.0.1", 0), id="any-free-port"),
        pytest.param("::", SocketAddress("::", 10256), id="ipv6-alone"),
        pytest.param("fd00::1", SocketAddress("fd00::1", 10256), id="ipv6-that-looks-like-port"),
        pytest.param("[::]:80", SocketAddress("::", 80), id="ipv6-and-port"),
        pytest.param("[fd00:0::1]", SocketAddress("fd00::1", 10256), id="ipv6-in-brackets"),
        pytest.param("fd://3", InheritedSocket(3), id="inherited"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_listen_address_is_parsed(text, address):
    assert parse_listen_address(text, 10256) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:80", "'localhost' is not an IP address"),
        ("10.0.0.1:http", "'http' is not a port"),
        ("10.0.0.1:65536", "65536 is not in 0–65535"),
        ("10.0.0.1:", "'' is not a port"),
        ("10.0.0:80", "'10.0.0' is not an IP address"),
        ("fd://x", "'fd://x' is not a file descriptor (write fd://3)"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone; write the address alone"),
    ],
)
def test_an_invalid_listen_address_is_rejected(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_listen_address(text, 10256)
    assert str(caught.value) == message


def test_port_zero_is_a_valid_port():
    assert parse_port("0") == 0


@pytest.mark.parametrize(
    ("text", "cidr"),
    [
        ("10.244.0.0/16", "10.244.0.0/16"),
        ("10.244.3.7/16", "10.244.0.0/16"),
        ("FD00::/48", "fd00::/48"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_is_canonicalized(text, cidr):
    assert parse_cidr(text) == cidr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "10.244.0.0",
            "'10.244.0.0' has no prefix length (write 10.244.0.0/32 for a single address)",
        ),
        ("10.244.0.0/33", "'10.244.0.0/33' is not a CIDR"),
        ("pods/16", "'pods' is not an IP address"),
        ("fd00::", "'fd00::' has no prefix length (write fd00::/128 for a single address)"),
    ],
)
def test_an_invalid_network_is_rejected(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_cidr(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("17000-29999", PortRange(17000, 29999)),
        ("17000+999", PortRange(17000, 17999)),
        ("20000", PortRange(20000, 20000)),
        ("20000+0", PortRange(20000, 20000)),
        (" 1-65535 ", PortRange(1, 65535)),
        ("", None),
        ("0", None),
        ("0-0", None),
    ],
)
def test_a_port_range_is_parsed_as_kube_proxy_parses_ranges(text, ports):
    assert parse_port_range(text) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("300-200", "'300-200' ends before it begins"),
        ("60000-70000", "'60000-70000' is not within 1–65535"),
        ("60000+9999", "'60000+9999' is not within 1–65535"),
        ("0-100", "'0-100' is not within 1–65535"),
        ("a-b", "'a-b' is not a port range (write 17000-29999 or 17000+999)"),
        ("1-2-3", "'1-2-3' is not a port range (write 17000-29999 or 17000+999)"),
    ],
)
def test_an_invalid_port_range_is_rejected(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_port_range(text)
    assert str(caught.value) == message
