"""Whose packets a listening socket gets: classic BPF by source address.

    packet ──▶ source in one of the networks? ──yes──▶ socket
                            └──no──▶ dropped: a SYN is never answered, a datagram never queued

It works under every steering, as none of them changes the source, needs no privilege, and
leaves nothing behind. An accepted socket inherits it, where it lets the same client pass.

Source: socket(7), SO_ATTACH_FILTER; the kernel's tcp_v4_rcv asks the filter of a listening
socket, too.
"""

from __future__ import annotations

import _socket
import ctypes
import ipaddress
import struct
from collections.abc import Iterable, Sequence

from ..errors import ShortageError
from ..model import Protocol, SocketAddress

# asm-generic/socket.h.
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27

# linux/bpf_common.h and linux/filter.h.
_LOAD_WORD = 0x20
_AND = 0x54
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_PASS = 0xFFFFFFFF
_DROP = 0
# Offsets from here on count from the network header, wherever the packet's data begins.
_NETWORK_HEADER = 0xFFF00000
_SOURCE_OFFSET = {4: 12, 6: 8}
_MOST_INSTRUCTIONS = 4096

_Instruction = tuple[int, int, int, int]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def admit(sock: _socket.socket, networks: Iterable[str] | None) -> None:
    """Have a socket get packets from these networks alone, or from everybody (None).

    Raises:
        OSError: There are too many of them for the kernel.
    """
    if networks is None:
        admit_all(sock)
    else:
        admit_only(sock, networks)


def cannot_admit(at: SocketAddress, protocol: Protocol, exc: OSError) -> ShortageError:
    """Return the error for source ranges that the kernel doesn't take, at this port or any."""
    return ShortageError(
        f"cannot limit who reaches {at}/{protocol}: {exc.strerror}",
        hint="name fewer networks, or raise the sysctl net.core.optmem_max",
    )


def admit_only(sock: _socket.socket, networks: Iterable[str]) -> None:
    """Have a socket get packets from these networks alone; of other families nothing.

    Args:
        sock: Of any protocol; what has come already stays.
        networks: In canonical form; none: nothing comes in.

    Raises:
        OSError: There are too many of them for the kernel.
    """
    version = 6 if sock.family == _socket.AF_INET6 else 4
    _attach(sock, _program(version, networks))


def admit_all(sock: _socket.socket) -> None:
    """Undo :func:`admit_only`; idempotent."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        return


def _attach(sock: _socket.socket, program: Sequence[_Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # The kernel copies it before setsockopt returns.
    filter_ = struct.pack("HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(_socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def _program(version: int, networks: Iterable[str]) -> list[_Instruction]:
    of_version = [n for n in map(ipaddress.ip_network, networks) if n.version == version]
    program: list[_Instruction] = []
    for network in ipaddress.collapse_addresses(of_version):  # type: ignore[type-var]
        program += _is_in(network)
    program.append((_RETURN, 0, 0, _DROP))
    if len(program) > _MOST_INSTRUCTIONS:
        raise OSError(7, "too many source ranges for one socket")
    return program


def _is_in(network: _Network) -> list[_Instruction]:
    """Return what lets a source in this network pass, and goes on with any other."""
    offset, program = _SOURCE_OFFSET[network.version], []
    words, masks = _words(network.network_address), _words(network.netmask)
    compared = [(n, w, m) for n, (w, m) in enumerate(zip(words, masks, strict=True)) if m]
    for place, (number, word, mask) in enumerate(compared):
        program.append((_LOAD_WORD, 0, 0, _NETWORK_HEADER + offset + 4 * number))
        if mask != 0xFFFFFFFF:
            program.append((_AND, 0, 0, mask))
        # A difference leads behind the end: over what the later words need, and the RETURN.
        later = sum(2 + (m != 0xFFFFFFFF) for _, _, m in compared[place + 1 :])
        program.append((_JUMP_IF_EQUAL, 0, later + 1, word))
    program.append((_RETURN, 0, 0, _PASS))
    return program


def _words(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[int]:
    packed = address.packed
    return list(struct.unpack(f">{len(packed) // 4}I", packed))
