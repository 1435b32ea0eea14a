"""Which addresses count, from netlink's bytes; how they are followed is in tests/node."""

import asyncio
import ipaddress
import socket
import struct

import pytest

from userspace_proxy.agent import node_addresses
from userspace_proxy.agent.node_addresses import NodeAddresses, read_addresses
from userspace_proxy.errors import SteeringError

TENTATIVE, OPTIMISTIC, DAD_FAILED, PERMANENT = 0x40, 0x04, 0x08, 0x80
DONE, ERROR, NEWADDR, NEWLINK = 3, 2, 20, 16
INTERRUPTED = 0x10


def attribute(kind, value):
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def address(*, local=None, peer=None, flags=PERMANENT, wide=True):
    """Return the body of an RTM_NEWADDR."""
    packed = [ipaddress.ip_address(ip).packed if ip else None for ip in (peer, local)]
    family = socket.AF_INET6 if len(packed[0] or packed[1]) == 16 else socket.AF_INET
    body = struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, 1)
    body += b"".join(attribute(kind, ip) for kind, ip in zip((1, 2), packed, strict=True) if ip)
    return body + (
        attribute(3, b"eth0\0") + attribute(8, struct.pack("=I", flags)) if wide else b""
    )


class Kernel:
    """A netlink socket whose answers are given; each recv gets one piece."""

    def __init__(self, *dumps):
        self._dumps = list(dumps)
        self._pieces = []

    def send(self, request):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", request)
        assert (length, kind) == (len(request), 22)
        self._pieces = [
            b"".join(self._message(*one, sequence) for one in piece) for piece in self._dumps.pop(0)
        ]

    def recv(self, _size):
        if not self._pieces:
            raise TimeoutError("timed out")
        return self._pieces.pop(0)

    @staticmethod
    def _message(kind, body, flags, sequence):
        return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def listed(*bodies):
    """Return what the kernel answers to one request, each address in a piece of its own."""
    return [*([(NEWADDR, body, 2)] for body in bodies), [(DONE, bytes(4), 2)]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(address(local="10.1.0.1", peer="10.1.0.1"), ("10.1.0.1",), id="ipv4"),
        pytest.param(address(local="10.1.0.1", peer="10.1.0.2"), ("10.1.0.1",), id="with-a-peer"),
        pytest.param(address(peer="fd00:1::1"), ("fd00:1::1",), id="ipv6"),
        pytest.param(
            address(local="fd00:1::1", peer="fd00:1::2"), ("fd00:1::1",), id="ipv6-with-a-peer"
        ),
        pytest.param(address(peer="127.0.0.1"), ("127.0.0.1",), id="loopback"),
        pytest.param(address(peer="::1", wide=False), ("::1",), id="without-long-flags"),
        pytest.param(address(peer="fe80::1"), (), id="link-local"),
        pytest.param(address(peer="169.254.20.10"), ("169.254.20.10",), id="ipv4-link-local"),
        pytest.param(address(peer="fd00::1", flags=TENTATIVE), (), id="not-answering-yet"),
        pytest.param(
            address(peer="fd00::1", flags=TENTATIVE | OPTIMISTIC), ("fd00::1",), id="optimistic"
        ),
        pytest.param(address(peer="fd00::1", flags=DAD_FAILED), (), id="duplicate"),
        pytest.param(address(peer="fd00::1", flags=0x280), ("fd00::1",), id="nodad-flags"),
    ],
)
def test_which_addresses_count(body, expected):
    assert read_addresses(Kernel(listed(body))) == expected


def test_addresses_are_sorted_and_come_once():
    dump = listed(address(peer="10.2.0.1"), address(peer="10.1.0.1"), address(peer="10.2.0.1"))
    assert read_addresses(Kernel(dump)) == ("10.1.0.1", "10.2.0.1")


def test_a_listing_that_was_disturbed_is_begun_anew():
    disturbed = [[(NEWADDR, address(peer="10.9.0.1"), 2 | INTERRUPTED), (DONE, bytes(4), 2)]]
    assert read_addresses(Kernel(disturbed, listed(address(peer="10.1.0.1")))) == ("10.1.0.1",)


def test_a_listing_that_is_always_disturbed_is_an_error():
    disturbed = [[(DONE, bytes(4), INTERRUPTED)]]
    with pytest.raises(OSError, match="changed during each"):
        read_addresses(Kernel(*[disturbed] * 10))


def test_the_kernels_refusal_is_an_error():
    with pytest.raises(PermissionError):
        read_addresses(Kernel([[(ERROR, struct.pack("=i", -1), 0)]]))


def test_a_silent_kernel_is_an_error():
    with pytest.raises(TimeoutError):
        read_addresses(Kernel([]))


def test_other_messages_and_broken_lengths_are_passed_by():
    nothing = struct.pack("=BBBBI", 2, 24, 0, 0, 1)
    odd = [(NEWLINK, b"", 2), (NEWADDR, nothing + bytes(4), 2), (NEWADDR, nothing, 2)]
    assert read_addresses(Kernel([odd, *listed()])) == ()


async def test_this_machine_has_a_loopback_address():
    addresses = NodeAddresses(asyncio.get_running_loop(), lambda: None)
    addresses.close()
    addresses.close()
    assert "127.0.0.1" in addresses.current


async def test_a_kernel_that_lists_nothing_is_told(monkeypatch):
    monkeypatch.setattr(node_addresses, "_NETLINK_ROUTE", 99)
    with pytest.raises(SteeringError, match="cannot list this node's addresses"):
        NodeAddresses(asyncio.get_running_loop(), lambda: None)
