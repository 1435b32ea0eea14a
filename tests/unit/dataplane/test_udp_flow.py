import errno

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BATCH, DIALS

from .house import UNREACHABLE, no_descriptors
from .peers import UdpPeer, exchange
from .waiting import turns, until

# -- endpoints that refuse ---------------------------------------------------


async def test_a_flow_moves_on_from_an_endpoint_that_refuses_with_its_first_datagram(house):
    pod, dead = house.udp_peer(), house.refusing_udp()
    dns = house.udp_service(dead, pod.address)
    await exchange(house.udp_client(dns), pod)
    assert dns.group.balancer.ejected(house.engine.reactor.now).keys() == {dead}
    assert [dns.group.counters_of(one).active for one in (dead, pod.address)] == [0, 1]


async def test_two_questions_at_once_both_move_on(house):
    """glibc asks for A and AAAA at once, and waits 5 s for the one that is lost."""
    pod = house.udp_peer()
    client = house.udp_client(house.udp_service(house.refusing_udp(), pod.address))
    client.send(b"A")
    client.send(b"AAAA")
    assert {await pod.receive(), await pod.receive()} == {b"A", b"AAAA"}


async def test_a_flow_moves_on_from_an_endpoint_that_cannot_be_reached(house):
    pod = house.udp_peer()
    dns = house.udp_service(UNREACHABLE, pod.address)
    await exchange(house.udp_client(dns), pod)
    assert dns.group.counters_of(UNREACHABLE).failures == 1


async def test_a_datagram_tries_a_few_endpoints_and_the_next_one_others(house):
    pod = house.udp_peer()
    dead = [UNREACHABLE._replace(port=port) for port in range(1, DIALS + 1)]
    dns = house.udp_service(*dead, pod.address)
    client = house.udp_client(dns)
    client.send(b"lost")
    await until(lambda: dns.group.counters.refused)
    assert dns.group.totals().failures == DIALS
    await exchange(client, pod)


async def test_a_flow_that_all_endpoints_refuse_ends(house):
    dead = [house.refusing_udp() for _ in range(3)]
    dns = house.udp_service(*dead)
    house.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused)
    assert [dns.group.counters_of(one).failures for one in dead] == [1, 1, 1]
    assert len(house.flows) == 0


async def test_a_flow_whose_endpoint_dies_continues_with_another_one(house):
    pods = [house.udp_peer() for _ in range(2)]
    dns = house.udp_service(*(pod.address for pod in pods))
    client = house.udp_client(dns)
    await exchange(client, pods[0])
    pods[0].close()
    client.send(b"lost with the endpoint")
    await until(lambda: not house.flows)
    await exchange(client, pods[1])


async def test_a_first_datagram_that_is_too_large_to_be_kept_is_not_sent_again(house):
    pod = house.udp_peer()
    dns = house.udp_service(house.refusing_udp(), pod.address)
    client = house.udp_client(dns)
    client.send(bytes(3000))
    await until(lambda: dns.group.totals().failures)
    await exchange(client, pod)


async def test_a_late_refusal_sends_nothing_again(build, timers):
    """What a syslog client sent to an endpoint an hour before it died has arrived there."""
    house = build(Tuning(udp_idle_s=9999), timers.clock, timers)
    old, new = house.udp_peer(), house.udp_peer()
    client = house.udp_client(house.udp_service(old.address, new.address))
    client.send(b"long ago")
    assert await old.receive() == b"long ago"
    timers.advance(3600)
    old.close()
    client.send(b"refused")
    await until(lambda: not house.flows)
    client.send(b"today")
    assert await new.receive() == b"today"


async def test_a_refusal_that_arrives_late_sends_nothing_again(build, timers):
    house = build(Tuning(udp_idle_s=9999), timers.clock, timers)
    old, new = house.udp_peer(), house.udp_peer()
    client = house.udp_client(house.udp_service(old.address, new.address))
    client.send(b"long ago")
    assert await old.receive() == b"long ago"
    timers.advance(3600)
    old.close()
    house.flow.sock.send(b"refused")
    await until(lambda: not house.flows)
    assert new.received() == []


async def test_an_endpoint_that_only_listens_is_back_when_it_does_not_refuse(build, timers):
    house = build(None, timers.clock, timers)
    pod = house.udp_peer()
    syslog = house.udp_service(pod.address)
    syslog.group.dial_failed(pod.address, errno.ECONNREFUSED, timers.now)
    client = house.udp_client(syslog)
    for _ in range(2):
        client.send(b"message")
        assert await pod.receive() == b"message"
        timers.advance(2)
    assert syslog.group.balancer.ejected(timers.now) == {}


async def revived(house, pod):
    """Return an endpoint at the address of one that was closed."""
    return house.keep(UdpPeer(port=pod.address.port))


@pytest.mark.parametrize("first", ["datagram", "error"])
async def test_an_old_refusal_does_not_cost_a_datagram_to_be_sent(house, first):
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    client = house.udp_client(dns)
    await exchange(client, pod)
    pod.close()
    # The refusal arrives now, and hasn't been read when the endpoint is back.
    house.flow.sock.send(b"lost")
    back = await revived(house, pod)
    client.send(b"good")
    if first == "datagram":
        dns.carrier._on_readable(0)
    assert await back.receive() == b"good"


