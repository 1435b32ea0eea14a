import socket

import pytest

from userspace_proxy.kernel import classic_bpf as bpf
from userspace_proxy.kernel.classic_bpf import SO_ATTACH_FILTER

LOOPBACK = 0x7F000001
LOAD_SOURCE = (bpf.LOAD_WORD, 0, 0, bpf.NETWORK_HEADER + bpf.SOURCE_OFFSETS[4][0])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param(LOOPBACK, b"hello", id="passed"),
        pytest.param(LOOPBACK + 1, None, id="dropped"),
    ],
)
def test_a_packet_arrives_only_if_the_filter_passes_it(address, expected):
    program = [
        LOAD_SOURCE,
        (bpf.JUMP_IF_EQUAL, 0, 1, address),
        (bpf.RETURN, 0, 0, 0xFFFFFFFF),
        (bpf.RETURN, 0, 0, 0),
    ]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as says,
    ):
        hears.bind(("127.0.0.1", 0))
        hears.setblocking(False)
        bpf.attach(hears, SO_ATTACH_FILTER, program)
        says.sendto(b"hello", hears.getsockname())
        try:
            heard = hears.recv(100)
        except BlockingIOError:
            heard = None
        assert heard == expected


def test_a_filter_without_a_return_is_rejected():
    with socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
        bpf.attach(sock, SO_ATTACH_FILTER, [LOAD_SOURCE])


@pytest.mark.parametrize(("family", "version"), [(socket.AF_INET, 4), (socket.AF_INET6, 6)])
def test_version_of_returns_the_ip_version_of_an_address_family(family, version):
    assert bpf.version_of(family) == version
