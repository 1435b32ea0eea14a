"""Tests of PROXY protocol headers, with examples from the specification."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import ProxyProtocol, SocketAddress
from userspace_proxy.model.proxy_protocol import (
    HEADER_BYTES,
    Header,
    MalformedHeader,
    read_header,
    write_header,
)

V1, V2 = ProxyProtocol
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
CLIENT, FRONTEND = SocketAddress("192.0.2.1", 40000), SocketAddress("203.0.113.7", 80)
CLIENT6, FRONTEND6 = SocketAddress("2001:db8::1", 40000), SocketAddress("2001:db8::7", 443)
TEXT = b"PROXY TCP4 192.0.2.1 203.0.113.7 40000 80\r\n"
BINARY = SIGNATURE + bytes.fromhex("21 11 000c c0000201 cb007107 9c40 0050")


@pytest.mark.parametrize(
    ("version", "addresses", "header"),
    [
        (V1, (CLIENT, FRONTEND), TEXT),
        (V1, (CLIENT6, FRONTEND6), b"PROXY TCP6 2001:db8::1 2001:db8::7 40000 443\r\n"),
        (V1, (CLIENT, None), b"PROXY UNKNOWN\r\n"),
        (
            V2,
            (CLIENT, FRONTEND),
            SIGNATURE
            + bytes.fromhex("21 11 001c c0000201 cb007107 9c40 0050 e5 000d")
            + b"shop/web:http",
        ),
        (
            V2,
            (CLIENT6, FRONTEND6),
            SIGNATURE
            + bytes.fromhex("21 21 0034 20010db8000000000000000000000001")
            + bytes.fromhex("20010db8000000000000000000000007 9c40 01bb e5 000d")
            + b"shop/web:http",
        ),
        (V2, (CLIENT, None), SIGNATURE + bytes.fromhex("21 00 0010 e5 000d") + b"shop/web:http"),
    ],
)
def test_a_proxy_header_contains_both_addresses_if_both_are_known(version, addresses, header):
    assert write_header(version, *addresses, "shop/web:http") == header


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + bytes.fromhex("20 00 0000")])
def test_the_proxy_header_of_a_health_check_contains_no_client(header):
    assert read_header(header) == Header(len(header), None, None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(TEXT + b"GET /", Header(len(TEXT), CLIENT, FRONTEND), id="text"),
        pytest.param(BINARY + b"GET /", Header(28, CLIENT, FRONTEND), id="binary"),
        pytest.param(
            BINARY[:14] + bytes.fromhex("0013") + BINARY[16:] + b"\x04\0\4noopGET /",
            Header(35, CLIENT, FRONTEND),
            id="fields",
        ),
        pytest.param(
            b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", Header(43, None, None), id="unknown"
        ),
        pytest.param(
            SIGNATURE + bytes.fromhex("20 11 000c") + bytes(12), Header(28, None, None), id="local"
        ),
        pytest.param(
            SIGNATURE + bytes.fromhex("21 31 0000"), Header(16, None, None), id="unix-socket"
        ),
        pytest.param(SIGNATURE + bytes.fromhex("21 12 0000"), Header(16, None, None), id="UDP"),
    ],
)
def test_a_proxy_header_is_parsed_without_the_bytes_after_it(data, expected):
    assert read_header(data) == expected


@pytest.mark.parametrize("header", [TEXT, BINARY])
def test_every_prefix_of_a_proxy_header_counts_as_incomplete(header):
    assert [read_header(header[:count]) for count in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "it begins with other bytes"),
        (b"PROXYTCP4", "it begins with other bytes"),
        (b"\r\n\r\n\0\r\nQUIX", "it begins with other bytes"),
        (b"PROXY " + b"x" * 101, "no end of line within 107 bytes"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.7 40000\r\n", "its line has another form"),
        (b"PROXY TCP4  192.0.2.1 203.0.113.7 40000 80\r\n", "its line has another form"),
        (b"PROXY TCP5 192.0.2.1 203.0.113.7 40000 80\r\n", "its line has another form"),
        (b"PROXY UNKNOWNX\r\n", "its line has another form"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.7 -1 80\r\n", "its line has another form"),
        (b"PROXY TCP4 192.0.2.1 203.0.113.7 65536 80\r\n", "65536 is not a port"),
        (b"PROXY TCP4 192.0.2 203.0.113.7 1 80\r\n", "'192.0.2' is not an address of its family"),
        (b"PROXY TCP6 192.0.2.1 ::1 1 80\r\n", "'192.0.2.1' is not an address of its family"),
        (
            b"PROXY TCP4 1\0.2.3.4 1.2.3.4 1 80\r\n",
            "'1\\x00.2.3.4' is not an address of its family",
        ),
        (SIGNATURE + bytes.fromhex("11 11 000c"), "version and command are 0x11"),
        (SIGNATURE + bytes.fromhex("22 11 000c"), "version and command are 0x22"),
        (SIGNATURE + bytes.fromhex("21 41 000c"), "family and protocol are 0x41"),
        (SIGNATURE + bytes.fromhex("21 13 000c"), "family and protocol are 0x13"),
        (SIGNATURE + bytes.fromhex("21 11 000b"), "11 bytes are too few for its addresses"),
        (SIGNATURE + bytes.fromhex("21 21 000c"), "12 bytes are too few for its addresses"),
        (SIGNATURE + bytes.fromhex("21 11 0ff1"), "it has 4097 bytes, more than 4096"),
    ],
)
def test_a_malformed_proxy_header_is_rejected_with_the_reason(data, problem):
    with pytest.raises(MalformedHeader) as caught:
        read_header(data)
    assert str(caught.value) == problem


addresses = st.one_of(
    st.tuples(
        *[st.builds(SocketAddress, st.ip_addresses(v=4).map(str), st.integers(0, 65535))] * 2
    ),
    st.tuples(
        *[
            st.builds(
                SocketAddress,
                st.ip_addresses(v=6).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed)),
                st.integers(0, 65535),
            )
        ]
        * 2
    ),
)


@given(st.sampled_from(ProxyProtocol), addresses, st.binary(max_size=20))
def test_a_proxy_header_round_trips(version, addresses, rest):
    header = write_header(version, *addresses, "shop/web")
    assert read_header(header + rest) == Header(len(header), *addresses)
    assert len(header) <= HEADER_BYTES


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_complete_incomplete_or_malformed_header(data):
    for prefix in (b"", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"):
        try:
            header = read_header(prefix + data)
        except MalformedHeader:
            continue
        assert header is None or header.length <= len(prefix + data)
