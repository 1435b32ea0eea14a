import pytest

from userspace_proxy.hosts import is_loopback_address, is_loopback_host


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LOCALHOST:10249",
        "localhost.:80",
        "127.0.0.1",
        "127.0.0.1:10249",
        "127.9.8.7:1",
        "[::1]",
        "[::1]:10249",
        " localhost ",
    ],
)
def test_host_headers_of_loopback_are_accepted(header):
    assert is_loopback_host(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "10.0.0.1",
        "::1",
        "[::1",
        "[localhost]",
        "[fd00::1]:80",
        "localhost:80:80",
        "localhost:http",
        "user@localhost",
        "localhost/..",
    ],
)
def test_host_headers_other_than_loopback_are_rejected(header):
    assert not is_loopback_host(header)


def test_is_loopback_address_is_false_for_names_and_other_addresses():
    assert is_loopback_address("127.0.0.1")
    assert is_loopback_address("::1")
    assert not is_loopback_address("localhost")
    assert not is_loopback_address("0.0.0.0")
