"""An endpoint that is another proxy, whose endpoint is this proxy."""

from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import Tuning

LIMIT = 200


async def test_a_loop_through_another_proxy_ends_and_leaves_room_for_other_clients(build):
    """Neither proxy can detect the loop, because a load balancer may be between them."""
    rig = build(Tuning(descriptor_limit=LIMIT))
    pod = rig.endpoint()
    there = build(Tuning(descriptor_limit=LIMIT))
    looping, cart = rig.service(pod.address), rig.service(pod.address)
    rig.update(looping, there.service(looping.address).address)
    client = await rig.client(looping)
    limits = rig.engine.descriptors, there.engine.descriptors
    await until(lambda: not all(limit.is_accepting for limit in limits), "one is full")
    assert all(limit.in_use <= LIMIT for limit in limits)
    other = await rig.client(cart, source="127.0.0.2")
    await other.send(b"me too")
    assert await (await pod.accept()).read() == b"me too"
    assert await client.was_reset()
    await until(lambda: not there.connections.open, "the loop has ended")
