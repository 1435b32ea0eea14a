"""``python -m benchmarks.hooks``: what hooks of connect() cost and leave, beside their rates.

It prints, for short connections of one client:

    programs   how long each program runs for a connection, as the kernel counts it
    entries    of connection tracking on the node afterwards, and how many of them are translated

``programs`` has the cost of counters and ejection: all but ``connect4`` and ``connect6`` would
not be there without them, nor ``getpeername``, which a client calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.kernel.bpf.calls import attached
from userspace_proxy.kernel.bpf.objects import KINDS

from .generators import run_goload
from .runner import open_ways, raise_descriptor_limit
from .tools import ToolMissing, build_tools
from .ways import OursSockets

SECONDS = 2.0
CONNECTIONS = 10_000
_CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
# Source: linux/bpf.h, enum bpf_cmd, and struct bpf_prog_info up to run_cnt.
_BY_ID, _INFO, _ENABLE_STATS = 13, 15, 32
_RUN_TIME = 0
_PROGRAM = struct.Struct("=192xQQ")
_LIST = """
import collections, socket
from userspace_proxy.kernel.conntrack import list_entries
from userspace_proxy.kernel.ctnetlink import IPS_DST_NAT, EntryFilter
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER

with Requests.open(NETLINK_NETFILTER) as requests:
    found = list(list_entries(requests, 4, EntryFilter(socket.IPPROTO_TCP)))
print(len(found), sum(bool(one.status & IPS_DST_NAT) for one in found))
"""
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    try:
        OursSockets.find_programs()
        tools = build_tools()
        raise_descriptor_limit()
        with open_ways([OursSockets.key], tools) as ways, counting_time():
            (way,) = ways
            assert isinstance(way, OursSockets)
            before, tracked = run_times(way.group.folder), entries(way)
            made = 0
            while made < CONNECTIONS:
                made += run_goload(way, "echo", SECONDS, "echo", "--parallel=32")["count"]
            after, now = run_times(way.group.folder), entries(way)
    except (UserspaceProxyError, ToolMissing) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(f"{made:,} connections")
    for section, (ns, count) in after.items():
        ns_before, count_before = before[section]
        spent, runs = (ns - ns_before) / made, (count - count_before) / made
        print(f"{section:20} {spent:7.0f} ns a connection, in {runs:.1f} runs")
    for what, first, last in zip(("entries", "translated"), tracked, now, strict=True):
        print(f"{what:20} {first:,} → {last:,}")
    return 0


@contextlib.contextmanager
def counting_time() -> Iterator[None]:
    """Let the kernel count how long programs run; all of them, while this lasts."""
    descriptor = _call(_ENABLE_STATS, struct.pack("=I", _RUN_TIME))
    try:
        yield
    finally:
        os.close(descriptor)


def run_times(group: Path) -> Mapping[str, tuple[int, int]]:
    """Return how long the programs of a group have run, in ns, and how often, by section."""
    folder = os.open(group, os.O_RDONLY)
    try:
        return {
            section: _run_time(identifier)
            for section in KINDS
            for identifier in attached(section, folder)
        }
    finally:
        os.close(folder)


def _run_time(identifier: int) -> tuple[int, int]:
    program = _call(_BY_ID, struct.pack("=III", identifier, 0, 0))
    info = ctypes.create_string_buffer(_PROGRAM.size)
    try:
        asked = struct.pack("=IIQ", program, len(info), ctypes.addressof(info))
        _call(_INFO, asked)
    finally:
        os.close(program)
    ns, count = _PROGRAM.unpack(info.raw)
    return ns, count


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    code: int = _libc.syscall(_CALL, command, buffer, len(attributes))
    if code < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code


def entries(way: OursSockets) -> tuple[int, int]:
    """Return how many TCP entries the node tracks, and how many of them are translated."""
    total, translated = way.site.node.run([sys.executable, "-c", _LIST]).stdout.split()
    return int(total), int(translated)


if __name__ == "__main__":
    sys.exit(main())
