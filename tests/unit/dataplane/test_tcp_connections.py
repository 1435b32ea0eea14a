import contextlib
import random

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.shedding import evict
from userspace_proxy.model import Balance, Handling, Hold

from .waiters import HOLD, count_waiting, limited, waiting
from .waiting import turns, until


async def test_only_the_last_end_is_reported(rig):
    told = []
    pod, web = rig.served()
    pairs = [await rig.pair(web, pod) for _ in range(2)]
    await until(lambda: len(rig.connections) == 2)
    rig.connections.on_idle = lambda: told.append(len(rig.connections))
    for count, (client, server) in zip((1, 0), pairs, strict=True):
        assert told == []
        client.close()
        server.close()
        await until(lambda count=count: len(rig.connections) == count)
    assert told == [0]


async def test_all_are_reset_and_counted(rig):
    pod, web = rig.served()
    pairs = [await rig.pair(web, pod) for _ in range(3)]
    assert rig.connections.reset_all() == 3
    for client, server in pairs:
        assert await client.was_reset()
        assert await server.was_reset()
    assert rig.connections.reset_all() == 0


async def test_connections_are_kept_in_the_order_of_their_acceptance(rig):
    pod, web = rig.served()
    ports = [(await rig.pair(web, pod))[0].sock.getsockname()[1] for _ in range(32)]
    assert [connection.address[1] for connection in rig.connections.open] == ports


async def test_a_client_that_has_waited_is_idle_since_an_endpoint_answered(build, timers):
    rig = build(Tuning(), timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address, **limited(1))
    first = await rig.pair(web, pod)
    timers.advance(1.0)
    (waited,) = await waiting(rig, web, 1)
    waiter = list(rig.connections.open)[-1]
    accepted_at = timers.clock()
    timers.advance(3.0)
    assert waiter.idle_since(timers.clock()) == accepted_at
    for end in first:
        end.close()
    await pod.accept()
    await until(lambda: waiter.up, "the dial is answered")
    answered_at = timers.clock()
    # The first look is yet to come.
    timers.advance(0.25)
    assert waiter.idle_since(timers.clock()) == answered_at > accepted_at + 2.0
    waited.close()


@pytest.mark.parametrize("reason", ["hold", "limit"])
async def test_clients_that_wait_are_reset_when_their_service_is_deleted(rig, reason):
    pod = rig.endpoint()
    if reason == "hold":
        web = rig.service(**HOLD)
    else:
        web = rig.service(pod.address, **limited(1))
        await rig.pair(web, pod)
    clients = await waiting(rig, web, 20)
    web.close()
    for client in clients:
        assert await client.was_reset()
    assert count_waiting(web) == 0


async def test_a_connection_that_has_waited_ends_with_a_fin(rig):
    web = rig.service(**HOLD)
    (client,) = await waiting(rig, web, 1)
    pod = rig.endpoint()
    rig.update(web, pod.address, **HOLD)
    server = await pod.accept()
    client.finish()
    assert await server.read_all() == b""
    await server.send(b"answer")
    server.close()
    assert await client.read_all() == b"answer"


class Chaos:
    """A Service with limits whose clients, servers and settings do something else at each step."""

    def __init__(self, rig, seed):
        self.rig = rig
        self.random = random.Random(seed)
        # Without a limit dials aren't counted, and none that was forgotten shows.
        self.limits = [1, 2, 3] if seed % 2 else [None, 1, 2]
        self.pods = [rig.endpoint() for _ in range(3)]
        self.endpoints = [*(pod.address for pod in self.pods), rig.refusing(), rig.silent()]
        self.web = rig.service(*self.endpoints, **self.serving(self.endpoints))
        self.clients = []
        self.servers = []

    def some(self, endpoints, part):
        return [endpoint for endpoint in endpoints if self.random.random() < part]

    def serving(self, endpoints):
        choose = self.random.choice
        return {
            "affinity_timeout_s": choose([None, None, 60]),
            "standbys": tuple((endpoint, 1) for endpoint in self.some(endpoints, 0.2)),
            "weights": tuple((endpoint, 7) for endpoint in self.some(endpoints, 0.2)),
            "handling": Handling(
                balance=choose(list(Balance)),
                max_connections=choose(self.limits),
                hold=choose([None, Hold(60, 8)]),
                removal_s=choose([None, 0.0, 0.01]),
            ),
        }

    async def step(self):
        connections = list(self.rig.connections.open)
        (what,) = self.random.choices(["dial", "end", "evict", "update"], [6, 6, 1, 2])
        with contextlib.suppress(OSError):
            if what == "dial":
                source = self.random.choice(["127.0.0.1", "127.0.0.2"])
                self.clients.append(await self.rig.client(self.web, source=source))
            elif what == "end" and (peers := [*self.clients, *self.servers]):
                peer = self.random.choice(peers)
                self.random.choice([peer.reset, peer.finish])()
            elif what == "evict" and connections:
                evict(self.random.choice(connections), for_memory=False)
            elif what == "update":
                endpoints = self.some(self.endpoints, 0.7)
                self.rig.update(self.web, *endpoints, **self.serving(endpoints))
        await turns(self.random.randrange(4))
        self.accept()

    def accept(self):
        for pod in self.pods:
            while (server := pod.accept_now()) is not None:
                self.servers.append(self.rig.keep(server))

    def has_ended(self):
        self.accept()
        for peer in [*self.clients, *self.servers]:
            peer.close()
        return not self.rig.connections.open


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_nothing_counts_as_open_or_waiting_in_the_end(build, seed):
    chaos = Chaos(build(Tuning(connect_timeout_s=0.02)), seed)
    group = chaos.web.group
    for _ in range(100):
        await chaos.step()
        assert count_waiting(chaos.web) == sum(
            c.dial.is_waiting for c in chaos.rig.connections.open
        )
    chaos.rig.update(chaos.web, **chaos.serving([]))
    await until(chaos.has_ended)
    assert count_waiting(chaos.web) == group.totals().active == 0
    assert [group.loads.of(endpoint) for endpoint in chaos.endpoints] == [0] * 5
