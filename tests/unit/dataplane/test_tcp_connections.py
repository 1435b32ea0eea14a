import pytest

from userspace_proxy.dataplane import Tuning

from .waiters import HOLD, count_waiting, limited, waiting
from .waiting import until


async def test_only_the_last_end_is_reported(rig):
    told = []
    pod = rig.endpoint()
    web = rig.service(pod.address)
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
    pod = rig.endpoint()
    web = rig.service(pod.address)
    pairs = [await rig.pair(web, pod) for _ in range(3)]
    assert rig.connections.reset_all() == 3
    for client, server in pairs:
        assert await client.was_reset()
        assert await server.was_reset()
    assert rig.connections.reset_all() == 0


async def test_a_drain_resets_clients_whose_dial_was_never_answered(build):
    rig = build(Tuning(connect_timeout_s=60))
    web = rig.service(rig.silent())
    client = await rig.client(web)
    await until(lambda: rig.connections.open)
    assert await rig.plane.drain(0) == 1
    assert await client.was_reset()
    assert web.group.totals().active == 0


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
