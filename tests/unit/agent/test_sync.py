"""Rounds: served_ports open before rules and close after them; failures leave the old state."""

import asyncio
import itertools
import socket

import pytest

from userspace_proxy.agent import tasks
from userspace_proxy.agent.served_ports import ServedPorts
from userspace_proxy.agent.sync import SyncLoop
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol, ServiceKey
from userspace_proxy.plan import Planner
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts
from userspace_proxy.sources import Happening
from userspace_proxy.steering import REFUSE
from userspace_proxy.testing.fake_steering import FakeSteering

from ..port_numbers import free_port, is_listening
from .rounds import WatchedSteering, settle, turn, until
from .samples import Cluster

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)


async def test_a_frontend_is_steered_to_a_proxy_port_only_while_its_listener_accepts(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("cart", CART.ip, POD))
    await settle(loop, cluster.serve("web", WEB.ip))
    assert steering.kernel[WEB] is REFUSE
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.remove("cart"))
    assert steering.kernel.keys() == {WEB}
    assert steering.lies == [WEB], "only while the last endpoint goes do rules follow the listener"


async def test_an_endpoint_change_touches_no_rule(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("web", WEB.ip, POD, "192.0.2.2"))
    assert steering.calls == ["apply"]


async def test_a_refused_change_is_retried_and_the_old_state_stays(start, caplog):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    port = steering.kernel[WEB]
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(cluster.remove("web"))
    await until(lambda: loop.counters.failures >= 2)
    assert loop.steering_problem == "cannot commit: Device or resource busy"
    assert steering.kernel == {WEB: port}
    assert is_listening(port)
    steering.fails_with = None
    await asyncio.wait_for(loop.settled(), 60)
    assert steering.kernel == {}
    assert not is_listening(port)
    assert loop.steering_problem == ""
    assert sum(r.message.startswith("steering failed") for r in caplog.records) == 1


