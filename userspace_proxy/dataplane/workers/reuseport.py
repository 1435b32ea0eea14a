"""Which of several sockets on one port a client comes to: by its address, or by chance.

Source: socket(7), SO_ATTACH_REUSEPORT_CBPF: a classic BPF program sees the packet and returns
the index of a socket in the group, in the order in which they began to listen (TCP) or were
bound (UDP).
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

# Not in Python's socket module; asm-generic/socket.h.
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68

# linux/bpf_common.h and linux/filter.h.
_LOAD_WORD = 0x20
_MODULO = 0x94
_COPY_TO_X = 0x07
_XOR_X = 0xAC
_RETURN = 0x16
# Offsets from here on count from the network header, wherever the packet's data begins.
_NETWORK_HEADER = 0xFFF00000

_SOURCE_OFFSET = {socket.AF_INET: (12,), socket.AF_INET6: (8, 12, 16, 20)}


def choose_by_client(sock: socket.socket, family: int, count: int) -> None:
    """Bring all of a client to one socket of the group, TCP and UDP alike.

    Args:
        sock: Any of the group; the program is the group's.
        family: AF_INET or AF_INET6.
        count: How many sockets the group has.

    Raises:
        OSError: The kernel has no such option.
    """
    code = b"".join(struct.pack("=HBBI", op, 0, 0, k) for op, k in _program(family, count))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def choose_by_chance(sock: socket.socket) -> None:
    """Undo :func:`choose_by_client`; idempotent."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _program(family: int, count: int) -> list[tuple[int, int]]:
    first, *others = _SOURCE_OFFSET[socket.AddressFamily(family)]
    code = [(_LOAD_WORD, _NETWORK_HEADER + first)]
    for offset in others:
        # A ^= the words before it: IPv6 addresses of one node differ in any of their words.
        code += [(_COPY_TO_X, 0), (_LOAD_WORD, _NETWORK_HEADER + offset), (_XOR_X, 0)]
    return [*code, (_MODULO, count), (_RETURN, 0)]
