"""Rules: differences are applied, failures leave the old rules, drift is repaired."""

import asyncio
import contextlib
import errno
import time

import pytest

from userspace_proxy.agent.rounds.planning import Planning
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.agent.rounds.sync import SyncLoop
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables import NftablesError
from userspace_proxy.kernel.nf_tables.writer import NEW_RULE, NEW_TABLE
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.plan import Planner
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts

from ...port_numbers import is_listening
from ..samples import Cluster
from ..watched import WatchedSteering, begin, refuse, relent, settle, until

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)


async def test_an_endpoint_change_writes_no_rules(start):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("web", WEB.ip, POD, "192.0.2.2"))
    assert steering.calls == ["apply"]


async def test_only_changed_frontends_are_steered(start):
    steering, loop, cluster = await begin(start)
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
        assert not steering.has_stale_flows
    assert WEB not in steering.kernel
    assert is_listening(steering.kernel[CART])


async def test_after_a_failure_all_frontends_are_steered_again(start):
    rounds, steering = [], WatchedSteering()
    loop, cluster = await start(steering), Cluster()
    loop.on_round = lambda *done: rounds.append(done)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await refuse(steering, loop, cluster.serve("cart", CART.ip, POD))
    await relent(steering, loop)
    assert steering.calls == ["apply", "apply"]
    await settle(loop, cluster.remove("web"))
    assert steering.calls == ["apply", "apply", "change"]
    assert [is_full for _, is_full, _ in rounds] == [True, True, False]
    assert (steering.kernel.keys(), loop.counters.partial_failures) == ({CART}, 1)


async def test_a_kernel_rejecting_the_first_rules_ends_the_sync_loop(plane):
    steering = WatchedSteering()
    steering.fails_with = NftablesError(errno.EOPNOTSUPP, NEW_TABLE)
    with contextlib.closing(ServedPorts(plane, steering.bind, PortPool(28000, 28999))) as ports:
        loop = SyncLoop(Planning(Planner(NodeFacts()), ports, recovered={}), ports, steering)
        loop.publish(Cluster().serve("web", WEB.ip, POD))
        with pytest.raises(NftablesError):
            await asyncio.wait_for(loop.run(), 60)
    assert loop.rules.problem.startswith("cannot change nftables: Operation not supported")


async def test_rounds_continue_after_an_unsupported_rule_once_a_frontend_is_steered(start):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    steering.fails_with = NftablesError(errno.EOPNOTSUPP, NEW_RULE)
    loop.publish(cluster.serve("cart", CART.ip, POD))
    await until(lambda: loop.counters.failures >= 3)
    await relent(steering, loop)
    assert steering.kernel.keys() == {WEB, CART}


async def test_an_unsteerable_frontend_does_not_delay_the_round(start):
    taken = {CART: "ip route"}
    loop, cluster = await start(WatchedSteering(taken=taken)), Cluster()
    cluster.serve("cart", CART.ip, POD)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert loop.rules.problem == ""
    assert problems(start.served_ports) == {
        "shop/cart": "cannot steer 10.96.0.2:80/TCP: already steered by ip route "
        "(stop kube-proxy on this node or run with --steering=none)",
        "shop/web": "",
    }
    taken.clear()
    await until(lambda: not any(problems(start.served_ports).values()))


def problems(served_ports):
    return {str(served.plan.key.name): served.problem for served in served_ports}


async def test_an_address_that_moves_to_another_service_is_steered_to_its_proxy_port(start):
    steering, loop, cluster = await begin(start)
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
    before = time.monotonic()
    loop.counters.repaired_at = (*range(59), *loop.counters.repaired_at)
    steering.kernel.clear()
    await until(lambda: loop.counters.repairs == 2)
    oldest, *others, first, second = loop.counters.repaired_at
    assert (oldest, len(others)) == (1, 57)
    assert first <= before <= second <= time.monotonic()


async def test_repairs_and_failed_repairs_of_drift_are_reported(start, caplog):
    reported = []
    steering, loop, cluster = await begin(start, report=reported.append)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    steering.kernel.clear()
    await until(lambda: reported)
    steering.repair_fails_with = SteeringError("cannot commit: Operation not permitted")
    await until(lambda: loop.counters.failures >= 2)
    assert loop.rules.has_drifted
    steering.repair_fails_with = None
    await until(lambda: not loop.rules.has_drifted)
    assert [(happening.reason, happening.service) for happening in reported] == [
        ("SteeringRepaired", None),
        ("SteeringDrifted", None),
    ]
    assert reported[0].note.startswith("1 rule or frontend of fake steering had been changed")
    assert reported[1].note.endswith(": cannot commit: Operation not permitted")
    messages = [
        r.getMessage()
        for r in caplog.records
        # The data plane may eject an endpoint that WatchedSteering has dialled.
        if r.levelname != "INFO" and r.name == "userspace_proxy.agent"
    ]
    assert messages == [
        "repaired steering rules that another program had changed",
        "cannot apply steering rules, so the kernel keeps its current rules: "
        "cannot commit: Operation not permitted",
    ]


async def test_a_change_of_another_frontend_does_not_end_unrepaired_drift(start, caplog):
    caplog.set_level("INFO")
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    steering.repair_fails_with = SteeringError("cannot commit: Operation not permitted")
    await until(lambda: loop.rules.has_drifted)
    await settle(loop, cluster.serve("cart", CART.ip, POD))
    assert steering.calls == ["apply", "change"]
    assert loop.rules.has_drifted
    steering.repair_fails_with = None
    await until(lambda: not loop.rules.has_drifted)
    said = [r.getMessage() for r in caplog.records if "steering" in r.getMessage()]
    assert said == [
        "cannot apply steering rules, so the kernel keeps its current rules: "
        "cannot commit: Operation not permitted",
        "steering rules applied again",
    ]
