import errno
from types import SimpleNamespace

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.udp_flow import UdpFlow
from userspace_proxy.kernel.ephemeral import EPHEMERAL

from .limits import MIB, Limit
from .peers import UdpPeer, exchange
from .rig import UNREACHABLE
from .waiters import HOLD, count_waiting, limited, waited
from .waiting import until


async def test_the_flow_table_uses_a_quarter_of_the_descriptors_unless_configured(build):
    assert build(Tuning(descriptor_limit=1000)).flows.max_flows == 250
    assert build(Tuning(descriptor_limit=1000, max_flows=7)).flows.max_flows == 7


@pytest.mark.parametrize("processes", [1, 4])
async def test_the_flows_of_all_processes_use_at_most_half_of_the_ephemeral_ports(build, processes):
    tables = build(Tuning(descriptor_limit=1 << 20, processes=processes)).flows.max_flows
    ports = EPHEMERAL.count(now=0.0)
    assert ports // 2 - processes < tables * processes <= ports // 2


async def test_idle_flows_end_and_leave_no_timer(build, timers):
    rig = build(Tuning(udp_idle_s=5.0), timers.clock, timers)
    pod = rig.udp_peer()
    rig.udp_client(rig.udp_service(pod.address)).send(b"question")
    await until(lambda: len(rig.flows) == 1)
    timers.advance(4.0)
    assert (len(rig.flows), timers.waiting) == (1, 1)
    timers.advance(2.0)
    assert (len(rig.flows), timers.waiting) == (0, 0)


async def test_during_a_memory_shortage_a_new_flow_replaces_another_flow(timed, timers):
    peer = timed.udp_peer()
    dns = timed.udp_service(peer.address)
    limit = Limit(0)
    # 1/64 of this is enough for two flows.
    limit.limit = 2 * MIB
    timed.dataplane.engine.memory.watch(lambda: [limit])
    limit.used_mib = 2
    timers.advance(0.25)
    for _ in range(4):
        timed.udp_client(dns).send(b"question")
        assert (await peer.receive_from())[0] == b"question"
    assert (len(timed.flows), dns.group.counters.evicted) == (2, 2)


async def test_the_first_datagrams_of_a_flow_wait_for_the_first_endpoint(rig):
    dns = rig.udp_service(**HOLD)
    client, other = rig.udp_client(dns), rig.udp_client(dns)
    for number in range(16):
        client.send(b"%d" % number)
    await until(lambda: dns.group.counters.dropped_datagrams == 8)
    other.send(b"another's")
    await until(lambda: (count_waiting(dns), waited(dns)) == (2, 2))
    pod = rig.udp_peer()
    rig.update(dns, pod.address, **HOLD)
    for number in range(8):
        question, at = await pod.receive_from()
        assert question == b"%d" % number
    pod.send_to(b"answer", at)
    assert await client.receive() == b"answer"
    assert await pod.receive() == b"another's"
    assert count_waiting(dns) == 0


async def test_at_most_16_kib_of_a_flow_are_held(rig):
    dns = rig.udp_service(**HOLD)
    client = rig.udp_client(dns)
    for _ in range(4):
        client.send(bytes(8192))
    await until(lambda: dns.group.counters.dropped_datagrams == 2)
    assert [len(each.payload) for each in rig.flow.kept] == [8192, 8192]


@pytest.mark.parametrize("is_removed", [True, False])
async def test_a_flow_with_only_refusing_endpoints_waits_for_another_endpoint(rig, is_removed):
    gone = rig.refusing_udp()
    dns = rig.udp_service(gone, **HOLD)
    client = rig.udp_client(dns)
    client.send(b"question")
    await until(lambda: count_waiting(dns))
    pod = rig.udp_peer()
    rig.update(dns, *([] if is_removed else [gone]), pod.address, **HOLD)
    assert await pod.receive() == b"question"
    assert (count_waiting(dns), waited(dns)) == (0, 1)
    assert rig.flow.started < rig.flow.waited.since < rig.flow.sent_since


async def test_a_refusal_of_a_held_datagram_moves_the_flow_to_another_endpoint(rig, monkeypatch):
    """The failing send has cleared the error, so no event follows."""
    silent, pod = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(**HOLD)
    client = rig.udp_client(dns)
    client.send(b"A")
    client.send(b"AAAA")
    await until(lambda: rig.flows and len(rig.flow.kept) == 2)
    send = UdpFlow._send

    def send_late(flow, payload):
        sent = send(flow, payload)
        is_first = flow.endpoint == silent.address and bytes(payload) == b"A"
        return errno.ECONNREFUSED if is_first else sent

    monkeypatch.setattr(UdpFlow, "_send", send_late)
    rig.update(dns, silent.address, pod.address, **HOLD)
    assert [await pod.receive(), await pod.receive()] == [b"A", b"AAAA"]
    assert dns.group.counters_of(silent.address).failures == 1


