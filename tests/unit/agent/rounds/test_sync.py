"""Rounds: listeners open before rules and close after them; a failure leaves the old state."""

import asyncio
import itertools
import socket

import pytest

from userspace_proxy.agent.rounds.change_turns import ChangeTurns
from userspace_proxy.agent.rounds.planning import Planning
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.agent.rounds.sync import SyncLoop
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.plan import Planner
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts
from userspace_proxy.steering import REFUSE
from userspace_proxy_testing.fakes.steering import FakeSteering

from ...port_numbers import free_port, is_listening
from ..samples import Cluster
from ..watched import WatchedSteering, begin, refuse, relent, settle, settled, turn, until

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)


async def test_rules_lead_to_a_closed_listener_only_while_the_last_endpoint_is_removed(start):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("cart", CART.ip, POD))
    await settle(loop, cluster.serve("web", WEB.ip))
    assert steering.kernel[WEB] is REFUSE
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.remove("cart"))
    assert steering.kernel.keys() == {WEB}
    assert steering.lies == [WEB], "rules follow the listener only while the last endpoint goes"


async def test_a_rejected_change_is_retried_and_the_old_state_stays_applied(start, caplog):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    port = steering.kernel[WEB]
    await refuse(steering, loop, cluster.remove("web"))
    assert loop.rules.problem == "cannot commit: Device or resource busy"
    assert steering.kernel == {WEB: port}
    assert is_listening(port)
    await relent(steering, loop)
    assert steering.kernel == {}
    assert not is_listening(port)
    assert loop.rules.problem == ""
    assert sum(r.message.startswith("cannot apply steering rules") for r in caplog.records) == 1


async def test_drift_is_repaired_while_changes_keep_arriving(start):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    wanted = dict(steering.kernel)
    steering.kernel.clear()
    pods = itertools.cycle([(POD,), (POD, "192.0.2.2")])
    async with asyncio.timeout(60):
        while steering.kernel != wanted:
            await settle(loop, cluster.serve("web", WEB.ip, *next(pods)))


async def test_a_node_change_replans_the_snapshot_with_the_nodes_new_addresses(start):
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


async def test_a_node_change_counts_as_waiting_until_applied(start):
    steering, addresses = WatchedSteering(), []
    loop = await start(steering, facts=lambda _: NodeFacts(addresses=tuple(addresses)))
    await settle(loop, Cluster().serve("web", WEB.ip, POD, node_port=free_port()))
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    addresses.append("127.98.0.9")
    loop.look_again()
    await until(lambda: loop.counters.failures)
    since = loop.counters.waiting_since
    assert since > 0, "clients of the new address are refused"
    await until(lambda: loop.counters.failures >= 2)
    assert loop.counters.waiting_since == since
    steering.fails_with = None
    await until(lambda: not loop.counters.waiting_since)


async def test_a_node_change_before_the_first_snapshot_causes_no_round(start):
    steering, asked = WatchedSteering(kernel={WEB: 28000}), []
    loop = await start(steering, facts=asked.append)
    loop.look_again()
    await until(lambda: not loop._wake.is_set())
    assert (asked, loop.counters.rounds, loop.progress.is_synced) == ([], 0, False)
    assert steering.kernel == {WEB: 28000}


async def test_health_checks_run_after_a_plan_is_steered_and_are_repeated(start):
    steering, seen = WatchedSteering(), []

    async def check_health(plan):
        seen.append((plan, frozenset(steering.kernel)))

    loop = await start(steering, check_health=check_health)
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(Cluster().serve("web", WEB.ip, POD))
    await until(lambda: loop.counters.failures)
    steering.fails_with = None
    await settled(loop)
    plan = loop.plan
    assert next(kernel for one, kernel in seen if one is plan) == {WEB}
    count = len(seen)
    await until(lambda: len(seen) >= count + 2)
    assert seen[-1] == (plan, {WEB})


async def test_a_node_port_held_by_a_daemon_is_steered_after_its_release(start):
    steering = WatchedSteering()
    loop = await start(steering, facts=lambda _: NodeFacts(addresses=("127.0.0.1",)))
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        port = daemon.getsockname()[1]
        await settle(loop, Cluster().serve("web", WEB.ip, POD, node_port=port))
        assert steering.kernel.keys() == {WEB}
    at = Frontend("127.0.0.1", port, Protocol.TCP)
    await until(lambda: steering.kernel.get(at) == steering.kernel[WEB])


