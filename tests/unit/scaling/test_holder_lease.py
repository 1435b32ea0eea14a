"""Tests of the Lease's holder, which sums demand and starts votes on scaling to zero."""

import asyncio
import dataclasses
import random
from dataclasses import replace

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model import (
    Handling,
    Hold,
    ServiceKey,
    ServiceType,
    SliceKey,
    Workload,
    WorkloadKind,
)
from userspace_proxy.model.annotations import DOMAIN
from userspace_proxy.scaling.holder_lease import AGAIN_MAX_S, TOO_OLD_S
from userspace_proxy.scaling.lease_notes import HOLDER, whole
from userspace_proxy.scaling.rights import refusal_reason
from userspace_proxy.sources.base import DURATION_S, Lease, ScaleDown

from ..agent.samples import Cluster, endpoints, service
from .resting_nodes import (
    ASLEEP_WHEN_IDLE,
    IDLE_AFTER_S,
    LABELS,
    POD,
    SELECTOR,
    WEB,
    WORKLOAD,
    World,
)

API = ServiceKey("shop", "api")


@pytest.fixture
def world(make):
    return World(make, "node-1", "node-2")


def holders(world):
    return [node.name for node in world.nodes if node.holder.is_held]


async def test_a_workload_without_clients_is_scaled_to_zero_after_its_idle_time(world):
    await world.run(IDLE_AFTER_S - 10)
    assert world.slept == []
    await world.run(30)
    assert world.slept == ["shop deployment/web"]
    assert [node.endpoints for node in world.nodes] == [[], []], "new clients wait"
    assert [node.hurried for node in world.nodes] == [[WEB], [WEB]]


async def test_an_idle_connection_on_one_node_keeps_the_workload_until_closed(world):
    busy = world.nodes[1]
    busy.report(active=1, connections=1)
    await world.run(3 * IDLE_AFTER_S)
    assert world.slept == []
    assert busy.endpoints == [POD]
    busy.report(active=-1)
    await world.run(IDLE_AFTER_S - 10)
    assert world.slept == []
    await world.run(90)
    assert world.slept == ["shop deployment/web"]


async def test_a_client_that_arrives_before_its_nodes_vote_keeps_the_workload(world):
    quick = world.nodes[1]
    quick.on_settle = lambda: quick.report(active=1, connections=1)
    await world.run(IDLE_AFTER_S + 30)
    assert world.slept == []
    assert [node.endpoints for node in world.nodes] == [[POD], [POD]]


async def test_a_client_that_arrives_after_its_nodes_vote_waits_for_the_next_pod(world):
    late = world.nodes[1]
    scale_down = late.source.scale_down

    async def rest_with_a_client(*arguments):
        found = await scale_down(*arguments)
        late.report(clients=1)
        return found

    for node in world.nodes:
        node.source.scale_down = rest_with_a_client
    await world.run(IDLE_AFTER_S + 30)
    assert late.endpoints == []
    assert late.hurried == [WEB]


async def test_a_workload_with_a_pod_being_replaced_is_kept(world):
    for node in world.nodes:
        node.terminate(POD)
    await world.run(IDLE_AFTER_S + 30)
    assert world.slept == []
    for node in world.nodes:
        node.serve(POD)
    await world.run(30)
    assert world.slept == ["shop deployment/web"]


async def test_a_node_without_a_report_counts_as_busy(world):
    await world.run(IDLE_AFTER_S - 5)
    # This Node is added just after Nodes were listed.
    world.nodes[0].holder._nodes_at = world.nodes[1].holder._nodes_at = world.now
    world.store.nodes.add("node-3")
    await world.run(105)
    assert world.slept == []
    assert world.vote_counts.unknown == "node-3"
    assert [node.holder.demand for node in world.nodes] == [{WEB: 1}, {WEB: 1}]
    world.store.nodes.remove("node-3")
    await world.run(100)
    assert world.slept == ["shop deployment/web"]


async def test_demand_of_a_proxy_without_a_node_object_counts_while_it_reports(world):
    busy = world.nodes[1]
    world.store.nodes.remove(busy.name)
    busy.report(active=1, connections=1)
    await world.run(IDLE_AFTER_S + 100)
    assert world.slept == []
    world.nodes.remove(busy)
    await world.run(TOO_OLD_S + DURATION_S + 3 * AGAIN_MAX_S)
    assert world.slept == ["shop deployment/web"]


