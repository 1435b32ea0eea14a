"""Attaches classic BPF programs, which the kernel runs on each packet or netlink event of a socket.

Source: linux/filter.h and linux/bpf_common.h; socket(7).
"""

from __future__ import annotations

import _socket
import ctypes
import struct
from collections.abc import Sequence

LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
AND = 0x54
MODULO = 0x94
COPY_TO_X = 0x07
XOR_X = 0xAC
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
RETURN_ACCUMULATOR = 0x16

# Values from asm-generic/socket.h, which Python's socket module lacks.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
SO_ATTACH_REUSEPORT_CBPF = 51

NETWORK_HEADER = 0xFFF00000
"""A term that makes an offset relative to the network header instead of the packet's data."""
SOURCE_OFFSETS = {4: (12,), 6: (8, 12, 16, 20)}
"""The offsets of the source address's words in the network header, by IP version."""

# struct sock_filter.
_INSTRUCTION = "=HBBI"

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def version_of(family: int) -> int:
    """Return 4 or 6 for AF_INET or AF_INET6."""
    return 6 if family == _socket.AF_INET6 else 4


def attach(sock: _socket.socket, option: int, program: Sequence[Instruction]) -> None:
    """Attach a program of at most 4,096 instructions; it replaces the option's previous program.

    Args:
        option: SO_ATTACH_FILTER, or another option of SOL_SOCKET that takes a ``sock_fprog``.

    Raises:
        OSError: The kernel refused the program.
    """
    attach_packed(sock, option, pack(program))


def pack(program: Sequence[Instruction]) -> bytes:
    """Return a program as the kernel reads it: an array of ``struct sock_filter``."""
    return b"".join(struct.pack(_INSTRUCTION, *instruction) for instruction in program)


def attach_packed(sock: _socket.socket, option: int, code: bytes) -> None:
    """Attach a packed program, as :func:`attach` does."""
    buffer = ctypes.create_string_buffer(code, len(code))
    count = len(code) // struct.calcsize(_INSTRUCTION)
    # The kernel copies the program in this call, so the buffer needn't outlive it.
    sock.setsockopt(_socket.SOL_SOCKET, option, struct.pack("HP", count, ctypes.addressof(buffer)))
