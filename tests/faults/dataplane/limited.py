"""A data plane in a process of its own that may have few descriptors.

Started as ``python -m tests.faults.dataplane.limited LIMIT TAKEN IP PORT``: serves the
endpoint IP:PORT, with TAKEN descriptors held by somebody else in the same process. Prints its
own port, logs to standard error, and ends when standard input does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys

from tests.unit.dataplane.rig import Rig
from userspace_proxy.model import SocketAddress


async def serve(taken: int, endpoint: SocketAddress) -> None:
    """Serve one endpoint until standard input ends."""
    rig = Rig()
    web = rig.service(endpoint)
    held = [open("/dev/null", "rb") for _ in range(taken)]  # noqa: SIM115, ASYNC230, PTH123
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    sys.stdout.write(f"{web.address.port}\n")
    sys.stdout.flush()
    await ended.wait()
    for file in held:
        file.close()
    rig.close()


def main() -> None:
    """Part of ``python -m``."""
    limit, taken, ip, port = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    logging.basicConfig(format="%(levelname)s %(message)s")
    asyncio.run(serve(int(taken), SocketAddress(ip, int(port))))


if __name__ == "__main__":
    main()
