"""``python -m benchmarks.hooks``: measures the cost and the effects of hooks at connect().

It prints, for short connections of one client, with their rates:

    programs   how long each program runs per connection, as counted by the kernel
    entries    connection tracking entries on the node afterwards, and how many are translated

For 10,000 Services of three endpoints, it prints the maps' memory, and how long it takes to fill
them, to fill them again in a successor, and to change them when an endpoint leaves.

``programs`` contains the cost of counters and ejection: without these, only ``connect4``,
``connect6`` and ``getpeername``, which a client calls, would exist.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.hooked import HookedGroup, with_own_names
from tests.port_keys import port_key
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.kernel.bpf.calls import attached
from userspace_proxy.kernel.bpf.objects import KINDS
from userspace_proxy.kernel.offers import read_kernel_offers
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import EndpointChoice, KernelTarget
from userspace_proxy.steering.socket_lb import HookOptions, Hooks

from .generators import run_goload
from .runner import open_ways, raise_descriptor_limit
from .tools import ToolMissing, build_tools
from .ways import OursSockets

SCALE = "scale"
SERVICES, ENDPOINTS, CHANGES = 10_000, 3, 200
SECONDS = 2.0
CONNECTIONS = 10_000
_CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
# Source: linux/bpf.h: enum bpf_cmd, and struct bpf_prog_info up to run_cnt.
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


def main(words: Sequence[str]) -> int:
    if words == [SCALE]:
        measure_scale()
        return 0
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
        print(f"{what:20} {first:,} → {last:,}", flush=True)
    command = [sys.executable, "-m", "benchmarks.hooks", SCALE]
    return subprocess.run(with_own_names(command), check=False).returncode


def measure_scale() -> None:
    """Print the time in which many frontends are mapped, in a separate bpffs and cgroup."""
    targets = {
        Frontend(f"10.96.{n >> 8}.{n & 255}", 80, Protocol.TCP): target(n, ENDPOINTS)
        for n in range(SERVICES)
    }
    print(f"\n{SERVICES:,} Services of {ENDPOINTS} endpoints")
    with HookedGroup(SCALE) as group:
        options = HookOptions(cgroup=str(group.folder))
        for run in ("first", "successor"):
            hooks = Hooks(options, SCALE, read_kernel_offers())
            with timed(f"start, {run}"):
                hooks.start()
            with timed(f"load, {run}"):
                hooks.replace(targets)
            assert not hooks.state.problem, hooks.state.problem
            if run == "first":
                hooks.close()
        changes = []
        for number, frontend in enumerate(list(targets)[:CHANGES]):
            with timed() as seconds:
                hooks.change({frontend: target(number, ENDPOINTS - 1)})
            changes += seconds
        print(f"{'change':20} {statistics.median(changes) * 1e3:.2f} ms")
        hooks.repair()
        print(f"{'memory of maps':20} {hooks.state.map_bytes / 1e6:.0f} MB")
        hooks.remove()


def target(service: int, endpoints: int) -> KernelTarget:
    """Return the target of a Service that shares no endpoint with another Service."""
    at = tuple(
        SocketAddress(f"10.{128 + number}.{service >> 8}.{service & 255}", 8080)
        for number in range(endpoints)
    )
    return KernelTarget(30_000, (EndpointChoice(at, None),), name=port_key(f"bench/{service}:http"))


@contextlib.contextmanager
def timed(what: str = "") -> Iterator[list[float]]:
    """Yield a list; append the block's duration in seconds, and print it if ``what`` is given."""
    seconds: list[float] = []
    began = time.monotonic()
    yield seconds
    seconds.append(time.monotonic() - began)
    if what:
        print(f"{what:20} {seconds[0]:.2f} s")


@contextlib.contextmanager
def counting_time() -> Iterator[None]:
    """Within the block, make the kernel measure the run time of all BPF programs."""
    descriptor = _call(_ENABLE_STATS, struct.pack("=I", _RUN_TIME))
    try:
        yield
    finally:
        os.close(descriptor)


def run_times(group: Path) -> Mapping[str, tuple[int, int]]:
    """Return the run time in ns and the run count of a group's programs, by section."""
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
    """Return the numbers of TCP entries and of translated TCP entries that the node tracks."""
    total, translated = way.site.node.run([sys.executable, "-c", _LIST]).stdout.split()
    return int(total), int(translated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
