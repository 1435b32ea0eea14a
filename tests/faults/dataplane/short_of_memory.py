"""A data plane in a process of its own that may use little more memory than it does at the start.

Started as ``python -m tests.faults.dataplane.short_of_memory MIB IP PORT PORT``: serves two
endpoints, with that much address space left. Prints the ports of both Services and the limit in
bytes, logs to standard error, and ends when standard input does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from pathlib import Path

from tests.unit.dataplane.rig import Rig
from userspace_proxy.kernel.memory_limits import find_memory_limits
from userspace_proxy.model import SocketAddress

# As workers have it.
DESCRIPTORS = 4096


async def serve(more_bytes: int, *endpoints: SocketAddress) -> None:
    """Serve these endpoints, each as a Service, until standard input ends."""
    rig = Rig()
    services = [rig.service(endpoint) for endpoint in endpoints]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rig.dataplane.watch_memory(find_memory_limits)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    sys.stdout.write(" ".join(str(service.address.port) for service in services) + f" {limit}\n")
    sys.stdout.flush()
    await ended.wait()
    rig.close()
    if rig.bugs:
        sys.exit("\n".join(rig.bugs))


def main() -> None:
    """Part of ``python -m``."""
    mib, ip, *ports = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    asyncio.run(serve(int(mib) << 20, *(SocketAddress(ip, int(port)) for port in ports)))


if __name__ == "__main__":
    main()
