"""Connections to removed endpoints end, if the Service requests it."""

import logging

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.model import Handling

from .peers import exchange
from .rig import connection_lines
from .waiting import turns, until

AFTER_30_S = Handling(removal_s=30.0)


@pytest.fixture
async def rig(build, timers):
    return build(Tuning(connection_log=1.0), timers.clock, timers)


class Served:
    """A Service with two endpoints and a connection to the first one."""

    def __init__(self, rig, handling):
        self.rig = rig
        self.first, self.second = rig.endpoint(), rig.endpoint()
        self.web = rig.service(self.first.address, self.second.address, handling=handling)

    async def connect(self):
        self.client, self.server = await self.rig.pair(self.web, self.first)
        await until(lambda: all(c.up for c in self.rig.connections.open), "the join")

    def update(self, *endpoints, handling=AFTER_30_S, **others):
        self.rig.update(self.web, *(e.address for e in endpoints), handling=handling, **others)

    @property
    def is_open(self):
        return bool(self.rig.connections.open)


@pytest.fixture
async def served(rig):
    served = Served(rig, AFTER_30_S)
    await served.connect()
    return served


async def test_a_connection_to_a_removed_endpoint_is_reset_on_both_sides(served, timers, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    served.update(served.second)
    timers.advance(29.9)
    assert served.is_open
    timers.advance(0.1)
    await until(lambda: not served.is_open)
    assert await served.client.was_reset()
    assert await served.server.was_reset()
    assert served.web.group.counters.ended_by_removal == 1
    (line,) = connection_lines(caplog)
    assert (line.cause, line.ended_by) == ("endpoint removed", "proxy")
    assert timers.waiting == 1, "only the timer for checks of connections remains"


async def test_a_connection_started_while_the_endpoint_was_a_standby_continues(rig, timers):
    pod, dead = rig.endpoint(), rig.refusing()
    web = rig.service(pod.address, handling=AFTER_30_S)
    early, _ = await rig.joined(web, pod)
    rig.update(web, pod.address, dead, standbys=((pod.address, 1),), handling=AFTER_30_S)
    timers.advance(1)
    late, server = await rig.pair(web, pod)
    timers.advance(60)
    assert await early.was_reset()
    await late.send(b"still here")
    assert await server.read() == b"still here"


async def test_an_endpoint_returning_in_time_keeps_its_connections(served, timers):
    served.update(served.second)
    timers.advance(29)
    served.update(served.first, served.second)
    timers.advance(60)
    await served.client.send(b"still here")
    assert await served.server.read() == b"still here"
    served.update(served.second)
    timers.advance(29)
    assert served.is_open, "the removal time begins again"
    timers.advance(1)
    await until(lambda: not served.is_open)


async def test_a_closed_plane_leaves_no_removal_timer_behind(served, timers):
    served.update(served.second)
    served.rig.plane.close()
    assert timers.waiting == 0


async def test_connections_to_other_endpoints_and_services_continue(served, rig, timers):
    other = Served(rig, AFTER_30_S)
    await other.connect()
    client, server = await rig.pair(served.web, served.second)
    served.update(served.second)
    other.update(other.first)
    timers.advance(30)
    await until(lambda: len(rig.connections.open) == 2)
    await client.send(b"here")
    assert await server.read() == b"here"
    await other.client.send(b"here, too")
    assert await other.server.read() == b"here, too"


async def test_by_default_connections_continue_and_no_timer_is_set(rig, timers):
    served = Served(rig, Handling())
    await served.connect()
    before = timers.waiting
    served.update(served.second, handling=Handling())
    assert timers.waiting == before
    timers.advance(3600)
    await served.client.send(b"still here")
    assert await served.server.read() == b"still here"


async def test_a_service_can_enable_and_disable_the_removal_of_connections_later(rig, timers):
    served = Served(rig, Handling())
    await served.connect()
    served.update(served.second, handling=Handling())
    served.update(served.second)
    timers.advance(29)
    served.update(served.second, handling=Handling())
    timers.advance(60)
    assert served.is_open
    served.update(served.second, handling=Handling(removal_s=0.0))
    timers.advance(0)
    await until(lambda: not served.is_open)


async def test_enabling_removal_later_ends_connections_to_a_standby(rig, timers):
    served = Served(rig, Handling())
    await served.connect()
    both, standbys = (served.first, served.second), ((served.first.address, 1),)
    served.update(*both, standbys=standbys, handling=Handling())
    timers.advance(60)
    served.update(*both, standbys=standbys)
    timers.advance(29)
    await turns(3)
    assert served.is_open, "the removal time begins when the Service requests it"
    timers.advance(1)
    await until(lambda: not served.is_open)


async def test_removal_enabled_later_ends_connections_begun_before_the_last_removal(rig, timers):
    served = Served(rig, Handling())
    served.update(served.second, handling=Handling())
    served.update(served.first, handling=Handling())
    timers.advance(1)
    await served.connect()
    timers.advance(1)
    served.update(served.second, handling=Handling())
    served.update(served.second)
    timers.advance(30)
    await until(lambda: not served.is_open)


async def test_a_briefly_disabled_removal_still_ends_connections(rig, timers):
    served = Served(rig, AFTER_30_S)
    await served.connect()
    both, standbys = (served.first, served.second), ((served.first.address, 1),)
    served.update(*both, standbys=standbys)
    timers.advance(10)
    served.update(*both, standbys=standbys, handling=Handling())
    served.update(*both, standbys=standbys)
    timers.advance(30)
    await until(lambda: not served.is_open)


async def test_a_removed_endpoint_without_connections_is_dropped_after_3_s(rig, timers):
    first, second = rig.endpoint(), rig.endpoint()
    web = rig.service(first.address, second.address)
    rig.update(web, second.address)
    timers.advance(3.1)
    rig.update(web)
    assert list(web.group.left_at) == [second.address], "a dial to it may still be in progress"


async def test_a_shorter_removal_time_counts_from_the_removal(served, timers):
    served.update(served.second)
    timers.advance(10)
    served.update(served.second, handling=Handling(removal_s=15.0))
    timers.advance(5)
    await until(lambda: not served.is_open)


async def test_an_endpoint_restricted_to_inside_clients_loses_outside_connections(served, timers):
    inside = ("10.0.0.0/8",)
    served.update(served.first, served.second, outside=(served.second.address,), inside=inside)
    timers.advance(30)
    await until(lambda: not served.is_open)


async def test_connections_of_inside_clients_survive_a_removal_for_outside_clients(served, timers):
    inside = ("127.0.0.0/8",)
    served.update(served.first, served.second, outside=(served.second.address,), inside=inside)
    timers.advance(60)
    await served.client.send(b"still here")
    assert await served.server.read() == b"still here"


async def test_an_endpoint_removed_for_outside_clients_may_later_lose_inside_clients(rig, timers):
    sides = {"outside": (), "inside": ("127.0.0.0/8",)}
    served = Served(rig, AFTER_30_S)
    served.update(served.first, **sides)
    timers.advance(10)
    await served.connect()
    served.update(**sides)
    timers.advance(29)
    await turns(3)
    assert served.is_open
    timers.advance(1)
    await until(lambda: not served.is_open)


async def test_a_dial_in_progress_to_a_removed_endpoint_is_checked_again_later(rig, timers):
    silent = rig.silent()
    web = rig.service(silent, handling=Handling(removal_s=0.0))
    await rig.client(web)
    await until(lambda: all(c.endpoint for c in rig.connections.open))
    (connection,) = rig.connections.open
    pod = rig.endpoint()
    rig.update(web, pod.address, handling=Handling(removal_s=0.0))
    timers.advance(0)
    await until(lambda: len(rig.connections.removals._left) == 1, "another check of the connection")
    assert not connection.is_closed


async def asked(client, pod):
    """Send a question from a client to an endpoint; return the proxy's address that it sees."""
    client.send(b"question")
    return (await pod.receive_from())[1]


@pytest.fixture
async def flow(rig):
    """A Service, its client, the flow's endpoint (removed, still serving), another endpoint."""
    first, second = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(first.address, second.address, handling=AFTER_30_S)
    client = rig.udp_client(dns)
    await exchange(client, first)
    rig.update(dns, second.address, handling=AFTER_30_S, leaving=(first.address,))
    return dns, client, first, second


async def test_a_flow_to_a_removed_serving_endpoint_ends_after_the_removal_time(flow, timers, rig):
    _, client, first, second = flow
    timers.advance(29)
    await exchange(client, first)
    timers.advance(1)
    assert len(rig.flows) == 0
    await exchange(client, second)


async def test_a_flow_started_after_its_endpoint_left_the_other_side_continues(rig, timers):
    pod, other = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(pod.address, other.address, handling=AFTER_30_S)
    sides = {"outside": (other.address,), "inside": ("127.0.0.0/8",)}
    rig.update(dns, pod.address, handling=AFTER_30_S, **sides)
    timers.advance(1)
    client = rig.udp_client(dns)
    first = await asked(client, pod)
    timers.advance(29)
    second = await asked(client, pod)
    assert second == first


@pytest.mark.parametrize("handling", [Handling(), AFTER_30_S], ids=["default", "after-30-s"])
async def test_a_flow_continues_while_its_endpoint_serves_its_clients_side(rig, timers, handling):
    pod, other = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(pod.address, other.address, handling=handling)
    rig.update(dns, pod.address, handling=handling)
    client = rig.udp_client(dns)
    first = await asked(client, pod)
    sides = {"outside": (other.address,), "inside": ("127.0.0.0/8",)}
    rig.update(dns, pod.address, handling=handling, **sides)
    for _ in range(2):
        timers.advance(20)
        later = await asked(client, pod)
        assert later == first
    rig.update(dns, pod.address, handling=handling, outside=(other.address,))
    assert len(rig.flows) == 0


async def test_a_flow_started_after_its_endpoint_became_a_standby_continues(rig, timers):
    standby, active = rig.udp_peer(), rig.refusing_udp()
    dns = rig.udp_service(standby.address, handling=AFTER_30_S)
    standbys = ((standby.address, 1),)
    rig.update(dns, active, standby.address, handling=AFTER_30_S, standbys=standbys)
    timers.advance(1)
    client = rig.udp_client(dns)
    first = await asked(client, standby)
    timers.advance(29)
    second = await asked(client, standby)
    assert second == first


async def test_a_flow_ends_when_its_endpoint_no_longer_serves(flow, rig):
    dns, client, _, second = flow
    rig.update(dns, second.address, handling=AFTER_30_S)
    assert len(rig.flows) == 0
    await exchange(client, second)


async def test_a_flow_to_a_returning_endpoint_continues(flow, timers, rig):
    dns, client, first, second = flow
    rig.update(dns, first.address, second.address, handling=AFTER_30_S)
    for _ in range(2):
        timers.advance(20)
        await exchange(client, first)


async def test_connections_to_a_removed_endpoint_are_ended_in_batches(
    served, rig, monkeypatch, timers
):
    monkeypatch.setattr("userspace_proxy.dataplane.removals._SLICE", 1)
    more = [await rig.client(served.web) for _ in range(5)]
    await until(lambda: all(c.up for c in rig.connections.open) and len(rig.connections.open) == 6)
    to_first = sum(c.endpoint == served.first.address for c in rig.connections.open)
    served.update(served.second)
    timers.advance(30)
    await until(lambda: len(rig.connections.open) == 6 - to_first)
    assert served.web.group.counters.ended_by_removal == to_first >= 3
    assert len(more) == 5


async def test_a_flow_moved_to_a_standby_endpoint_continues(rig, timers):
    standby, active = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(active.address, handling=AFTER_30_S)
    client = rig.udp_client(dns)
    client.send(b"question")
    await active.receive_from()
    rig.update(dns, active.address, standby.address, handling=AFTER_30_S)
    standbys = ((standby.address, 1),)
    rig.update(dns, active.address, standby.address, handling=AFTER_30_S, standbys=standbys)
    timers.advance(0.5)
    active.close()
    first = await asked(client, standby)
    await standby.receive_from()
    for seconds in (15, 14.5):
        timers.advance(seconds)
        later = await asked(client, standby)
        assert later == first
