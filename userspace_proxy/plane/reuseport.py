"""Makes the kernel choose among the sockets on one port by the client's address, or at random.

Source: socket(7), SO_ATTACH_REUSEPORT_CBPF: a classic BPF program sees the packet and returns the
    index of a socket in the group, in the order in which they started to listen (TCP) or were bound
    (UDP). Linux's net/core/sock_reuseport.c, __reuseport_detach_sock(): when a socket leaves the
    group, the last socket takes its index.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from ..kernel import classic_bpf as bpf

# The value from asm-generic/socket.h, which Python's socket module lacks.
SO_DETACH_REUSEPORT_BPF = 68


def choose_by_client(sock: socket.socket, family: int, count: int) -> None:
    """Make the kernel send all traffic of a client to one socket of a group of ``count``.

    The BPF program applies to this socket's group.

    Raises:
        OSError: The kernel lacks the option.
    """
    bpf.attach(sock, bpf.SO_ATTACH_REUSEPORT_CBPF, _program(bpf.version_of(family), count))


def choose_by_chance(sock: socket.socket) -> None:
    """Undo :func:`choose_by_client`. Idempotent."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOPROTOOPT):
            raise


def order_left(places: Iterable[int]) -> list[int]:
    """Return the former indexes of a group's remaining sockets, in the current order.

    If several sockets have left, sockets with lower indexes are assumed to have left first.
    """
    have = set(places)
    moved = [place for place in sorted(have) if not 0 <= place < len(have)]
    return [place if place in have else moved.pop() for place in range(len(have))]


def _program(version: int, count: int) -> list[bpf.Instruction]:
    first, *others = bpf.SOURCE_OFFSETS[version]
    code = [(bpf.LOAD_WORD, bpf.NETWORK_HEADER + first)]
    for offset in others:
        # XOR all words, because the IPv6 addresses of one node may differ in any of them.
        code += [(bpf.COPY_TO_X, 0), (bpf.LOAD_WORD, bpf.NETWORK_HEADER + offset), (bpf.XOR_X, 0)]
    code += [(bpf.MODULO, count), (bpf.RETURN_ACCUMULATOR, 0)]
    return [(operation, 0, 0, operand) for operation, operand in code]
