import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.ephemeral import EPHEMERAL

from .limits import MIB, Limit
from .waiting import until


async def test_the_flow_table_has_a_quarter_of_the_descriptors(build):
    assert build(Tuning(descriptor_limit=1000)).flows.max_flows == 250
    assert build(Tuning(descriptor_limit=1000, max_flows=7)).flows.max_flows == 7


@pytest.mark.parametrize("processes", [1, 4])
async def test_the_flows_of_all_processes_leave_half_of_the_ephemeral_ports_to_others(
    build, processes
):
    tables = build(Tuning(descriptor_limit=1 << 20, processes=processes)).flows.max_flows
    ports = EPHEMERAL.count(now=0.0)
    assert ports // 2 - processes < tables * processes <= ports // 2


async def test_flows_end_when_they_have_been_idle_and_then_no_timer_is_set(build, timers):
    rig = build(Tuning(udp_idle_s=5.0), timers.clock, timers)
    pod = rig.udp_peer()
    rig.udp_client(rig.udp_service(pod.address)).send(b"question")
    await until(lambda: len(rig.flows) == 1)
    timers.advance(4.0)
    assert (len(rig.flows), timers.waiting) == (1, 1)
    timers.advance(2.0)
    assert (len(rig.flows), timers.waiting) == (0, 0)


async def test_while_memory_is_short_a_new_flow_takes_the_place_of_another(build, timers):
    rig = build(None, timers.clock, timers)
    peer = rig.udp_peer()
    dns = rig.udp_service(peer.address)
    limit = Limit(0)
    # A 64th is enough for two.
    limit.limit = 2 * MIB
    rig.dataplane.watch_memory(lambda: [limit])
    limit.used_mib = 2
    timers.advance(0.25)
    for _ in range(4):
        rig.udp_client(dns).send(b"question")
        assert (await peer.receive_from())[0] == b"question"
    assert (len(rig.flows), dns.group.counters.evicted_flows) == (2, 2)
