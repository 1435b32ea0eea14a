import gc
import random

from tests.unit.dataplane.house import open_sockets
from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tcp import TcpConnection

CONNECTIONS = 1500
AT_ONCE = 50
QUICK = Tuning(connect_timeout_s=0.01, last_connect_timeout_s=0.01)


async def abort_during_the_dial(house, silent, _pod, _rng):
    client = await house.client(silent)
    client.reset()


async def abort_during_the_transfer(house, web, pod, rng):
    client, server = await house.pair(web, pod)
    client.send_some(rng.randbytes(rng.randrange(1, 300_000)))
    server.send_some(rng.randbytes(rng.randrange(1, 300_000)))
    rng.choice([client, server]).reset()
    return client, server


async def abort_after_a_half_close(house, web, pod, rng):
    client, server = await house.pair(web, pod)
    ends = [client, server]
    rng.shuffle(ends)
    ends[0].finish()
    assert await ends[1].read() == b""
    rng.choice(ends).reset()
    return client, server


async def test_connections_that_are_aborted_in_any_phase_leave_nothing_behind(build):
    house = build(QUICK)
    pod = house.endpoint()
    web, silent = house.service(pod.address), house.service(house.silent(), house.silent())
    rng = random.Random(1)
    before = open_sockets()
    for done in range(CONNECTIONS):
        phase = (abort_during_the_dial, abort_during_the_transfer, abort_after_a_half_close)[
            done % 3
        ]
        ends = await phase(house, silent if done % 3 == 0 else web, pod, rng)
        for end in ends or ():
            end.close()
        if done % AT_ONCE == 0:
            await until(lambda: not house.plane.connections)
    await until(lambda: not house.plane.connections)
    assert open_sockets() == before
    assert not [thing for thing in gc.get_objects() if isinstance(thing, TcpConnection)]
    assert web.group.totals().active == silent.group.totals().active == 0
