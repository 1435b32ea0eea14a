"""Connections on the kernel path, by Service port; tests/node has real ones."""

import asyncio
from typing import ClassVar

import pytest

from userspace_proxy.agent.rounds.tasks import READING_S
from userspace_proxy.agent.watchers import kernel_counts
from userspace_proxy.agent.watchers.kernel_counts import KernelCounts
from userspace_proxy.causes.services import dials_other_port
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import DataPath, Frontend, Handling, Protocol
from userspace_proxy.steering import Bind
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..samples import Cluster

WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)
KERNEL = Handling(path=DataPath.KERNEL)
POD = "192.0.2.1"


class Counting:
    """A Service web on the kernel path, a Service cart that isn't on it, and a clock."""

    def __init__(self, make):
        self.now = 0.0
        self.cluster = Cluster()
        self.served_ports = make(Bind.PROXY_PORT)
        self.cluster.serve("cart", CART.ip, POD)
        self.serve(KERNEL)
        self.steering = FakeSteering()
        self.counts = KernelCounts(self.steering, self.served_ports, lambda: self.now)

    def serve(self, handling):
        self.served_ports.follow(self.cluster.serve("web", WEB.ip, POD, handling=handling))

    async def read(self, counted):
        """Return both Services' numbers and the sum at the next reading."""
        self.now += READING_S
        self.steering.counted = counted
        await self.counts.refresh()
        shown = {one.plan.key.name.name: one.path.kernel_connections for one in self.served_ports}
        return shown["web"], shown["cart"], self.counts.total


@pytest.fixture
def counting(make):
    return Counting(make)


async def test_counted_connections_are_attributed_to_the_frontends_service_port(counting):
    assert await counting.read({}) == (0, None, 0)
    assert await counting.read({WEB: 3}) == (3, None, 3)
    assert await counting.read({WEB: 5}) == (5, None, 5)
    assert counting.served_ports.steered.targets().keys() == {WEB, CART}


async def test_counts_are_kept_while_a_service_port_leaves_the_kernel_path(counting):
    await counting.read({WEB: 3})
    counting.serve(Handling())
    assert await counting.read({WEB: 3}) == (3, None, 3)
    counting.serve(KERNEL)
    assert await counting.read({WEB: 4}) == (4, None, 4)


async def test_a_frontends_restarted_counter_adds_to_its_connection_count(counting):
    await counting.read({WEB: 9})
    assert await counting.read({WEB: 2}) == (11, None, 11)


async def test_the_total_of_connections_includes_removed_services(counting):
    await counting.read({WEB: 9})
    counting.served_ports.follow(counting.cluster.remove("web"))
    counting.now += READING_S
    counting.steering.counted = {}
    await counting.counts.refresh()
    assert counting.counts.total == 9


async def test_dials_of_ports_that_a_cluster_ip_lacks_are_shown_by_its_services_first_port(
    counting,
):
    class Refusing(FakeSteering):
        others: ClassVar = {Frontend("10.96.0.9", n, Protocol.TCP): n for n in (81, 9)}

        async def other_ports(self):
            return self.others

    steering = Refusing()
    counts = KernelCounts(steering, counting.served_ports, lambda: counting.now)
    counting.served_ports.follow(counting.cluster.serve_large(2))

    async def shown():
        counting.now += READING_S
        await counts.refresh()
        ports = ((one.plan.key.name.port, one.other_ports) for one in counting.served_ports)
        return {name: cause for name, cause in ports if cause is not None}

    ports = ("10.96.0.9:9/TCP", "10.96.0.9:81/TCP"), ("10.96.0.9:1/TCP", "10.96.0.9:2/TCP")
    assert await shown() == {"p00001": dials_other_port(*ports).replace(count=90)}
    steering.others = {}
    assert await shown() == {}


async def test_connection_counts_are_none_without_accounting(counting):
    assert await counting.read(None) == (None, None, None)
    await counting.read({WEB: 9})
    assert await counting.read(None) == (None, None, None)


async def test_a_failed_read_keeps_the_last_counts(counting):
    await counting.read({WEB: 9})
    counting.steering.fails_with = SteeringError("no buffer space")
    assert await counting.read({WEB: 10}) == (9, None, 9)
    counting.steering.fails_with = None
    assert await counting.read({WEB: 10}) == (10, None, 10)


async def test_a_slow_read_of_the_counters_times_out(counting, monkeypatch):
    class Busy(FakeSteering):
        async def kernel_connections(self):
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(kernel_counts, "_WAIT_S", 0.01)
    await counting.read({WEB: 9})
    counts = KernelCounts(Busy(), counting.served_ports, lambda: counting.now)
    await counts.refresh()
    assert counts.total is None
    assert {one.path.kernel_connections for one in counting.served_ports} == {9, None}


async def test_reads_of_counters_are_shared_and_take_a_small_share_of_the_time(counting):
    class Slow(FakeSteering):
        readings = 0

        async def kernel_connections(self):
            self.readings += 1
            counting.now += 0.5
            return {}

    slow = Slow()
    counts = KernelCounts(slow, counting.served_ports, lambda: counting.now)
    await asyncio.gather(*(counts.refresh() for _ in range(5)))
    assert slow.readings == 1
    counting.now += 9.0
    await counts.refresh()
    assert slow.readings == 1
    counting.now += 1.0
    await counts.refresh()
    assert slow.readings == 2
