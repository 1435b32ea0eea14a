from userspace_proxy.dataplane import Tuning

from .waiting import until


async def test_only_the_last_end_is_reported(house):
    told = []
    pod = house.endpoint()
    web = house.service(pod.address)
    pairs = [await house.pair(web, pod) for _ in range(2)]
    await until(lambda: len(house.connections) == 2)
    house.connections.on_idle = lambda: told.append(len(house.connections))
    for count, (client, server) in zip((1, 0), pairs, strict=True):
        assert told == []
        client.close()
        server.close()
        await until(lambda count=count: len(house.connections) == count)
    assert told == [0]


async def test_all_are_reset_and_counted(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    pairs = [await house.pair(web, pod) for _ in range(3)]
    assert house.connections.reset_all() == 3
    for client, server in pairs:
        assert await client.was_reset()
        assert await server.was_reset()
    assert house.connections.reset_all() == 0


async def test_a_drain_resets_clients_whose_dial_was_never_answered(build):
    house = build(Tuning(connect_timeout_s=60))
    web = house.service(house.silent())
    client = await house.client(web)
    await until(lambda: house.connections.open)
    assert await house.plane.drain(0) == 1
    assert await client.was_reset()
    assert web.group.totals().active == 0
