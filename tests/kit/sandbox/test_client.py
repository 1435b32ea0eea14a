import argparse

import pytest

from userspace_proxy_testing.sandbox.client import explain, join, parse, plan, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10.96.0.1:80", ("10.96.0.1", 80), id="ipv4"),
        pytest.param("[fd00::1]:80", ("fd00::1", 80), id="ipv6"),
        pytest.param("web.shop:80", ("web.shop", 80), id="name"),
    ],
)
def test_joining_a_split_address_returns_the_address(text, expected):
    assert split(text) == expected
    assert join(expected) == text


@pytest.mark.parametrize("text", ["web", "web:", ":80", "web:0", "web:70000", "web:http"])
def test_an_invalid_address_is_quoted_in_the_error(text):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        split(text)


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["http", "https://a/"], id="tls"),
        pytest.param(["http", "http://a:99999/"], id="port-too-high"),
        pytest.param(["http", "http://a/", "--count", "0"], id="no-request"),
        pytest.param(["udp", "a:53"], id="no-text"),
        pytest.param([], id="no-command"),
    ],
)
def test_an_invalid_command_line_exits_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_client_messages_name_the_address_and_protocol():
    where, _ = plan(parse(["udp", "[fd00::1]:53", "question"]))
    assert where == "[fd00::1]:53/UDP"


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        pytest.param(TimeoutError("timed out"), "no answer after 5 s", id="the-clients-deadline"),
        pytest.param(TimeoutError(110, "Connection timed out"), "Connection timed out", id="SYNs"),
        pytest.param(
            ConnectionRefusedError(111, "Connection refused"), "Connection refused", id="RST"
        ),
    ],
)
def test_a_failed_dial_is_explained_by_the_kernels_message_or_the_deadline(exc, expected):
    assert explain(exc, 5.0) == expected
