import errno
import logging

from userspace_proxy.dataplane import EndpointGroup, Serving
from userspace_proxy.model import SocketAddress

from .waiting import until

ALICE, BOB, CAROL = "10.1.0.1", "10.1.0.2", "10.1.0.3"


def fail(house, group, client, endpoint):
    """Do what a failed dial from a client's address does."""
    group.dial_failed(endpoint, errno.ETIMEDOUT, house.engine.reactor.now)
    house.connections.probes.request(group, client, endpoint)


def groups(house, endpoint, *labels):
    return [EndpointGroup(label, Serving((endpoint,))) for label in labels]


def is_out(house, group, endpoint):
    return endpoint in group.ejected(house.engine.reactor.now)


def knows(house, client, endpoint):
    return house.connections.probes.is_denied(client, endpoint, house.engine.reactor.clock())


async def test_all_requests_during_a_probe_get_its_answer(house, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.dataplane")
    endpoint = house.endpoint().address
    web, shop, dns = groups(house, endpoint, "shop/web", "shop/shop", "shop/dns")
    for group, client in ((web, ALICE), (web, BOB), (shop, ALICE), (dns, CAROL)):
        fail(house, group, client, endpoint)
    assert all(is_out(house, group, endpoint) for group in (web, shop, dns))
    await until(lambda: not house.connections.probes._under_way, "the probe's end")
    assert not any(is_out(house, group, endpoint) for group in (web, shop, dns))
    assert all(knows(house, client, endpoint) for client in (ALICE, BOB, CAROL))
    told = [
        (record.service, record.client)
        for record in caplog.records
        if record.message == "endpoint answers this node, but not this client"
    ]
    assert told == [("shop/web", ALICE), ("shop/shop", ALICE), ("shop/dns", CAROL)]


async def test_an_endpoint_that_never_answers_stays_ejected_for_all(house):
    endpoint = house.refusing()
    web, shop = groups(house, endpoint, "shop/web", "shop/shop")
    fail(house, web, ALICE, endpoint)
    fail(house, shop, BOB, endpoint)
    await until(lambda: not house.connections.probes._under_way, "the probe's end")
    assert is_out(house, web, endpoint)
    assert is_out(house, shop, endpoint)
    assert not knows(house, ALICE, endpoint)


async def test_an_answer_of_one_endpoint_proves_nothing_about_another(house):
    endpoint, other = house.endpoint().address, SocketAddress("127.0.0.9", 9)
    (web,) = groups(house, endpoint, "shop/web")
    fail(house, web, ALICE, endpoint)
    await until(lambda: knows(house, ALICE, endpoint), "the answer")
    assert not knows(house, ALICE, other)
    assert not knows(house, BOB, endpoint)