async def test_a_node_joining_during_a_round_must_also_vote(world):
    joins = world.nodes[1]
    world.store.nodes.remove(joins.name)
    joins.lease._leases.write = late(world, joins.lease._leases.write)
    joins.is_silent = True
    await world.run(IDLE_AFTER_S + 30)
    assert sum(node.source.asked for node in world.nodes) >= 1
    assert world.slept == []


def late(world, write):
    """Return a write function that delays a node's first report until a vote has begun."""

    async def write_later(lease):
        if HOLDER not in world.store.leases or world.vote_counts.round is None:
            return None
        return await write(lease)

    return write_later


async def test_a_node_with_unknown_connections_counts_as_busy(world):
    world.nodes[1].is_known = False
    await world.run(IDLE_AFTER_S + 100)
    assert world.slept == []
    assert world.vote_counts.unknown == "node-2"


@pytest.mark.parametrize(("namespace", "slept"), [("evil", 1), ("shop", 0)])
async def test_demand_omitted_from_a_report_keeps_only_its_namespace_awake(world, namespace, slept):
    """Source: issue 74."""
    lease = world.nodes[1].lease
    own, many = lease._demand, {ServiceKey(namespace, f"{i:063}"): 1 for i in range(2200)}
    lease._demand = lambda: {**own(), **many}
    await world.run(IDLE_AFTER_S + 100)
    assert len(world.slept) == slept
    assert world.vote_counts.demand == {whole(namespace): 1}
    assert [node.holder.demand for node in world.nodes] == [{WEB: 1 - slept}] * 2


async def test_a_workload_whose_services_do_not_fit_into_a_round_is_kept(world, monkeypatch):
    monkeypatch.setattr("userspace_proxy.scaling.holder_lease.ROUND_BYTES_MAX", len(f"{WEB}") - 1)
    await world.run(IDLE_AFTER_S + 100)
    assert (world.slept, world.vote_counts.round) == ([], None)
    why = "deployment/web stays at one replica: 1 Services name it."
    assert happened(world) == [("StaysAwake", WEB, why)]


async def test_a_node_with_an_outdated_report_counts_as_busy(world):
    await world.run(10)
    silent = world.nodes.pop()
    await world.run(TOO_OLD_S - 20)
    assert world.vote_counts.unknown == ""
    await world.run(40)
    assert world.vote_counts.unknown == silent.name
    await world.run(IDLE_AFTER_S)
    assert world.slept == []


async def test_a_node_that_does_not_vote_counts_as_busy(world):
    world.nodes[1].is_silent = True
    await world.run(IDLE_AFTER_S + 100)
    assert world.slept == []
    assert sum(node.source.asked for node in world.nodes) >= 2, "the scale-down is tried again"
    assert world.nodes[0].endpoints == [POD], "clients are served"
    world.nodes[1].is_silent = False
    await world.run(AGAIN_MAX_S + 10)
    assert world.slept == ["shop deployment/web"]


async def test_another_node_takes_over_a_lost_holders_lease(world):
    await world.run(100)
    (holder,) = holders(world)
    gone = next(node for node in world.nodes if node.name == holder)
    world.nodes.remove(gone)
    await world.run(DURATION_S - 10)
    assert world.store.leases[HOLDER].holder == holder
    await world.run(30)
    assert holders(world) == [world.nodes[0].name]
    assert not gone.holder.is_held


async def test_a_holder_whose_lease_was_taken_stops_holding(world):
    await world.run(10)
    assert len(holders(world)) == 1
    await world.store.put(Lease(HOLDER, "node-9"))
    await world.run(30)
    assert holders(world) == []
    assert world.store.leases[HOLDER].holder == "node-9"


async def test_all_nodes_read_the_sums_of_demand_from_the_lease(world):
    one, other = world.nodes
    one.report(active=2, connections=2)
    other.report(clients=3)
    await world.run(40)
    assert [node.holder.demand for node in world.nodes] == [{WEB: 5}, {WEB: 5}]
    written_earlier = world.store.leases[HOLDER]
    other.report()
    await world.run(60)
    (holder,) = (node.holder for node in world.nodes if node.holder.is_held)
    holder.see(written_earlier)
    assert holder.demand == {WEB: 3}, "the client was there a moment ago"


async def test_demand_sums_of_a_lost_holder_are_unknown(world):
    one = world.nodes[0]
    assert one.holder.demand is None
    await world.run(40)
    assert one.holder.demand == {WEB: 2}
    world.now += DURATION_S
    assert one.holder.demand is None


async def test_a_reason_to_keep_a_workload_is_logged_with_its_service_as_text(world, caplog):
    for node in world.nodes:
        node.source.reason = "an autoscaler"
    await world.run(IDLE_AFTER_S + 300)
    assert {record.service for record in caplog.records} == {"shop/web"}


