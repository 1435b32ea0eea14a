"""Tests of when a node writes its Lease, and of its votes and acknowledgements."""

import asyncio

import pytest

from userspace_proxy.errors import SourceError, UserspaceProxyError
from userspace_proxy.model import ServiceKey
from userspace_proxy.scaling.cordons import CORDON_S
from userspace_proxy.scaling.lease_notes import Vote, read_report
from userspace_proxy.scaling.node_lease import BEAT_S
from userspace_proxy.sources.base import Lease
from userspace_proxy.state_file import StateFile

from .resting_nodes import IDLE_AFTER_S, POD, WEB, Node, World

ROUND = Vote("7", (WEB,))


@pytest.fixture
async def node(make):
    """A node whose Service has had no clients for its idle-after time."""
    (node,) = World(make, "node-1").nodes
    await node.lease.look()
    node.world.now += IDLE_AFTER_S
    await node.lease.look()
    return node


def report_of(node):
    return read_report(node.world.store.leases[f"node.{node.name}"])


def writes(node):
    return len(node.world.store.writes)


async def test_the_start_and_end_of_demand_are_written_immediately(node):
    assert report_of(node).demand == {}
    node.report(active=1, connections=1)
    node.world.now += 1
    await node.lease.look()
    assert report_of(node).demand == {WEB: 1}
    node.report(active=-1)
    await node.lease.look()
    node.world.now += IDLE_AFTER_S
    await node.lease.look()
    assert report_of(node).demand == {}


async def test_changed_demand_is_written_after_30_s_and_unchanged_demand_each_minute(node):
    node.report(active=1, connections=1)
    await node.lease.look()
    before = writes(node)
    node.report(active=1, connections=1)
    node.world.now += 29
    await node.lease.look()
    assert writes(node) == before
    node.world.now += 1
    await node.lease.look()
    assert report_of(node).demand == {WEB: 2}
    node.world.now += BEAT_S - 1
    await node.lease.look()
    assert writes(node) == before + 1
    node.world.now += 1
    await node.lease.look()
    assert writes(node) == before + 2


async def test_unknown_demand_is_not_reported(node):
    node.is_known = False
    await node.lease.look()
    assert report_of(node).demand is None
    await node.lease.follow(ROUND)
    assert report_of(node).answer.cordoned == frozenset()
    assert node.endpoints == [POD]


async def test_a_lease_written_by_another_process_is_read_again(node):
    lease = node.world.store.leases["node.node-1"]
    await node.world.store.put(Lease(lease.name, "node-1", {}))
    node.world.now += BEAT_S
    await node.lease.look()
    assert report_of(node).demand is None
    await node.lease.look()
    assert report_of(node).demand == {}


async def test_a_node_that_acknowledged_a_vote_sends_clients_to_no_endpoint(node):
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", {WEB})
    assert node.endpoints == []
    assert node.served.plan.serving.all_endpoints


async def test_a_node_votes_on_a_round_only_once(node):
    await node.lease.follow(ROUND)
    before = writes(node)
    await node.lease.follow(ROUND)
    assert writes(node) == before


@pytest.mark.parametrize(
    "counted",
    [{"clients": 1}, {"active": 1, "connections": 1}, {"connections": 1}],
    ids=["waits", "open", "short"],
)
async def test_a_node_with_clients_votes_no(node, counted):
    node.report(**counted)
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())
    assert node.endpoints == [POD]


async def test_a_node_votes_no_if_a_dial_succeeds_during_the_vote(node):
    node.on_settle = lambda: node.report(active=1, connections=1)
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())
    assert node.endpoints == [POD]


async def test_a_node_waits_for_pending_dials_after_its_workers_stop_dialling(node):
    seen = []

    async def refresh():
        seen.append(("counted", node.endpoints))

    node.lease._refresh = refresh
    node.on_settle = lambda: seen.append(("waited", node.endpoints))
    await node.lease.follow(ROUND)
    assert seen == [("counted", [POD]), ("counted", []), ("waited", []), ("counted", [])]


async def test_a_node_votes_no_if_a_worker_may_still_dial_the_endpoint(node):
    counts = []

    async def refresh():
        counts.append(node.endpoints)
        if len(counts) == 2:
            await asyncio.Event().wait()

    node.lease._refresh = refresh
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())
    assert node.endpoints == [POD]


async def test_a_node_votes_no_on_a_service_that_it_does_not_serve(node):
    await node.lease.follow(Vote("7", (ServiceKey("shop", "unknown"),)))
    assert report_of(node).answer == ("7", frozenset())


async def test_a_node_votes_no_if_a_worker_does_not_report(node):
    async def refresh():
        await asyncio.Event().wait()

    node.lease._refresh = refresh
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())


@pytest.mark.parametrize("over", [None, Vote("7", (), is_over=True)], ids=["gone", "over"])
async def test_clients_are_served_again_when_a_round_fails(node, over):
    await node.lease.follow(ROUND)
    await node.lease.follow(over)
    assert node.endpoints == [POD]
    assert node.hurried == []


async def test_an_acknowledgement_whose_write_may_have_failed_lasts_until_expiry(node):
    node.world.store.failure = "the server is down"
    with pytest.raises(SourceError):
        await node.lease.follow(ROUND)
    assert node.endpoints == []
    node.world.now += CORDON_S
    node.cordons.release_late()
    assert node.endpoints == [POD]


async def test_a_process_restores_the_previous_acknowledgements(node, make, tmp_path):
    file = StateFile(tmp_path / "cordons.json")
    node.cordons._file = file
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", {WEB})
    again = Node("node-1", node.world, make, 27900, file)
    await again.lease.restore()
    again.serve(POD)
    assert again.endpoints == [], "the workload may be scaled to zero at this moment"
    await again.step()
    assert report_of(again).answer == ("7", {WEB})
    await again.lease.follow(ROUND._replace(is_over=True))
    assert again.hurried == [WEB]
    assert again.endpoints == []


@pytest.mark.parametrize("over", [None, Vote("7", (), is_over=True)], ids=["gone", "over"])
async def test_a_process_restores_no_acknowledgement_of_a_failed_round(node, make, tmp_path, over):
    file = node.cordons._file = StateFile(tmp_path / "cordons.json")
    await node.lease.follow(ROUND)
    await node.lease.follow(over)
    again = Node("node-1", node.world, make, 27900, file)
    await again.lease.restore()
    again.serve(POD)
    assert again.endpoints == [POD]


async def test_a_node_does_not_acknowledge_a_vote_that_it_cannot_store(node, tmp_path):
    (tmp_path / "file").touch()
    node.cordons._file = StateFile(tmp_path / "file" / "cordons.json")
    with pytest.raises(UserspaceProxyError):
        await node.lease.follow(ROUND)
    assert node.endpoints == [POD]
    await node.lease.look()
    assert report_of(node).answer == ("", frozenset())


async def test_waiting_clients_wake_a_workload_right_after_it_is_scaled_to_zero(node):
    await node.lease.follow(ROUND)
    await node.lease.follow(ROUND._replace(is_over=True))
    assert node.hurried == [WEB]
    assert node.endpoints == []
    await node.lease.look()
    node.world.now += BEAT_S
    await node.lease.look()
    assert report_of(node).answer == ("7", frozenset()), "no acknowledgement remains"


async def test_the_end_of_another_round_does_not_end_an_acknowledgement(node):
    await node.lease.follow(ROUND)
    await node.lease.follow(Vote("8", (ServiceKey("shop", "api"),)))
    await node.lease.follow(Vote("8", (), is_over=True))
    assert node.endpoints == [], "the result of round 7 isn't known"
