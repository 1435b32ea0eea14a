import errno
import socket

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BATCH
from userspace_proxy.model import Balance, Handling

from .rig import no_descriptors
from .waiting import until

TWO_CONNECTIONS = Tuning(descriptor_limit=5)
"""The listener's socket and two for each."""


async def serving_two(build):
    """Return a rig at its descriptor limit, its Service, and both ends of its connections."""
    rig = build(TWO_CONNECTIONS)
    pod, web = rig.served()
    return rig, web, pod, [await rig.pair(web, pod) for _ in range(2)]


async def test_a_queue_longer_than_a_batch_is_drained(rig):
    pod, web = rig.served()
    clients = [await rig.client(web) for _ in range(2 * BATCH + 1)]
    for _ in clients:
        await pod.accept()
    assert len(rig.connections.open) == len(clients)


async def test_at_the_descriptor_limit_clients_wait_in_the_queue(build):
    rig, web, pod, _ = await serving_two(build)
    waiting = await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    assert waiting.send_some(b"patience") == 8
    assert pod.accept_now() is None
    assert rig.engine.descriptors.in_use == 5


async def test_a_waiting_client_is_served_when_a_connection_ends(build):
    rig, web, pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await waiting.send(b"patience")
    await until(lambda: not rig.engine.descriptors.is_accepting)
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"patience"


async def test_a_paused_listener_that_cannot_be_watched_is_watched_later(build, monkeypatch):
    rig, web, pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await waiting.send(b"patience")
    await until(lambda: not rig.engine.descriptors.is_accepting)
    tries = []

    def out_of_watches(*_args):
        tries.append(1)
        return -errno.ENOSPC

    with monkeypatch.context() as patch:
        patch.setattr(rig.engine.reactor, "watch", out_of_watches)
        pairs[0][0].reset()
        await until(lambda: tries)
    assert await (await pod.accept()).read() == b"patience"


async def test_a_listener_that_refuses_while_it_is_paused_resets_waiting_clients(build):
    rig, web, _pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    rig.update(web)
    assert await waiting.was_reset()
    pairs[0][0].reset()
    await until(lambda: rig.engine.descriptors.is_accepting)
    with pytest.raises(ConnectionRefusedError):
        await rig.client(web)


async def test_a_listener_that_refused_and_served_while_it_was_paused_serves(build):
    rig, web, pod, pairs = await serving_two(build)
    await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    rig.update(web)
    rig.update(web, pod.address)
    later = await rig.client(web)
    await later.send(b"me too")
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"me too"
    pairs[1][0].reset()
    await rig.pair(web, pod)


async def test_a_listener_that_is_closed_while_it_is_paused_is_not_woken(build):
    rig, web, _pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    web.close()
    assert await waiting.was_reset()
    pairs[0][0].reset()
    await until(lambda: rig.engine.descriptors.is_accepting)


async def test_a_limit_that_listeners_fill_but_for_one_connection_serves_one_at_a_time(build):
    rig = build(Tuning(descriptor_limit=23))
    pod = rig.endpoint()
    services = [rig.service(pod.address) for _ in range(20)]
    for web in services[:2] * 2:
        client = await rig.client(web)
        (await pod.accept()).reset()
        assert await client.was_reset()


async def test_without_a_descriptor_for_accept_clients_wait_in_the_queue(rig):
    pod, web = rig.served()
    with socket.socket() as waiting:
        waiting.setblocking(False)
        with no_descriptors():
            waiting.connect_ex(web.address)
            await until(lambda: not rig.engine.descriptors.is_accepting)
            waiting.send(b"patience")
        assert await (await pod.accept()).read() == b"patience"


async def test_a_client_that_leaves_before_it_is_accepted_costs_nothing(rig):
    pod, web = rig.served()
    for _ in range(3):
        (await rig.client(web)).reset()
    await rig.pair(web, pod)
    await until(lambda: len(rig.connections.open) == 1)


@pytest.mark.parametrize("dead", ["silent", "refusing"])
async def test_a_dial_that_failed_is_no_load(build, dead):
    rig = build(Tuning(connect_timeout_s=0.02))
    web = rig.service(getattr(rig, dead)(), handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    assert await rig.resets_a_client(web)
    assert web.group.loads._dialling == {}