async def test_a_reason_to_keep_a_workload_is_recorded_as_one_event(world):
    why = "deployment/web stays at one replica: an autoscaler"
    for node in world.nodes:
        node.source.reason = why
    await world.run(IDLE_AFTER_S + 300)
    assert happened(world) == [("StaysAwake", WEB, f"{why}.")]
    assert sum(node.source.asked for node in world.nodes) >= 3
    world.nodes[1].report(active=1, connections=1)
    await world.run(100)
    world.nodes[1].report(active=-1)
    await world.run(IDLE_AFTER_S + 300)
    assert happened(world) == 2 * [("StaysAwake", WEB, f"{why}.")]


async def test_a_workload_scaled_during_the_vote_is_not_cordoned(world):
    async def scale_down(_namespace, _workload, may, agree):
        assert may(LABELS) is None
        assert await agree()
        return ScaleDown()

    for node in world.nodes:
        node.source.scale_down = scale_down
    await world.run(IDLE_AFTER_S + 30)
    assert [node.endpoints for node in world.nodes] == [[POD], [POD]]
    assert world.vote_counts.round.is_over
    assert world.vote_counts.round.services == ()


async def test_endpoints_are_cordoned_after_an_interrupted_scale_down(world):
    async def scale_down(_namespace, _workload, may, agree):
        assert may(LABELS) is None
        assert await agree()
        raise asyncio.CancelledError

    for node in world.nodes:
        node.source.scale_down = scale_down
    with pytest.raises(asyncio.CancelledError):
        await world.run(IDLE_AFTER_S + 30)
    for node in world.nodes:
        await node.step()
    assert [node.endpoints for node in world.nodes] == [[], []]
    assert world.vote_counts.round.is_over


@pytest.mark.parametrize(
    "handling",
    [
        pytest.param(Handling(hold=Hold(60.0), wake=WORKLOAD), id="without-idle-after"),
        pytest.param(Handling(hold=Hold(60.0)), id="without-workload"),
    ],
)
async def test_nothing_is_scaled_to_zero_without_an_idle_time_or_a_workload(world, handling):
    for node in world.nodes:
        node.serve(POD, handling=handling)
    await world.run(IDLE_AFTER_S + 100)
    assert sum(node.source.asked for node in world.nodes) == 0


async def test_a_workload_is_scaled_to_zero_only_if_none_of_its_services_has_clients(world):
    other = world.nodes[1]
    for node in world.nodes:
        node.serve(POD, name="api", ip="10.96.0.2", handling=ASLEEP_WHEN_IDLE)
    (api,) = other.served_ports.of_service(API)
    api.group._waiting = {0: (1, world.now)}
    await world.run(IDLE_AFTER_S + 100)
    assert world.slept == []
    api.group._waiting.clear()
    await world.run(IDLE_AFTER_S + 100)
    assert world.slept == ["shop deployment/web"]


@pytest.mark.parametrize(
    "handling",
    [
        pytest.param(Handling(), id="refuses"),
        pytest.param(Handling(hold=Hold(60.0)), id="names-no-workload"),
        pytest.param(Handling(wake=WORKLOAD), id="does-not-hold"),
        pytest.param(
            Handling(hold=Hold(60.0), wake=Workload(WorkloadKind.DEPLOYMENT, "api")),
            id="names-another-workload",
        ),
    ],
)
async def test_another_service_with_the_same_pods_keeps_the_workload_awake(world, handling):
    for node in world.nodes:
        node.serve(POD, "192.0.2.2", name="api", ip="10.96.0.2", handling=handling, selector=())
    await world.run(IDLE_AFTER_S + 200)
    assert world.vote_counts.round is None, "no node is asked"
    found = [each for node in world.nodes for each in node.source.happenings]
    assert [(each.reason, each.service, each.note) for each in found] == [
        (
            "StaysAwake",
            WEB,
            "deployment/web stays at one replica: Service shop/api leads to the same pods, "
            f"without {DOMAIN}hold and the same {DOMAIN}wake.",
        )
    ]
    for node in world.nodes:
        node.serve("192.0.2.2", name="api", ip="10.96.0.2", handling=handling, selector=())
    await world.run(AGAIN_MAX_S + 10)
    assert world.slept == ["shop deployment/web"]


def happened(world):
    return [
        (each.reason, each.service, each.note)
        for node in world.nodes
        for each in node.source.happenings
    ]


strangers = pytest.mark.parametrize(
    "selector",
    [
        pytest.param((), id="none"),
        pytest.param((("app", "api"),), id="other-pods"),
        pytest.param((("app", "web"), ("canary", "true")), id="some-pods"),
    ],
)


