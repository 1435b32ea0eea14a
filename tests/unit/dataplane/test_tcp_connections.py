import pytest

from userspace_proxy.dataplane import Tuning

from .waiters import HOLD, count_waiting, limited, waiting
from .waiting import until


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
