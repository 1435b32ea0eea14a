"""The agent detects each added and removed address of its node."""

from __future__ import annotations

import asyncio

import pytest
import steering_nodes as nodes

from userspace_proxy.kernel.interface_addresses import NodeAddresses

pytestmark = pytest.mark.netns
LOOPBACK = ("127.0.0.1", "::1")
# More events than a socket's queue can hold.
MANY = 2000


class Followed:
    """A node, its addresses, and the number of their changes."""

    def __init__(self, net: nodes.Net) -> None:
        self.net = net
        self.changes = 0
        self._news = asyncio.Event()
        with net:
            self.addresses = NodeAddresses(asyncio.get_running_loop(), self._changed)

    async def until(self, expected: tuple[str, ...]) -> None:
        async with asyncio.timeout(nodes.DEADLINE_S):
            while self.addresses.current != expected:
                self._news.clear()
                await self._news.wait()

    def _changed(self) -> None:
        self.changes += 1
        self._news.set()


@pytest.fixture
async def node():
    nodes.need_namespaces()
    net = nodes.Net("node")
    followed = Followed(net)
    yield followed
    followed.addresses.close()
    net.close()


async def test_an_added_and_a_removed_address_are_reported(node):
    node.net.run("ip address add 10.1.0.1/24 dev lo")
    await node.until(("10.1.0.1", *LOOPBACK))
    node.net.run("ip address del 10.1.0.1/24 dev lo")
    await node.until(LOOPBACK)
    assert node.changes == 2


async def test_an_ipv6_address_is_reported_after_duplicate_address_detection(node):
    node.net.run("""
        ip link add pod0 type veth peer name eth0
        ip link set eth0 up
        ip link set pod0 up
        ip address add fd00:1::1/64 dev pod0""")
    await node.until(("127.0.0.1", "::1", "fd00:1::1"))
    node.net.run("ip link del pod0")
    await node.until(LOOPBACK)


async def test_overflowing_the_event_queue_loses_no_address(node):
    # Add the addresses while the event loop is blocked, so that the queue of events overflows.
    lines = "\n".join(f"address add 10.{i // 250}.{i % 250}.1/32 dev lo" for i in range(MANY))
    node.net.run(f"ip -batch - <<END\n{lines}\nEND")
    expected = sorted([f"10.{i // 250}.{i % 250}.1" for i in range(MANY)] + [*LOOPBACK])
    await node.until(tuple(expected))
