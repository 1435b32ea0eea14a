"""Endpoints that lead back to the proxy through another one."""

from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import DataPlane, Serving, Tuning
from userspace_proxy.model import Protocol, SocketAddress

LIMIT = 200


async def test_a_loop_through_another_proxy_ends_and_leaves_room_for_others(build):
    """Neither can see that the other one leads back: it may be a load balancer between them."""
    house = build(Tuning(descriptor_limit=LIMIT))
    pod = house.endpoint()
    there = house.keep(DataPlane(house.plane.loop, Tuning(descriptor_limit=LIMIT)))
    looping, cart = house.service(pod.address), house.service(pod.address)
    group = there.open_group("shop/back:http", Serving((looping.address,)))
    back = there.listen(group, Protocol.TCP, SocketAddress("127.0.0.1", 0))
    house.update(looping, back.address)
    client = await house.client(looping)
    planes = house.plane, there
    await until(lambda: not all(plane.descriptors.is_accepting for plane in planes), "one is full")
    assert all(plane.descriptors.in_use <= LIMIT for plane in planes)
    other = await house.client(cart, source="127.0.0.2")
    await other.send(b"me too")
    assert await (await pod.accept()).read() == b"me too"
    assert await client.was_reset()
    await until(lambda: len(there.connections) == 0, "the loop has ended")