@strangers
async def test_a_service_cannot_scale_a_workload_without_selecting_its_pods(world, selector):
    """Source: issue 52."""
    for node in world.nodes:
        node.serve(POD, selector=selector)
    await world.run(IDLE_AFTER_S + 200)
    assert (world.slept, world.vote_counts.round) == ([], None)
    assert happened(world) == [
        ("StaysAwake", WEB, f"{refusal_reason(selector, WORKLOAD, LABELS)}.")
    ]


@strangers
async def test_a_copied_workload_annotation_causes_only_an_event(world, selector):
    """The other Service's clients neither keep the workload awake nor wait."""
    for node in world.nodes:
        node.serve("192.0.2.2", name="api", ip="10.96.0.2", selector=selector)
        (api,) = node.served_ports.of_service(API)
        api.group._waiting = {0: (1, world.now)}
    await world.run(IDLE_AFTER_S + 30)
    assert world.slept == ["shop deployment/web"]
    assert world.vote_counts.round.services == (WEB,)
    assert happened(world) == [
        ("StaysAwake", API, f"{refusal_reason(selector, WORKLOAD, LABELS)}.")
    ]


ANYWHERE = {"cluster_ips": (), "is_headless": True}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"selector": (("tier", "shop"),)}, id="without-endpoints"),
        pytest.param({"selector": SELECTOR, **ANYWHERE}, id="headless"),
        pytest.param({"selector": SELECTOR, "proxy_name": "other"}, id="other-proxy"),
        pytest.param({"selector": SELECTOR, "handling": Handling(wake=WORKLOAD)}, id="no-hold"),
    ],
)
async def test_an_unserved_service_selecting_the_pods_keeps_the_workload_awake(world, fields):
    """Issue 52: the proxy doesn't see the clients of that Service."""
    for node in world.nodes:
        node.cluster.store.put_service(replace(service("api", "10.96.0.2"), **fields))
    await world.run(IDLE_AFTER_S + 200)
    assert (world.slept, world.vote_counts.round) == ([], None)
    why = "deployment/web stays at one replica: Service shop/api leads to the same pods"
    assert [(service, why in note) for _, service, note in happened(world)] == [(WEB, True)]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"selector": SELECTOR, **ANYWHERE, "handling": Handling(wake=WORKLOAD)},
            id="headless-with-the-same-wake",
        ),
        pytest.param({"selector": (("app", "api"),)}, id="selects-other-pods"),
        pytest.param({"selector": SELECTOR, "type": ServiceType.EXTERNAL_NAME}, id="external-name"),
        pytest.param({"selector": SELECTOR, "key": ServiceKey("tenant", "api")}, id="elsewhere"),
    ],
)
async def test_a_service_sharing_the_wake_or_selecting_other_pods_does_not_keep_the_workload_awake(
    world, fields
):
    for node in world.nodes:
        node.cluster.store.put_service(replace(service("api", "10.96.0.2"), **fields))
    await world.run(IDLE_AFTER_S + 30)
    assert world.slept == ["shop deployment/web"]


async def test_a_service_added_during_a_vote_keeps_the_workload_awake(world):
    def add(node):
        node.cluster.store.put_service(service("api", "10.96.0.2", selector=SELECTOR))

    for node in world.nodes:
        node.on_settle = lambda: [add(each) for each in world.nodes]
    await world.run(IDLE_AFTER_S + 30)
    assert world.vote_counts.round.is_over
    assert world.slept == []
    assert [node.endpoints for node in world.nodes] == [[POD], [POD]]


async def test_a_service_in_another_namespace_does_not_keep_the_workload_awake(world):
    """Slices in another namespace may list any address."""
    key = ServiceKey("tenant", "api")
    listed = dataclasses.replace(
        endpoints("api", POD), key=SliceKey("tenant", "api-1"), service=key
    )
    for node in world.nodes:
        store = node.cluster.store
        store.put_service(dataclasses.replace(service("api", "10.96.0.2"), key=key))
        store.put_slice(listed)
        node.served_ports.follow(store.snapshot())
    await world.run(IDLE_AFTER_S + 30)
    assert world.slept == ["shop deployment/web"]


