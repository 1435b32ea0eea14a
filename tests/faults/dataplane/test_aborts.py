"""Clients and endpoints that leave with a RST at any moment, very many of them."""

import asyncio
import contextlib
import gc
import random
import socket
import struct
import time
from pathlib import Path

import pytest
import uvloop

from tests.unit.dataplane.rig import Rig
from tests.unit.dataplane.waiting import turns, until
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.relay import Direction
from userspace_proxy.dataplane.tcp import TcpConnection

# One batch is in one phase: half of the descriptor limit, and less than a queue holds.
BATCH = 250
# Ends without a reader are closed after the reset.
QUICK = Tuning(connect_timeout_s=0.005, reset_wait_s=0)
WORDS = [b"x", bytes(1000), bytes(70_000), bytes(200_000)]
_RESET = struct.pack("ii", 1, 0)


def queued(service):
    """Return how many clients of a Service wait to be accepted: a listener's tcpi_unacked."""
    info = service.carrier.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int.from_bytes(info[24:28], "little")


class Crowd:
    """A batch of clients after the other, and the endpoint's ends of their connections."""

    def __init__(self, rig):
        self.rng = random.Random(1)
        self.connections = rig.connections
        self.pod = rig.endpoint()
        self.web = rig.service(self.pod.address)
        self.silent = rig.service(rig.silent())
        self.batches = 0

    def come(self, service):
        """Return a batch of connected clients: the kernel answers them before the accept."""
        # TIME_WAIT is avoided by resets; another address for each batch makes sure.
        source = f"127.1.{self.batches // 250}.{self.batches % 250 + 1}"
        self.batches += 1
        clients = [socket.socket() for _ in range(BATCH)]
        for client in clients:
            client.bind((source, 0))
            client.connect(service.address)
            client.setblocking(False)
        return clients

    async def served(self):
        """Return a batch of clients and their endpoint's ends, in no order."""
        clients, servers = self.come(self.web), []
        await until(lambda: len(self.joined()) == BATCH, "all clients have an endpoint")
        await until(lambda: len(servers) == BATCH or servers.extend(self.arrived()))
        return clients, servers

    def joined(self):
        return [c for c in self.connections.open if c.up is not None]

    def arrived(self):
        """Yield the endpoint's ends of connections that wait in its queue."""
        with contextlib.suppress(BlockingIOError):
            while True:
                server = self.pod.sock.accept()[0]
                server.setblocking(False)
                yield server

    async def leave(self, *ends):
        """Reset the connections at some of their ends, and wait for their end."""
        first, *others = ends
        for end in first:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
        await until(lambda: not self.connections.open, "the connections have ended")
        for end in (end for ends in others for end in ends):
            end.close()


async def abort_before_the_accept(crowd):
    dialled = crowd.web.group.totals().connections + BATCH
    await crowd.leave(crowd.come(crowd.web))
    await until(lambda: crowd.web.group.totals().connections == dialled, "all were dialled for")
    await crowd.leave([], list(crowd.arrived()))


async def abort_during_the_dial(crowd):
    # It was silent for the batch before: this one would be reset without a dial.
    group = crowd.silent.group
    group.outcomes.answered(group.serving.endpoints[0], time.monotonic())
    clients = crowd.come(crowd.silent)
    await until(lambda: queued(crowd.silent) < BATCH, "the first of them are dialled for")
    await crowd.leave(clients)
    await until(lambda: not queued(crowd.silent), "all were accepted")
    await crowd.leave([])


async def abort_during_the_transfer(crowd):
    ends = await crowd.served()
    for end in (*ends[0], *ends[1]):
        end.send(crowd.rng.choice(WORDS))
    await turns(crowd.rng.randrange(4))
    await crowd.leave(*crowd.rng.sample(ends, 2))


async def abort_after_a_half_close(crowd):
    ends = await crowd.served()
    for end in crowd.rng.choice(ends):
        end.shutdown(socket.SHUT_WR)
    await until(
        lambda: all(c.up.is_ended or c.down.is_ended for c in crowd.joined()), "all are half-closed"
    )
    await crowd.leave(*crowd.rng.sample(ends, 2))


# A third of the connections in each: before they are relayed, relayed, half-closed.
PHASES = [
    abort_before_the_accept,
    abort_during_the_transfer,
    abort_after_a_half_close,
    abort_during_the_dial,
    abort_during_the_transfer,
    abort_after_a_half_close,
]


def left_over(rig):
    """Return what connections cost and must give back, the collector unasked."""
    engine, connections = rig.engine, rig.connections
    things = [
        type(t).__name__ for t in gc.get_objects() if isinstance(t, TcpConnection | Direction)
    ]
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())) - 2 * engine.pipes.open_pipes,
        "booked": engine.descriptors.in_use - 2 * engine.pipes.open_pipes,
        "pipes in use": engine.pipes.open_pipes - len(engine.pipes._free),
        "handlers": len(engine.reactor._handlers),
        "deadlines": len(connections.dial_deadlines) + len(connections.client_deadlines),
        "objects": things,
    }


@pytest.mark.parametrize(
    ("factory", "connections"),
    [
        pytest.param(uvloop.new_event_loop, 6_000, id="uvloop"),
        pytest.param(uvloop.new_event_loop, 100_000, id="uvloop-many", marks=pytest.mark.long),
        pytest.param(asyncio.new_event_loop, 6_000, id="asyncio"),
    ],
)
def test_connections_that_are_aborted_in_any_phase_leave_nothing_behind(factory, connections):
    async def abort_all():
        rig = Rig(QUICK)
        crowd = Crowd(rig)
        gc.collect()
        gc.disable()
        try:
            before = left_over(rig)
            while crowd.batches * BATCH < connections:
                await PHASES[crowd.batches % len(PHASES)](crowd)
            assert left_over(rig) == before
            assert rig.bugs == []
        finally:
            gc.enable()
            rig.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(abort_all())
