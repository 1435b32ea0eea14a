"""The Lease of a node: when it is written, and what an answer to the holder promises."""

import asyncio

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model import ServiceKey
from userspace_proxy.scaling.lease_notes import Round, read_report
from userspace_proxy.scaling.node_lease import ASLEEP_S, BEAT_S, PROMISE_S
from userspace_proxy.sources.leases import Lease

from .resting_nodes import IDLE_AFTER_S, POD, WEB, World

ROUND = Round("7", (WEB,))
OTHER_POD = "192.0.2.2"


@pytest.fixture
async def node(make):
    """A node that has had no client for its Service's idle-after."""
    (node,) = World(make, "node-1").nodes
    await node.lease.look()
    node.world.now += IDLE_AFTER_S
    await node.lease.look()
    return node


def report_of(node):
    return read_report(node.world.store.leases[f"node.{node.name}"])


def writes(node):
    return len(node.world.store.writes)


async def test_demand_that_begins_or_ends_is_written_at_once(node):
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


async def test_other_figures_are_written_after_30_s_and_the_same_ones_each_minute(node):
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


async def test_what_is_not_known_is_not_reported(node):
    node.is_known = False
    await node.lease.look()
    assert report_of(node).demand is None
    await node.lease.follow(ROUND)
    assert report_of(node).answer.quiesced == frozenset()
    assert node.endpoints == [POD]


async def test_a_lease_that_another_process_has_written_is_read_again(node):
    lease = node.world.store.leases["node.node-1"]
    await node.world.store.put(Lease(lease.name, "node-1", {}))
    node.world.now += BEAT_S
    await node.lease.look()
    assert report_of(node).demand is None
    await node.lease.look()
    assert report_of(node).demand == {}


async def test_an_answer_promises_that_no_endpoint_gets_a_client(node):
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", {WEB})
    assert node.endpoints == []
    assert node.served.plan.serving.all_endpoints


async def test_a_round_is_answered_once(node):
    await node.lease.follow(ROUND)
    before = writes(node)
    await node.lease.follow(ROUND)
    assert writes(node) == before


@pytest.mark.parametrize(
    "counted",
    [{"clients": 1}, {"active": 1, "connections": 1}, {"connections": 1}],
    ids=["waits", "open", "short"],
)
async def test_with_clients_the_answer_is_no(node, counted):
    node.report(**counted)
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())
    assert node.endpoints == [POD]


async def test_a_dial_in_progress_that_succeeds_makes_the_answer_no(node):
    node.on_settle = lambda: node.report(active=1, connections=1)
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())
    assert node.endpoints == [POD]


async def test_a_service_that_is_not_served_here_is_not_known_to_have_no_clients(node):
    await node.lease.follow(Round("7", (ServiceKey("shop", "unknown"),)))
    assert report_of(node).answer == ("7", frozenset())


async def test_a_worker_that_does_not_count_makes_the_answer_no(node):
    async def refresh():
        await asyncio.Event().wait()

    node.lease._refresh = refresh
    await node.lease.follow(ROUND)
    assert report_of(node).answer == ("7", frozenset())


@pytest.mark.parametrize("over", [None, Round("7", (), is_over=True)], ids=["gone", "over"])
async def test_clients_are_served_again_when_a_round_ends_without_effect(node, over):
    await node.lease.follow(ROUND)
    await node.lease.follow(over)
    assert node.endpoints == [POD]
    assert node.hurried == []


async def test_a_holder_that_says_no_more_cannot_keep_clients_waiting(node):
    await node.lease.follow(ROUND)
    node.world.now += PROMISE_S - 1
    node.lease.release_late()
    assert node.endpoints == []
    node.world.now += 1
    node.lease.release_late()
    assert node.endpoints == [POD]


async def test_an_answer_that_cannot_be_written_is_none(node):
    node.world.store.failure = "the server is down"
    with pytest.raises(SourceError):
        await node.lease.follow(ROUND)
    assert node.endpoints == [POD]


async def test_endpoints_of_a_workload_that_was_scaled_to_zero_get_no_client_until_they_are_gone(
    node,
):
    await node.lease.follow(ROUND)
    await node.lease.follow(ROUND._replace(is_over=True))
    assert node.hurried == [WEB]
    node.world.now += PROMISE_S
    node.lease.release_late()
    assert node.endpoints == []
    node.serve(POD, OTHER_POD)
    assert node.endpoints == [OTHER_POD], "the next pod takes the clients that wait"
    node.serve(OTHER_POD)
    node.lease.release_late()
    node.serve(POD, OTHER_POD)
    assert sorted(node.endpoints) == [POD, OTHER_POD]


async def test_endpoints_that_stay_listed_are_used_again_after_a_minute(node):
    await node.lease.follow(ROUND)
    await node.lease.follow(ROUND._replace(is_over=True))
    node.world.now += ASLEEP_S
    node.lease.release_late()
    assert node.endpoints == [POD]


async def test_another_round_leaves_a_workload_asleep(node):
    await node.lease.follow(ROUND)
    await node.lease.follow(ROUND._replace(is_over=True))
    await node.lease.follow(Round("8", (ServiceKey("shop", "api"),)))
    await node.lease.follow(None)
    assert node.endpoints == []
