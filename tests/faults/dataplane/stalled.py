"""A data plane in a network namespace of its own, whose endpoints stall or die.

Started as ``python -m tests.faults.dataplane.stalled``. Prints as JSON which connections ended
while the reader that is alive was stalled, and whether that one then got everything.

A peer dies by a filter that drops all packets to its socket, so that nothing answers for it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.unit.dataplane.peers import Peer
from tests.unit.dataplane.rig import Rig
from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane.ageing import keep_alive
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.kernel.classic_bpf import RETURN, attach
from userspace_proxy.kernel.source_filter import SO_ATTACH_FILTER

# Resends and window probes without an answer until the kernel gives up, of this namespace alone.
RETRIES = 2
QUICK_KEEPALIVE = tuple(
    (socket.IPPROTO_TCP, option, value)
    for option, value in (
        (socket.TCP_KEEPIDLE, 1),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, RETRIES),
    )
)


async def joined(rig: Rig) -> tuple[Peer, Peer, TcpConnection]:
    """Return both ends of a connection after the first look at it, and the connection."""
    pod, before = rig.endpoint(), set(rig.connections.open)
    client, server = await rig.pair(rig.service(pod.address), pod)
    (connection,) = rig.connections.open.keys() - before
    await until(lambda: connection.up, "the dial is answered")
    rig.connections.ageing.look_at(connection, now=0)
    return client, server, connection


async def stall(client: Peer, connection: TcpConnection) -> int:
    """Send until the endpoint, which doesn't read, stops it; returns the bytes sent."""
    sent = 0

    def is_stopped() -> bool:
        nonlocal sent
        more = client.fill()
        sent += more
        return not more and bool(connection.up) and connection.up.is_stuck

    await until(is_stopped, "the sender is stopped")
    return sent


async def observe() -> dict[str, object]:
    """Stall three readers; two of them die, one with bytes waiting for it and one without."""
    rig = Rig()
    stalled, reader, alive = await joined(rig)
    sent = await stall(stalled, alive)
    client, dying, stuck = await joined(rig)
    await stall(client, stuck)
    _, idler, idle = await joined(rig)
    keep_alive((idle.up.source, idle.up.sink), QUICK_KEEPALIVE)
    for peer in (dying, idler):
        attach(peer.sock, SO_ATTACH_FILTER, [(RETURN, 0, 0, 0)])
    await until(lambda: stuck.is_closed and idle.is_closed, "the dead are given up")
    # It has answered as many probes by now as it took to give the other one up.
    lives = not alive.is_closed
    stalled.finish()
    got = len(await reader.read_all())
    rig.close()
    return {"is_alive": lives, "sent": sent, "got": got, "bugs": rig.bugs}


def main() -> None:
    """Part of ``python -m``."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/tcp_retries2").write_text(str(RETRIES))
    json.dump(asyncio.run(observe()), sys.stdout)


if __name__ == "__main__":
    main()
