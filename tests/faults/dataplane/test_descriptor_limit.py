import logging
import socket

from tests.unit.dataplane.rig import no_descriptors
from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import Tuning

CLIENTS = 100
PAUSED = "descriptor limit reached, accepting is paused"


async def test_at_the_limit_for_minutes_there_is_one_line_a_minute(build, timers, caplog):
    caplog.set_level(logging.WARNING)
    rig = build(Tuning(descriptor_limit=3), timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    in_use, _ = await rig.pair(web, pod)
    await rig.client(web)
    for _ in range(240):
        await in_use.send(b"more")
        await until(lambda: not rig.engine.descriptors.is_accepting, "accepting is paused again")
        timers.advance(0.75)
    assert [record.getMessage() for record in caplog.records] == [PAUSED] * 3
    assert pod.accept_now() is None


async def test_within_a_second_of_the_limits_end_all_waiting_clients_are_served(build, timers):
    rig = build(None, timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    waiting = [rig.keep(socket.socket()) for _ in range(CLIENTS)]
    with no_descriptors():
        for client in waiting:
            client.connect(web.address)
        await until(lambda: not rig.engine.descriptors.is_accepting, "accepting is paused")
    timers.advance(1)
    for _ in waiting:
        await pod.accept()
    assert len(rig.connections.open) == CLIENTS