async def test_only_differences_are_steered(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    for n in range(20):
        cluster.serve(f"other-{n}", f"10.96.1.{n}", POD)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert (steering.calls, steering.programmed) == (["apply"], 21)
    serve, remove = cluster.serve, cluster.remove
    for change in ((serve, "web", WEB.ip), (serve, "cart", CART.ip, POD), (remove, "web")):
        steering.calls.clear()
        steering.programmed = 0
        await settle(loop, change[0](*change[1:]))
        assert (steering.calls, steering.programmed) == (["change"], 1)
    assert WEB not in steering.kernel
    assert is_listening(steering.kernel[CART])


async def test_after_a_failure_everything_is_steered_again(start):
    rounds, steering = [], WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    loop.on_round = lambda *done: rounds.append(done)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(cluster.serve("cart", CART.ip, POD))
    await until(lambda: loop.counters.failures >= 1)
    steering.fails_with = None
    await asyncio.wait_for(loop.settled(), 60)
    assert steering.calls == ["apply", "apply"]
    await settle(loop, cluster.remove("web"))
    assert steering.calls == ["apply", "apply", "change"]
    assert [is_full for _, is_full, _ in rounds] == [True, True, False]
    assert (steering.kernel.keys(), loop.counters.partial_failures) == ({CART}, 1)


async def test_a_frontend_that_cannot_be_steered_does_not_hold_up_the_round(start):
    taken = {CART: "ip route"}
    loop, cluster = await start(WatchedSteering(taken=taken)), Cluster()
    cluster.serve("cart", CART.ip, POD)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert loop.steering_problem == ""
    assert problems(start.served_ports) == {
        "shop/cart": "cannot steer 10.96.0.2:80/TCP: already steered by ip route "
        "(stop kube-proxy on this node or run with --steering=none)",
        "shop/web": "",
    }
    taken.clear()
    await until(lambda: not any(problems(start.served_ports).values()))


def problems(served_ports):
    return {str(served.plan.key.name): served.problem for served in served_ports}


async def test_an_address_that_moves_between_services_stays_steered(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    cluster.serve("cart", CART.ip, POD)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    carts = steering.kernel[CART]
    cluster.remove("web")
    await settle(loop, cluster.serve("cart", WEB.ip, POD))
    assert steering.kernel == {WEB: carts}


async def test_drift_is_repaired_and_counted(start):
    steering = WatchedSteering()
    loop = await start(steering)
    await settle(loop, Cluster().serve("web", WEB.ip, POD))
    wanted = dict(steering.kernel)
    steering.kernel.clear()
    await until(lambda: steering.kernel == wanted)
    await until(lambda: loop.counters.repairs == 1)


async def test_a_repair_is_reported_and_so_is_drift_that_cant_be_repaired(start, caplog):
    reported = []
    steering = WatchedSteering()
    loop, cluster = await start(steering, report=reported.append), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    steering.kernel.clear()
    await until(lambda: reported)
    steering.repair_fails_with = SteeringError("cannot commit: Operation not permitted")
    await until(lambda: loop.counters.failures >= 2)
    assert loop.has_drifted
    steering.repair_fails_with = None
    await until(lambda: not loop.has_drifted)
    assert [(happening.reason, happening.note, happening.service) for happening in reported] == [
        (
            "SteeringRepaired",
            "1 rule or frontend of fake steering had been changed by another program; repaired",
            None,
        ),
        (
            "SteeringDrifted",
            "rules of fake steering differ from the plan and can't be repaired: cannot commit: "
            "Operation not permitted",
            None,
        ),
    ]
    messages = [
        r.getMessage()
        for r in caplog.records
        # The data plane ejects an endpoint that WatchedSteering has dialled.
        if r.levelname != "INFO" and r.name == "userspace_proxy.agent"
    ]
    assert messages == [
        "steering had drifted and was repaired",
        "steering failed, the old state is in force: cannot commit: Operation not permitted",
    ]


async def test_a_conflict_is_reported(start):
    reported = []
    loop, cluster = await start(WatchedSteering(), report=reported.append), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("shop", WEB.ip, POD))
    assert [(h.reason, h.service.name) for h in reported] == [("ServiceNotServed", "web")]
    assert reported[0].note == "port 80: 10.96.0.1:80/TCP is already held by shop/shop"


async def test_endpoints_that_are_left_out_are_reported_once(start, monkeypatch):
    monkeypatch.setattr("userspace_proxy.policy.usable.ENDPOINTS_MAX", 1)
    reported = []
    loop, cluster = await start(WatchedSteering(), report=reported.append), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert reported == []
    for third in ("127.0.0.3", "127.0.0.4"):
        await settle(loop, cluster.serve("web", WEB.ip, POD, "127.0.0.2", third))
    assert [(h.reason, h.service.name) for h in reported] == [("EndpointsLeftOut", "web")]
    assert reported[0].note.startswith("shop/web: it has more than 10,000 endpoints")


async def test_drift_is_repaired_while_changes_keep_arriving(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    wanted = dict(steering.kernel)
    steering.kernel.clear()
    pods = itertools.cycle([(POD,), (POD, "192.0.2.2")])
    async with asyncio.timeout(60):
        while steering.kernel != wanted:
            await settle(loop, cluster.serve("web", WEB.ip, *next(pods)))


async def test_recovered_ports_are_reserved_in_the_first_round(start):
    steering = WatchedSteering(kernel={CART: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    cluster.serve("another", WEB.ip, POD)
    await settle(loop, cluster.serve("cart", CART.ip, POD))
    assert steering.kernel[CART] == 28000


async def test_a_recovered_port_of_a_service_that_is_gone_is_reserved_until_its_rule_is_gone(start):
    steering = WatchedSteering(kernel={CART: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(cluster.serve("web", WEB.ip, POD))
    await until(lambda: loop.counters.failures >= 2)
    assert steering.kernel == {CART: 28000}
    assert not is_listening(28000)
    steering.fails_with = None
    await asyncio.wait_for(loop.settled(), 60)
    assert steering.kernel.keys() == {WEB}


async def test_looking_again_plans_the_same_snapshot_with_the_nodes_new_addresses(start):
    steering, addresses = WatchedSteering(), []
    loop = await start(steering, facts=lambda _: NodeFacts(addresses=tuple(addresses)))
    port = free_port()
    snapshot = Cluster().serve("web", WEB.ip, POD, node_port=port)
    await settle(loop, snapshot)
    assert steering.kernel.keys() == {WEB}
    for ip in ("127.0.0.1", "127.98.0.9"):
        addresses.append(ip)
        loop.look_again()
        at = Frontend(ip, port, Protocol.TCP)
        await until(lambda at=at: steering.kernel.get(at) == steering.kernel[WEB])
    addresses.clear()
    loop.look_again()
    await until(lambda: steering.kernel.keys() == {WEB})
    assert (loop.plan.revision, loop.counters.rounds) == (snapshot.revision, 4)
    assert loop.counters.waiting_since == 0


async def test_a_round_with_new_facts_that_fails_is_retried(start):
    steering, addresses = WatchedSteering(), []
    loop = await start(steering, facts=lambda _: NodeFacts(addresses=tuple(addresses)))
    port = free_port()
    await settle(loop, Cluster().serve("web", WEB.ip, POD, node_port=port))
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    addresses.append("127.98.0.9")
    loop.look_again()
    await until(lambda: loop.counters.failures >= 2)
    steering.fails_with = None
    await until(lambda: Frontend("127.98.0.9", port, Protocol.TCP) in steering.kernel)


async def test_before_the_first_snapshot_there_is_nothing_to_look_at_again(start):
    steering, asked = WatchedSteering(kernel={WEB: 28000}), []
    loop = await start(steering, facts=asked.append)
    loop.look_again()
    await until(lambda: not loop._wake.is_set())
    assert (asked, loop.counters.rounds, loop.is_synced) == ([], 0, False)


async def test_facts_are_those_of_the_snapshot_that_is_planned(start):
    asked = []
    loop = await start(
        WatchedSteering(), facts=lambda snapshot: asked.append(snapshot) or NodeFacts()
    )
    cluster = Cluster()
    snapshots = [cluster.serve("web", WEB.ip, *pods) for pods in ((POD,), ())]
    for snapshot in snapshots:
        await settle(loop, snapshot)
    assert asked == snapshots


async def test_health_checks_follow_each_plan_once_it_is_steered_and_are_retried(start):
    steering, seen = WatchedSteering(), []

    async def check_health(plan):
        seen.append((plan, frozenset(steering.kernel)))

    loop = await start(steering, check_health=check_health)
    await settle(loop, Cluster().serve("web", WEB.ip, POD))
    plan = loop.plan
    assert (plan, {WEB}) in seen
    count = len(seen)
    await until(lambda: len(seen) >= count + 2)
    assert seen[-1] == (plan, {WEB})


async def test_a_node_port_that_a_daemon_has_is_steered_when_it_is_free(start):
    steering = WatchedSteering()
    loop = await start(steering, facts=lambda _: NodeFacts(addresses=("127.0.0.1",)))
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        port = daemon.getsockname()[1]
        await settle(loop, Cluster().serve("web", WEB.ip, POD, node_port=port))
        assert steering.kernel.keys() == {WEB}
    at = Frontend("127.0.0.1", port, Protocol.TCP)
    await until(lambda: steering.kernel.get(at) == steering.kernel[WEB])


async def test_the_newest_of_many_snapshots_counts(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    for pods in ((POD,), (), (POD,), ()):
        snapshot = cluster.serve("web", WEB.ip, *pods)
        loop.publish(snapshot)
    await asyncio.wait_for(loop.settled(), 60)
    assert steering.kernel == {WEB: REFUSE}
    assert loop.counters.rounds == 1


async def test_nothing_is_steered_before_the_first_snapshot(start):
    steering = WatchedSteering(kernel={WEB: 28000})
    loop = await start(steering)
    looks = []
    loop._served_ports.retry = lambda: looks.append(1) or ()
    await until(lambda: len(looks) >= 3)
    assert steering.kernel == {WEB: 28000}
    assert not loop.is_synced


async def test_a_long_retry_lets_other_tasks_run(start, monkeypatch):
    monkeypatch.setattr(tasks, "_TURN_S", 0.0)
    loop, turns = await start(WatchedSteering()), []

    def retry():
        for _ in range(3):
            is_turn = asyncio.Event()
            asyncio.get_running_loop().call_soon(is_turn.set)
            yield False
            turns.append(is_turn.is_set())

    loop._served_ports.retry = retry
    await until(lambda: len(turns) >= 3)
    assert all(turns)


async def test_a_service_that_has_too_many_listeners_gets_an_event(start):
    happenings, web = [], ServiceKey("shop", "web")
    await start(WatchedSteering(), report=happenings.append)
    start.served_ports.shortages.on_excess(web, "no proxy port is free")
    assert happenings == [
        Happening("ServiceNotServed", "Serve", "no proxy port is free", service=web)
    ]


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_arrives_with_a_change_is_not_lost(plane, steps):
    """A stop in the moment of a change must not wait for ever (Python 3.11's wait_for would)."""
    steering = FakeSteering()
    served_ports = ServedPorts(plane, steering.bind, PortPool(28000, 28999))
    loop = SyncLoop(Planner(NodeFacts()), served_ports, steering, recovered={})
    task = asyncio.create_task(loop.run())
    await until(lambda: loop._wake._waiters)
    loop.publish(Cluster().serve("web", WEB.ip, POD))
    for _ in range(steps):
        await turn()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=60)
    assert done == {task}
    served_ports.close()


async def test_a_round_that_the_kernel_refuses_is_an_iteration(start):
    steering = WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    steering.fails_with = SteeringError("another program holds the lock")
    loop.publish(cluster.serve("web", WEB.ip, POD))
    await until(lambda: loop.counters.failures > 2)
    assert loop.turned_s_ago < 1


async def test_a_loop_that_is_stuck_in_a_round_does_not_iterate(start):
    is_stuck, go_on = asyncio.Event(), asyncio.Event()

    class Stuck(WatchedSteering):
        async def apply(self, wanted):
            is_stuck.set()
            await go_on.wait()
            await super().apply(wanted)

    loop, cluster = await start(Stuck()), Cluster()
    loop.publish(cluster.serve("web", WEB.ip, POD))
    await is_stuck.wait()
    before = loop.turned_s_ago
    await until(lambda: loop.turned_s_ago > before + 0.05)
    go_on.set()
    await until(lambda: loop.turned_s_ago < before + 0.05)


async def test_a_change_is_in_force_before_stale_conntrack_entries_are_sought(start):
    is_seeking, go_on = asyncio.Event(), asyncio.Event()

    class Seeking(WatchedSteering):
        async def forget_stale(self):
            is_seeking.set()
            await go_on.wait()

    steering = Seeking()
    loop, cluster = await start(steering), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await is_seeking.wait()
    go_on.set()
    await until(lambda: loop._wake._waiters)
    go_on.clear()
    port = steering.kernel[WEB]
    await settle(loop, cluster.remove("web"))
    assert is_listening(port), "flows may still lead to it"
    go_on.set()
    await until(lambda: not is_listening(port))


async def test_only_the_first_round_is_logged(start, caplog):
    caplog.set_level("INFO")
    loop, cluster = await start(WatchedSteering()), Cluster()
    for count in range(1, 4):
        await settle(loop, cluster.serve("web", WEB.ip, *[POD] * count))
    assert [r.message for r in caplog.records].count("plan in force") == 1
