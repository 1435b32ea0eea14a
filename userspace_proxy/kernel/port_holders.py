"""Finds open connections, and the process that uses a port of this node: ``nginx (pid 812)``.

    /proc/thread-self/net/{tcp,udp}{,6} ──inode──▶ /proc/*/fd ──pid──▶ /proc/PID/comm

Rule 1: only TCP listeners and UDP sockets without a peer count as holders of a port.
Rule 2: processes that can't be found are omitted: they have exited, or a privilege is missing.

Source: proc(5), net/ipv4/tcp_ipv4.c, tcp4_seq_show().
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..model import Frontend, IPFamily, Protocol, SocketAddress, pack_ip
from .own_namespace import network_namespace

# The maximum number of descriptors to check. Each check takes about 25 µs (measured on a busy
# machine), during which no traffic is handled.
DESCRIPTORS_MAX = 10_000
# The maximum number of descriptors to check per process, from the lowest on: a server opens its
# listeners before it has clients.
OF_PROCESS_MAX = 1_000

_NET = Path("/proc/thread-self/net")
_PROC = Path("/proc")
# The values of the column "st": TCP_LISTEN, and TCP_CLOSE, which for UDP means "no peer".
_STATES = {Protocol.TCP: "0A", Protocol.UDP: "07"}
_FILES = {
    (Protocol.TCP, IPFamily.IPV4): "tcp",
    (Protocol.TCP, IPFamily.IPV6): "tcp6",
    (Protocol.UDP, IPFamily.IPV4): "udp",
    (Protocol.UDP, IPFamily.IPV6): "udp6",
}
# TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN: the states without an open connection.
_NO_CONNECTION = frozenset({"06", "07", "0A"})
# Addresses as in /proc/net/tcp and tcp6: one or four 32-bit words in hex, in host byte order.
_ANY_4 = "0" * 8
_ANY_6 = "0" * 32
_MAPPED = "0" * 16 + f"{int.from_bytes(bytes.fromhex('0000ffff'), sys.byteorder):08X}"


class PortHolder(NamedTuple):
    """A process that has a socket."""

    name: str
    """The program's name; empty if the process has exited since it was listed."""
    pid: int = 0
    """The process ID; 0 if no process was found, and then ``name`` explains why."""

    def __str__(self) -> str:
        """Return the name and pid, as far as known: ``nginx (pid 812)``."""
        if not self.pid:
            return self.name
        return f"{self.name} (pid {self.pid})" if self.name else f"pid {self.pid}"


NOT_FOUND = PortHolder(f"a process that was not found among {DESCRIPTORS_MAX:,} descriptors")
ANOTHER = PortHolder("another program")


class HeldPort(NamedTuple):
    """A TCP listener, or a UDP socket without a peer."""

    port: int
    inode: int
    families: frozenset[IPFamily]
    """The IP families of the socket's clients."""
    address: str = ""
    """The local address, as the kernel shows it."""


def who_holds(protocol: Protocol, port: int, family: IPFamily) -> PortHolder | None:
    """Return the process that has a TCP listener, or a UDP socket without a peer, on a port.

    Checks the descriptors of all processes, which takes up to 0.25 s on a busy node.

    Args:
        family: The clients' family; an IPv6 socket may also serve IPv4 clients.

    Returns: The first result of :func:`owners_of`; None if the port is free or its process hidden.
    """
    inodes = {held.inode for held in held_ports(protocol) if serves(held, port, family)}
    return next(iter(owners_of(inodes).values()), None)


def holders_at(
    addresses: Collection[SocketAddress], protocol: Protocol = Protocol.TCP
) -> Mapping[SocketAddress, PortHolder]:
    """Return the process whose socket occupies each address, as ``who_holds`` does.

    Free addresses are omitted; if a socket's process isn't found, the value is :data:`ANOTHER`.
    """
    held = held_ports(protocol)
    found: dict[SocketAddress, int] = {}
    for at in addresses:
        inode = next((each.inode for each in held if _is_held(at, each)), None)
        if inode is not None:
            found[at] = inode
    owners = owners_of(frozenset(found.values()))
    return {at: owners.get(inode, ANOTHER) for at, inode in found.items()}


def serves(held: HeldPort, port: int, family: IPFamily) -> bool:
    """Return whether a socket serves clients of this family on the port."""
    return held.port == port and family in held.families