@pytest.mark.parametrize("quiet_turns", [0, 2])
async def test_an_old_refusal_does_not_cost_an_answer_that_has_arrived(house, quiet_turns):
    pod = house.udp_peer()
    client = house.udp_client(house.udp_service(pod.address))
    proxy = await exchange(client, pod)
    for _ in range(quiet_turns):
        house.engine.reactor._dispatch()
    pod.send_to(b"good", proxy)
    pod.close()
    house.flow.sock.send(b"lost")
    assert await client.receive() == b"good"


async def test_news_of_a_smaller_path_mtu_is_no_refusal(house):
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    client = house.udp_client(dns)
    await exchange(client, pod)
    flow = house.flow
    sock, flow.sock = flow.sock, TooBig()
    flow.on_endpoint(0)
    flow.sock = sock
    assert dns.group.totals().failures == 0
    await exchange(client, pod)


class TooBig:
    """A socket that has news of the path's MTU, and nothing else."""

    def __init__(self):
        self._errors = [BlockingIOError(), OSError(errno.EMSGSIZE, "Message too long")]

    def recv_into(self, _buffer):
        raise self._errors.pop()


# -- shortages of this node --------------------------------------------------


async def test_a_flow_without_a_descriptor_is_dropped_and_ejects_nothing(house):
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    client = house.udp_client(dns)
    with no_descriptors():
        client.send(b"question")
        await until(lambda: dns.group.counters.refused)
    assert dns.group.counters.shortages == 1
    await exchange(client, pod)


async def test_a_flow_that_cannot_be_watched_leaves_nothing_behind(house, monkeypatch):
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    client = house.udp_client(dns)

    def out_of_watches(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(house.engine.reactor, "register", out_of_watches)
        client.send(b"question")
        await until(lambda: dns.group.counters.refused)
    assert (dns.group.totals().active, len(house.flows)) == (0, 0)
    await exchange(client, pod)


# -- the life of a flow ------------------------------------------------------


@pytest.mark.parametrize(("exchanges", "lasts"), [(1, 30), (2, 120)])
async def test_a_flow_ends_when_it_was_idle(build, timers, exchanges, lasts):
    house = build(None, timers.clock, timers)
    pod = house.udp_peer()
    client = house.udp_client(house.udp_service(pod.address))
    for _ in range(exchanges):
        await exchange(client, pod)
    timers.advance(lasts - 1)
    assert len(house.flows) == 1
    timers.advance(2)
    assert len(house.flows) == 0
    assert timers.waiting == 0
    await exchange(client, pod)


async def test_a_full_table_ends_the_flow_that_was_idle_for_longest(build, timers):
    house = build(Tuning(max_flows=2), timers.clock, timers)
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    alice, bob, carol = (house.udp_client(dns) for _ in range(3))
    first = [await exchange(client, pod) for client in (alice, bob)]
    timers.advance(5)
    assert await exchange(alice, pod) == first[0]
    await exchange(carol, pod)
    assert (len(house.flows), dns.group.counters.evicted_flows) == (2, 1)
    assert await exchange(alice, pod) == first[0]
    assert await exchange(bob, pod) != first[1]


async def test_a_flow_for_which_there_is_no_room_takes_that_of_another(build):
    house = build(Tuning(descriptor_limit=2, max_flows=10))
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    for _ in range(3):
        await exchange(house.udp_client(dns), pod)
    assert (len(house.flows), dns.group.counters.evicted_flows) == (1, 2)


async def test_without_any_room_a_datagram_is_dropped(build):
    house = build(Tuning(descriptor_limit=1))
    dns = house.udp_service(house.udp_peer().address)
    house.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused == 1)


async def test_a_flow_whose_endpoint_is_removed_continues_with_another_one_at_once(house):
    pods = [house.udp_peer() for _ in range(2)]
    dns = house.udp_service(pods[0].address)
    client, other = house.udp_client(dns), house.udp_client(dns)
    old = await exchange(client, pods[0])
    await exchange(other, pods[0])
    house.update(dns, pods[1].address)
    assert len(house.flows) == 0
    pods[0].send_to(b"too late", old)
    await exchange(client, pods[1])
    assert client.received() == []


async def test_flows_of_endpoints_that_stay_go_on(house):
    pods = [house.udp_peer() for _ in range(2)]
    dns = house.udp_service(*(pod.address for pod in pods))
    clients = [house.udp_client(dns) for _ in pods]
    seen = [await exchange(client, pod) for client, pod in zip(clients, pods, strict=True)]
    house.update(dns, pods[1].address)
    assert await exchange(clients[1], pods[1]) == seen[1]


async def test_a_closed_listener_ends_its_flows_and_no_others(house):
    pod = house.udp_peer()
    dns, ntp = house.udp_service(pod.address), house.udp_service(pod.address)
    await exchange(house.udp_client(dns), pod)
    await exchange(house.udp_client(ntp), pod)
    dns.close()
    assert len(house.flows) == 1
    assert dns.group.on_removed == []


async def test_a_flow_that_ends_while_it_waits_for_its_turn_is_left_alone(house):
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    client = house.udp_client(dns)
    proxy = await exchange(client, pod)
    for _ in range(2 * BATCH):
        pod.send_to(b"answer", proxy)
    flow = house.flow
    flow.on_endpoint(0)
    dns.close()
    await turns(5)
    assert house.bugs == []
