from __future__ import annotations

import struct

import pytest

from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.socket_lb import socket_maps
from userspace_proxy.steering.socket_lb.socket_maps import (
    DialCounts,
    DialSettings,
    Ejection,
    EjectionScope,
    EventKind,
    FrontendValue,
    Result,
    RingEvent,
    SlotValue,
)

Value = FrontendValue | SlotValue | DialCounts | EjectionScope | Ejection | DialSettings
IPV4, IPV6 = SocketAddress("10.0.0.1", 80), SocketAddress("fd00::1", 443)
RAW_IPV4 = bytes(8) + b"\n\0\0\1\0\0\0\0" + b"\0\x50" + bytes(6)
RAW_IPV6 = b"\xfd" + bytes(14) + b"\1" + b"\1\xbb" + bytes(6)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        pytest.param(IPV4, b"\n\0\0\1\0\x50\0\0", id="ipv4"),
        pytest.param(IPV6, RAW_IPV6, id="ipv6"),
    ],
)
def test_a_frontend_key_is_its_address_and_port_in_network_order(
    address: SocketAddress, key: bytes
) -> None:
    assert socket_maps.frontend_key(address) == key
    assert socket_maps.frontend_of(key) == address


def test_a_slot_key_contains_the_service_and_an_index_or_endpoint() -> None:
    assert socket_maps.slot_key(2, 3) == struct.pack("=II", 3, 2)
    assert socket_maps.pinned_slot_key(2, 3) == struct.pack("=II", 0x80000003, 2)
    assert socket_maps.number_of(socket_maps.slot_key(2, 3)) >> 32 == 2
    assert socket_maps.number_of(socket_maps.number_key(7)) == 7


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        pytest.param(FrontendValue(1, 2, 3, 4), struct.pack("=4I", 1, 2, 3, 4), id="service"),
        pytest.param(SlotValue(IPV4, 5), RAW_IPV4 + struct.pack("=Q", 5), id="ipv4"),
        pytest.param(SlotValue(IPV6, 5), RAW_IPV6 + struct.pack("=Q", 5), id="ipv6"),
        pytest.param(
            DialCounts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, tuple(range(12, 24))),
            struct.pack("=23Q", *range(1, 24)),
            id="counts",
        ),
        pytest.param(EjectionScope(1, 2), struct.pack("=2Q", 1, 2), id="scope"),
        pytest.param(Ejection(1, 2, EventKind.REFUSED), struct.pack("=3Q", 1, 2, 1), id="ejection"),
        pytest.param(DialSettings(1, 2, 1, 4, 5), struct.pack("=5Q", 1, 2, 1, 4, 5), id="settings"),
    ],
)
def test_map_values_have_the_layout_of_the_bpf_structures(value: Value, packed: bytes) -> None:
    assert value.pack() == packed
    assert type(value).unpack(packed) == value


def test_a_hook_event_contains_the_client_and_the_dialled_address() -> None:
    mapped = bytes(10) + b"\xff\xff\n\0\0\2" + b"\x80\0" + bytes(6)
    record = struct.pack("=4Q24s24s5Q", 4, 5, 60, 50, mapped, RAW_IPV4, 40, 300, 200, 4, 9)
    assert RingEvent.unpack(record) == RingEvent(
        EventKind.CONNECTION, 5, 60, 50, SocketAddress("10.0.0.2", 0x8000), IPV4, 40, 300, 200,
        Result.SERVED, 9,
    )  # fmt: skip
