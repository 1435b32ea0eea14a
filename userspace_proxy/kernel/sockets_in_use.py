"""Reads the kernel's list of TCP sockets.

With ten thousand sockets this takes about 10 ms, so it is read only if something depends on it.

Source: proc_pid_net(5); get_tcp4_sock() in net/ipv4/tcp_ipv4.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..model import Frontend, IPFamily, Protocol

_NET = Path("/proc/thread-self/net")
# TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN: no connection, or none any more.
_NO_CONNECTION = frozenset({"06", "07", "0A"})
_SUFFIX = {IPFamily.IPV4: "", IPFamily.IPV6: "6"}


def connected_at(ips: Collection[str]) -> set[Frontend]:
    """Return all addresses and ports with open TCP connections at some IP addresses."""
    by_words = {_words(ip): ip for ip in ips}
    # One for the connections of each listener.
    places = {
        address
        for address, state in _sockets({IPFamily.of(ip) for ip in ips})
        if state not in _NO_CONNECTION
    }
    return {
        Frontend(by_words[words], int(port, 16), Protocol.TCP)
        for words, port in (place.split(":") for place in places)
        if words in by_words
    }


def _words(ip: str) -> str:
    """Return an IP address as the kernel lists it: words in host order."""
    family = socket.AF_INET6 if IPFamily.of(ip) is IPFamily.IPV6 else socket.AF_INET
    packed = socket.inet_pton(family, ip)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)


def _sockets(families: Iterable[IPFamily]) -> Iterator[tuple[str, str]]:
    """Yield local address and state of each socket."""
    for family in families:
        path = _NET / f"tcp{_SUFFIX[family]}"
        if not path.exists():
            # A kernel without IPv6.
            continue
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split(None, 4)
            yield fields[1], fields[3]
