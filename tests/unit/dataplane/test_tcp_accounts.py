"""What a Service port knows of its connections at each of the border's calls."""

from userspace_proxy.dataplane.connection_log import ConnectionLog

from .rig import connection_lines
from .waiting import until


async def test_a_connection_is_counted_when_it_begins_is_answered_and_ends(rig):
    pod, web = rig.served()
    client, server = await rig.joined(web, pod)
    counters = web.group.counters_of(pod.address)
    assert (counters.connections, counters.active) == (1, 1)
    assert (web.group.connect_times.count, web.group.first_byte_times.count) == (1, 0)
    await client.send(b"question")
    assert await server.read() == b"question"
    await server.send(b"answer")
    assert await client.read() == b"answer"
    assert web.group.first_byte_times.count == 1
    client.reset()
    await until(lambda: not rig.connections.open)
    assert (counters.connections, counters.active) == (1, 0)
    assert [(call.number, call.failed) for call in rig.engine.calls.take()[0]] == [(1, 0)]


async def test_a_client_without_an_endpoint_counts_as_failed(rig):
    web = rig.service(rig.refusing())
    assert await rig.resets_a_client(web)
    assert [(call.number, call.failed) for call in rig.engine.calls.take()[0]] == [(1, 1)]


async def test_a_log_that_begins_meanwhile_has_the_end(rig, caplog):
    pod, web = rig.served()
    caplog.set_level("INFO")
    client, _ = await rig.joined(web, pod)
    address = client.address
    rig.engine.connection_log = ConnectionLog(1.0)
    client.reset()
    await until(lambda: not rig.connections.open)
    assert [line.client for line in connection_lines(caplog)] == [str(address)]
