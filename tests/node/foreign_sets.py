"""Adds a set as a newer ``nft`` does, in a format that libnftables 1.0.6 can't parse.

That library, and so the ``nft`` of Debian 12, dereferences NULL when it lists a ruleset with such a
set; a test that has added one must inspect the kernel by other means.
"""

from __future__ import annotations

import socket
import struct

_BATCH_BEGIN, _BATCH_END, _NEW_TABLE, _NEW_SET = 0x10, 0x11, 0xA00, 0xA09
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_INET, _NETFILTER = 1, 12
_IFNAME = 41


def add_foreign_set() -> None:
    """Add ``table inet other`` with the set ``newer`` in this thread's network namespace.

    Source: the user data that nft 1.1.3 and later write for a set of the type ``typeof iifname``.
    """
    described = _described(0, struct.pack("=I", 4)) + _described(1, b"")
    user_data = _described(0, struct.pack("=I", 2)) + _described(3, described)
    table = _attribute(1, b"other\0")
    named = table + _attribute(2, b"newer\0") + _number(3, 0) + _number(10, 1)
    newer = named + _number(4, _IFNAME) + _number(5, 16) + _attribute(13, user_data)
    batch = (
        _message(_BATCH_BEGIN, 0, bytes([0, 0, 0, 10]))
        + _message(_NEW_TABLE, _CREATE, bytes([_INET, 0, 0, 0]) + table)
        + _message(_NEW_SET, _CREATE | _ACK, bytes([_INET, 0, 0, 0]) + newer)
        + _message(_BATCH_END, 0, bytes([0, 0, 0, 10]))
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as sock:
        sock.settimeout(1)
        sock.send(batch)
        (code,) = struct.unpack_from("=i", sock.recv(1 << 16), 16)
    assert code == 0, f"the kernel refused the set: {code}"


def _described(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value)]) + value


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body


if __name__ == "__main__":
    add_foreign_set()