async def test_a_workload_that_cannot_be_scaled_does_not_block_other_workloads(world):
    first, tried = Handling(hold=Hold(60.0), wake=WORKLOAD, idle_after_s=1.0), []
    second = dataclasses.replace(first, wake=Workload(WorkloadKind.DEPLOYMENT, "api"))

    async def scale_down(_namespace, workload, _may, _agree):
        tried.append(workload.name)
        return ScaleDown(reason="it has an autoscaler")

    for node in world.nodes:
        node.serve(POD, handling=first)
        node.serve("192.0.2.2", name="api", ip="10.96.0.2", handling=second)
        node.source.scale_down = scale_down
    await world.run(60)
    assert tried[:4] == ["web", "api"] * 2
    for node in world.nodes:
        node.served_ports.follow(Cluster().store.snapshot())
    await world.run(30)
    assert [node.holder._again_at for node in world.nodes] == [{}, {}], "workloads may return"


async def test_many_workloads_of_one_namespace_do_not_delay_other_namespaces(world):
    tried = []

    async def scale_down(namespace, _workload, _may, _agree):
        tried.append(namespace)
        return ScaleDown(reason="it has an autoscaler")

    for node in world.nodes:
        for number in range(20):
            wake = Workload(WorkloadKind.DEPLOYMENT, f"api-{number}")
            handling = Handling(hold=Hold(60.0), wake=wake, idle_after_s=1.0)
            namespace, ip = "tenant" if number == 19 else "shop", f"10.96.1.{number + 1}"
            key = ServiceKey(namespace, f"api-{number}")
            one = replace(service(key.name, ip, handling=handling), key=key)
            listed = replace(
                endpoints(key.name, POD), key=SliceKey(namespace, key.name), service=key
            )
            node.cluster.store.put_service(one)
            node.cluster.store.put_slice(listed)
        node.served_ports.follow(node.cluster.store.snapshot())
        node.source.scale_down = scale_down
    await world.run(30)
    assert tried[:2] == ["shop", "tenant"]


async def test_a_holder_that_loses_its_lease_during_a_vote_scales_nothing(world):
    for node in world.nodes:

        async def lose(lists=node.holder._leases.read_all, node=node):
            found = await lists()
            if world.vote_counts.round is not None and not world.vote_counts.round.is_over:
                lease = world.store.leases[HOLDER]
                node.holder.see(replace(lease, holder="node-9", version="taken"))
            return found

        node.holder._leases.read_all = lose
        node.holder._leases.write = answered_at_once(world, node.holder._leases.write)
    await world.run(IDLE_AFTER_S + 30)
    assert sum(node.source.asked for node in world.nodes) >= 1
    assert world.slept == []


async def test_votes_that_are_read_too_late_do_not_count(world):
    for node in world.nodes:
        lists = node.holder._leases.read_all

        async def slow(lists=lists):
            found = await lists()
            if world.vote_counts.round is not None and not world.vote_counts.round.is_over:
                world.now += 9.0
            return found

        node.holder._leases.read_all = slow
        node.holder._leases.write = answered_at_once(world, node.holder._leases.write)
    await world.run(IDLE_AFTER_S + 30)
    assert sum(node.source.asked for node in world.nodes) >= 1
    assert world.slept == []


def answered_at_once(world, write):
    """Return a write function after which all nodes have answered the holder's vote."""

    async def write_and_answer(lease):
        written = await write(lease)
        if lease.name == HOLDER:
            for node in world.nodes:
                await node.lease.follow(world.vote_counts.round)
        return written

    return write_and_answer


async def test_a_failure_of_the_api_server_is_raised_to_the_caller(world):
    await world.run(10)
    world.store.failure = "the server is down"
    world.now += 20
    (holder,) = [node.holder for node in world.nodes if node.holder.is_held]
    with pytest.raises(SourceError):
        await holder.look()


@pytest.mark.parametrize("failure", ["", "the server is down"])
async def test_a_cancelled_round_ends_unless_the_server_fails(world, failure):
    async def stop(_namespace, _workload, may, agree):
        assert may(LABELS) is None
        assert await agree()
        world.store.failure = failure
        raise asyncio.CancelledError

    for node in world.nodes:
        node.source.scale_down = stop
    with pytest.raises(asyncio.CancelledError):
        await world.run(2 * IDLE_AFTER_S)
    assert world.vote_counts.round.is_over is not bool(failure)


async def test_nodes_wait_a_random_time_before_taking_a_free_lease(make):
    world = World(make, "node-1")
    (node,) = world.nodes
    world.store.leases[HOLDER] = Lease(HOLDER, "node-9", version="0")
    node.holder._jitter_s = random.Random(7).uniform(0, 10)
    # The API server answers late, and the watch sends nothing.
    world.now, node.is_silent = world.now + DURATION_S, True
    await world.run(DURATION_S)
    assert not node.holder.is_held
    await world.run(12)
    assert node.holder.is_held