async def test_a_waiting_flow_ends_at_its_time_limit(timed, timers):
    dns = timed.udp_service(**HOLD)
    timed.udp_client(dns).send(b"question")
    await until(lambda: count_waiting(dns))
    timers.advance(59)
    assert len(timed.flows) == 1, "a flow that waits isn't idle"
    timers.advance(1)
    assert (len(timed.flows), count_waiting(dns)) == (0, 0)
    assert dns.group.counters.waits.timeouts == 1


async def test_a_flow_that_waited_beyond_the_idle_timeout_stays_open(build, timers):
    rig = build(Tuning(udp_idle_s=30), timers.clock, timers)
    pod = rig.udp_peer()
    dns = rig.udp_service(**HOLD)
    client = rig.udp_client(dns)
    client.send(b"question")
    await until(lambda: count_waiting(dns))
    timers.advance(50)
    rig.update(dns, pod.address, **HOLD)
    assert await pod.receive() == b"question"
    timers.advance(2)
    assert len(rig.flows) == 1


async def test_waiting_flows_end_with_their_listener(rig):
    dns = rig.udp_service(**HOLD)
    rig.udp_client(dns).send(b"question")
    await until(lambda: count_waiting(dns))
    dns.close()
    assert (len(rig.flows), count_waiting(dns)) == (0, 0)


async def test_flows_beyond_an_endpoints_connection_limit_wait(timed):
    pod = timed.udp_peer()
    dns = timed.udp_service(pod.address, **limited(1))
    timed.udp_client(dns).send(b"first")
    assert await pod.receive() == b"first"
    timed.udp_client(dns).send(b"second")
    await until(lambda: count_waiting(dns) == 1)
    next(f for f in dns.carrier.flows.values() if f.sock).end("idle")
    assert await pod.receive() == b"second"
    assert count_waiting(dns) == 0


async def test_a_full_flow_table_evicts_the_longest_idle_flow(build, timers):
    rig = build(Tuning(max_flows=2), timers.clock, timers)
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address)
    alice, bob, carol = (rig.udp_client(dns) for _ in range(3))
    first = [await exchange(client, pod) for client in (alice, bob)]
    timers.advance(5)
    assert await exchange(alice, pod) == first[0]
    await exchange(carol, pod)
    assert (len(rig.flows), dns.group.counters.evicted) == (2, 1)
    assert await exchange(alice, pod) == first[0]
    assert await exchange(bob, pod) != first[1]


async def test_a_new_flow_without_a_free_descriptor_replaces_another_flow(build):
    rig = build(Tuning(descriptor_limit=2, max_flows=10))
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address)
    for _ in range(3):
        await exchange(rig.udp_client(dns), pod)
    assert (len(rig.flows), dns.group.counters.evicted) == (1, 2)


@pytest.mark.pure
@pytest.mark.parametrize("is_preserved", [False, True])
async def test_without_a_free_source_port_a_new_flow_ends_only_a_flow_from_this_nodes_address(
    rig, monkeypatch, is_preserved
):
    pod, dns, client = rig.udp_served()
    await exchange(client, pod)
    monkeypatch.setattr(rig.flow, "is_preserved", is_preserved)
    other = rig.udp_client(dns)

    def dial(*_args, **_kwargs):
        return -errno.EAGAIN

    with monkeypatch.context() as patch:
        patch.setattr(rig.engine.client_dialer, "dial_for", dial)
        other.send(b"question")
        await until(lambda: dns.group.counters.refused or rig.bugs)
        assert (len(rig.flows), dns.group.counters.evicted) == (is_preserved, not is_preserved)


async def test_a_waiting_flow_ends_when_clients_may_no_longer_wait(rig):
    dns = rig.udp_service(**HOLD)
    rig.udp_client(dns).send(b"question")
    await until(lambda: count_waiting(dns))
    rig.update(dns, UNREACHABLE)
    await until(lambda: not rig.flows)


@pytest.mark.pure
async def test_an_ended_flow_releases_its_clients_port(rig):
    dialer, pod = rig.engine.client_dialer, rig.udp_peer()
    dialer.is_on, dialer.locality = True, SimpleNamespace(keeps_client=lambda *_: True)
    dns = rig.udp_service(pod.address)
    await exchange(rig.keep(UdpPeer("127.0.0.2", to=dns.address)), pod)
    assert dialer.answered_flows.has("127.0.0.2", pod.address)
    dns.close()
    assert (dialer._ports._endpoints, dialer.answered_flows._counts) == ({}, {})
    silent = rig.dataplane.flows.silent
    assert (silent._began, silent._asked) == ({}, {})


async def test_without_a_descriptor_or_a_flow_to_replace_a_new_flow_is_refused(build):
    rig = build(Tuning(descriptor_limit=1))
    dns = rig.udp_service(rig.udp_peer().address)
    rig.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused == 1)