def _is_held(at: SocketAddress, held: HeldPort) -> bool:
    """Return whether a socket occupies an address, so that no other socket can bind it."""
    if held.port != at.port:
        return False
    ip, own = ipaddress.ip_address(at.ip), _words(at.ip)
    if ip.is_unspecified:
        return ip.version == 6 or IPFamily.IPV4 in held.families
    return held.address in {own, _ANY_6, *((_ANY_4, _MAPPED + own) if ip.version == 4 else ())}


def _words(ip: str) -> str:
    """Return an address in the form of /proc/net/tcp and similar files."""
    packed = pack_ip(ip)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)


def connected_at(ips: Collection[str]) -> set[Frontend]:
    """Return the local addresses and ports of open TCP connections at these IPs.

    With ten thousand sockets this takes about 10 ms, so call it only if needed.
    """
    by_words = {_words(ip): ip for ip in ips}
    places: set[str] = set()
    for family in {IPFamily.of(ip) for ip in ips}:
        # Without IPv6 the kernel has no such file.
        with contextlib.suppress(FileNotFoundError):
            table = (_NET / _FILES[Protocol.TCP, family]).read_text(encoding="ascii")
            sockets = (line.split(None, 4) for line in table.splitlines()[1:])
            # Use a set: all connections of a listener have the same local address.
            places.update(f[1] for f in sockets if f[3] not in _NO_CONNECTION)
    return {
        Frontend(by_words[words], int(port, 16), Protocol.TCP)
        for words, port in (place.split(":") for place in places)
        if words in by_words
    }


def held_ports(protocol: Protocol) -> list[HeldPort]:
    """List the TCP listeners, or UDP sockets without a peer, of this network namespace."""
    return [held for family in IPFamily for held in _read_table(protocol, family)]


def owners_of(inodes: Collection[int]) -> Mapping[int, PortHolder]:
    """Return the process that has each socket; sockets without a process are omitted.

    If several processes share a socket, the first in the order of :func:`_pids` is returned: a
    server's main process. As this blocks, at most :data:`DESCRIPTORS_MAX` descriptors are checked,
    and :data:`OF_PROCESS_MAX` per process; beyond the former, holders are :data:`NOT_FOUND`.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, PortHolder] = {}
    left = DESCRIPTORS_MAX
    for pid in _pids() if wanted else ():
        for link in itertools.islice(_descriptors(pid), min(left, OF_PROCESS_MAX)):
            left -= 1
            inode = wanted.pop(link, None)
            if inode is not None:
                owners[inode] = named_process(pid)
            if not wanted:
                return owners
        if not left:
            return owners | dict.fromkeys(wanted.values(), NOT_FOUND)
    return owners


def _read_table(protocol: Protocol, family: IPFamily) -> Iterator[HeldPort]:
    try:
        with (_NET / _FILES[protocol, family]).open(encoding="ascii") as table:
            next(table, None)
            for line in table:
                # Columns: sl, local address, remote address, st, queues, timer, retransmits, uid,
                # timeout, inode
                fields = line.split(maxsplit=10)
                if fields[3] == _STATES[protocol]:
                    ip, _, port = fields[1].rpartition(":")
                    yield HeldPort(int(port, 16), int(fields[9]), _families(ip, family), ip)
                elif protocol is Protocol.TCP:
                    # Stop: in the file, listeners precede connections, of which there may be
                    # 100,000.
                    return
    except (OSError, ValueError, IndexError):
        return


def _families(ip: str, family: IPFamily) -> frozenset[IPFamily]:
    if family is IPFamily.IPV4:
        return frozenset({IPFamily.IPV4})
    if ip == _ANY_6:
        # The kernel doesn't show whether the socket is IPV6_V6ONLY, so assume that it serves both.
        return frozenset(IPFamily)
    return frozenset({IPFamily.IPV4 if ip.startswith(_MAPPED) else IPFamily.IPV6})


def _pids() -> list[int]:
    """Return all pids: this process's, then its network namespace's, then the rest, each sorted.

    A socket usually belongs to a process in the socket's own network namespace.
    """
    own = os.getpid()
    here = network_namespace("thread-self")
    try:
        pids = sorted(int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())
    except OSError:
        return []
    return sorted(pids, key=lambda pid: (pid != own, network_namespace(pid) != here))


def _descriptors(pid: int) -> Iterator[str]:
    folder = f"{_PROC}/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - as below
    except OSError:
        return
    for name in names:
        try:
            # Cost: Path.readlink() takes 50 % longer, and there may be many links.
            yield os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue


def named_process(pid: int) -> PortHolder:
    """Return a process with its name, which is empty if the process has exited."""
    try:
        name = (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        name = ""
    return PortHolder(name, pid)