def stop_turns(loop):
    """Stop the clock of turns; return the list that holds its time."""
    now = [0.0]
    loop.progress._turns = ChangeTurns(lambda: now[0])
    return now


async def test_a_waiting_change_gets_its_turn_without_another_change(start):
    loop, cluster = await start(WatchedSteering()), Cluster()
    now, pods = stop_turns(loop), [f"10.0.{n // 250}.{n % 250}" for n in range(5_000)]
    for count in (5_000, 4_999, 4_998):
        snapshot = cluster.serve("web", WEB.ip, *pods[:count])
        loop.publish(snapshot)
        await asyncio.wait_for(loop.progress.caught_up(), 60)
    assert loop.progress.in_force is not snapshot
    now[0] += 1
    await settled(loop)
    assert loop.progress.in_force is snapshot


async def test_a_waiting_change_is_retried_after_the_kernel_rejects_it(start, monkeypatch):
    monkeypatch.setattr("userspace_proxy.agent.rounds.change_turns._PORT_S", 0.2)
    steering, cluster = WatchedSteering(), Cluster()
    loop = await start(steering)
    now = stop_turns(loop)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    # Each change needs a whole turn, so the second of two changes waits.
    loop.publish(cluster.serve("web", WEB.ip))
    await loop.progress.caught_up()
    loop.publish(cluster.serve("cart", CART.ip, POD))
    await loop.progress.caught_up()
    assert CART not in steering.kernel
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    now[0] += 1
    await until(lambda: loop.counters.failures >= 1)
    steering.fails_with = None
    await until(lambda: CART in steering.kernel)


async def test_a_long_retry_does_not_make_the_loop_count_as_stuck(start):
    loop, seen = await start(WatchedSteering()), []

    def retry():
        for _ in range(3):
            seen.append(loop._turned)
            yield False

    loop._served_ports.retry = retry
    await until(lambda: len(seen) >= 3)
    assert len(set(seen[:3])) == 3


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_arriving_with_a_change_is_not_lost(plane, steps):
    """A stop during a change must not wait forever, as it would with Python 3.11's wait_for."""
    steering = FakeSteering()
    served_ports = ServedPorts(plane, steering.bind, PortPool(28000, 28999))
    loop = SyncLoop(
        Planning(Planner(NodeFacts()), served_ports, recovered={}), served_ports, steering
    )
    task = asyncio.create_task(loop.run())
    await until(lambda: loop._wake._waiters)
    loop.publish(Cluster().serve("web", WEB.ip, POD))
    for _ in range(steps):
        await turn()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=60)
    assert done == {task}
    served_ports.close()


async def test_a_round_that_the_kernel_rejects_counts_as_an_iteration(start):
    steering, loop, cluster = await begin(start)
    steering.fails_with = SteeringError("another program holds the lock")
    loop.publish(cluster.serve("web", WEB.ip, POD))
    await until(lambda: loop.counters.failures > 2)
    assert loop.turned_s_ago < 1
    loop.planning.turned -= 60
    assert loop.turned_s_ago < 1, "nothing has been planned for a while"


async def test_a_loop_stuck_in_a_round_does_not_count_iterations(start):
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


async def test_a_change_waits_and_its_listener_stays_open_until_stale_conntrack_entries_end(start):
    is_seeking, go_on = asyncio.Event(), asyncio.Event()

    class Seeking(WatchedSteering):
        async def forget_stale(self):
            is_seeking.set()
            await go_on.wait()

    steering = Seeking()
    loop, cluster = await start(steering), Cluster()
    go_on.set()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await until(lambda: loop._wake._waiters)
    is_seeking.clear()
    go_on.clear()
    port = steering.kernel[WEB]
    loop.publish(cluster.remove("web"))
    await is_seeking.wait()
    assert WEB not in steering.kernel
    assert loop.counters.waiting_since, "a client's next datagram would go where the flow leads"
    assert is_listening(port), "flows may still lead to the listener"
    go_on.set()
    await until(lambda: not is_listening(port))
    assert not loop.counters.waiting_since


async def test_only_the_first_round_is_logged_at_info(start, caplog):
    caplog.set_level("INFO")
    loop, cluster = await start(WatchedSteering()), Cluster()
    for count in range(1, 4):
        await settle(loop, cluster.serve(f"web-{count}", f"10.96.0.{count}", POD))
    assert [r.message for r in caplog.records].count("plan applied") == 1
