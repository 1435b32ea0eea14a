"""Limits a listening socket to packets from certain source addresses, by classic BPF.

    packet ──▶ source in one of the networks? ──yes──▶ socket
                            └──no──▶ dropped: a SYN is never answered, a datagram never queued

A filter works in every steering mode, because no mode translates the source. It exists as long as
its socket. Some kernels require CAP_NET_ADMIN to filter TCP. An accepted socket inherits the
filter, which admits the socket's client.

Source: socket(7), SO_ATTACH_FILTER; tcp_v4_rcv() in net/ipv4/tcp_ipv4.c also runs the filter of a
listening socket.
"""

from __future__ import annotations

import _socket
import errno
import functools
import ipaddress
import struct
from collections.abc import Iterable

from ..errors import ShortageError
from ..model import Protocol, SocketAddress
from . import classic_bpf as bpf
from .classic_bpf import SO_ATTACH_FILTER

# The socket option's number in asm-generic/socket.h.
SO_DETACH_FILTER = 27

_PASS = 0xFFFFFFFF
_DROP = 0
_MOST_INSTRUCTIONS = 4096

_REMEDIES = {
    # Measured without the capability: Linux 6.18.44 refuses filters on TCP sockets, but not on UDP
    # sockets.
    errno.EPERM: "this kernel needs CAP_NET_ADMIN for that: run as root, or grant it",
    errno.ENOMEM: "list fewer networks, or raise the sysctl net.core.optmem_max",
    errno.EINVAL: "list fewer networks",
}

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def admit(sock: _socket.socket, networks: Iterable[str] | None) -> None:
    """Admit only packets from these networks to a socket; None admits all.

    Raises:
        OSError: The kernel refused the filter, or there are too many networks.
    """
    if networks is None:
        admit_all(sock)
    else:
        admit_only(sock, networks)


def cannot_admit(at: SocketAddress, protocol: Protocol, exc: OSError) -> ShortageError:
    """Return the error to raise if the kernel refuses a filter."""
    return ShortageError(
        f"cannot limit which clients reach {at}/{protocol}",
        cause=exc.strerror or str(exc),
        hint=_REMEDIES.get(exc.errno or 0, ""),
    )


def admit_only(sock: _socket.socket, networks: Iterable[str]) -> None:
    """Admit only packets from these networks, in canonical form; data already received stays.

    Raises:
        OSError: As for :func:`admit`; E2BIG: the program would be too long.
    """
    code = _code(bpf.version_of(sock.family), tuple(networks))
    if not code:
        raise OSError(errno.E2BIG, "too many source ranges for one socket")
    bpf.attach_packed(sock, SO_ATTACH_FILTER, code)


def admit_all(sock: _socket.socket) -> None:
    """Undo :func:`admit_only`. Idempotent."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        return


# Cost: all ports of a Service have the same networks, and each port has a socket in each worker.
# Compiling 1,000 networks takes 24 ms, and the program takes 24 KB.
@functools.lru_cache(maxsize=64)
def _code(version: int, networks: tuple[str, ...]) -> bytes:
    """Return the packed program; empty if it has more instructions than the kernel accepts."""
    program = _program(version, networks)
    return b"" if len(program) > _MOST_INSTRUCTIONS else bpf.pack(program)


def _program(version: int, networks: Iterable[str]) -> list[bpf.Instruction]:
    of_version = [n for n in map(ipaddress.ip_network, networks) if n.version == version]
    program: list[bpf.Instruction] = []
    for network in ipaddress.collapse_addresses(of_version):  # type: ignore[type-var]
        program += _is_in(network)
    program.append((bpf.RETURN, 0, 0, _DROP))
    return program


def _is_in(network: _Network) -> list[bpf.Instruction]:
    """Return instructions that admit a packet from this network, and otherwise continue."""
    offsets, program = bpf.SOURCE_OFFSETS[network.version], []
    words, masks = _words(network.network_address), _words(network.netmask)
    compared = [(n, w, m) for n, (w, m) in enumerate(zip(words, masks, strict=True)) if m]
    for place, (number, word, mask) in enumerate(compared):
        program.append((bpf.LOAD_WORD, 0, 0, bpf.NETWORK_HEADER + offsets[number]))
        if mask != 0xFFFFFFFF:
            program.append((bpf.AND, 0, 0, mask))
        # If a word differs, jump over the instructions for the remaining words, and over the
        # RETURN.
        later = sum(2 + (m != 0xFFFFFFFF) for _, _, m in compared[place + 1 :])
        program.append((bpf.JUMP_IF_EQUAL, 0, later + 1, word))
    program.append((bpf.RETURN, 0, 0, _PASS))
    return program


def _words(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[int]:
    packed = address.packed
    return list(struct.unpack(f">{len(packed) // 4}I", packed))
