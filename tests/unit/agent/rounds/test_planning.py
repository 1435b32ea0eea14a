"""Planning: listeners follow the plan; problems that concern the cluster's users are reported."""

from userspace_proxy.agent.rounds import tasks
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import held_by
from userspace_proxy.causes.slices import too_many_endpoints
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol, ServiceKey, SocketAddress
from userspace_proxy.policy import NodeFacts
from userspace_proxy.sources import Happening
from userspace_proxy.steering import REFUSE

from ...port_numbers import is_listening
from ..samples import Cluster
from ..watched import WatchedSteering, refuse, relent, settle, until, watched

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)


async def test_a_service_that_loses_its_frontend_to_another_service_is_reported(start, caplog):
    reported = []
    loop, cluster = await start(WatchedSteering(), report=reported.append), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    await settle(loop, cluster.serve("shop", WEB.ip, POD))
    assert [(h.reason, h.service.name) for h in reported] == [("ServiceNotServed", "web")]
    taken = held_by(str(WEB), "shop/shop")
    assert reported[0].note == f"port 80: {say(taken)}"
    [line] = caplog.messages
    assert line == f"shop/web: port 80 is not served: {say(taken)} (g{remedy(taken)[1:]})"


async def test_a_service_that_loses_only_its_node_port_is_logged_as_partly_served(start, caplog):
    facts, cluster = NodeFacts(addresses=("127.0.0.1",)), Cluster()
    loop = await start(WatchedSteering(), facts=lambda _: facts)
    await settle(loop, cluster.serve("shop", CART.ip, POD, node_port=30080))
    await settle(loop, cluster.serve("web", WEB.ip, POD, node_port=30080))
    [line] = caplog.messages
    assert line.startswith("shop/web: Service is partly served: ")


async def test_many_conflicts_are_logged_in_at_most_twenty_lines(start, caplog):
    reported, cluster = [], Cluster()
    loop = await start(WatchedSteering(), report=reported.append)
    await settle(loop, [cluster.serve(f"web-{n:02}", WEB.ip, POD) for n in range(31)][-1])
    assert [h.service.name for h in reported] == [f"web-{number:02}" for number in range(1, 31)]
    assert caplog.text.count("is not served") == 20


async def test_omitted_endpoints_are_reported_once(start, monkeypatch):
    monkeypatch.setattr("userspace_proxy.policy.usable.ENDPOINTS_MAX", 1)
    reported = []
    loop, cluster = await start(WatchedSteering(), report=reported.append), Cluster()
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert reported == []
    for third in ("127.0.0.3", "127.0.0.4"):
        await settle(loop, cluster.serve("web", WEB.ip, POD, "127.0.0.2", third))
    assert [(h.reason, h.service.name) for h in reported] == [("EndpointsLeftOut", "web")]
    assert reported[0].note.startswith(f"shop/web: {say(too_many_endpoints(10_000))}")


async def test_a_service_above_its_endpoint_limit_is_reported_once_and_served_on_its_first_ports(
    start, monkeypatch
):
    monkeypatch.setattr("userspace_proxy.plan.ports.ENDPOINTS_OF_SERVICE_MAX", 10)
    reported, steering, cluster = [], WatchedSteering(), Cluster()
    loop = await start(steering, report=reported.append)
    cluster.serve("web", WEB.ip, POD)
    await settle(loop, cluster.serve_large(10))
    await settle(loop, cluster.serve_large(10, affinity_timeout_s=60))
    served = [f for f, target in steering.kernel.items() if target is not REFUSE]
    assert len(served) == 6
    assert WEB in served
    assert len(steering.kernel) == 11
    assert [(h.reason, str(h.service)) for h in reported] == [("EndpointsLeftOut", "shop/large")]
    assert reported[0].note.startswith("shop/large:p00006: the ports of shop/large together have")


async def test_recovered_ports_are_reserved_in_the_first_round(start):
    steering = WatchedSteering(kernel={CART: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    cluster.serve("another", WEB.ip, POD)
    await settle(loop, cluster.serve("cart", CART.ip, POD))
    assert steering.kernel[CART] == 28000


async def test_a_recovered_port_of_a_deleted_service_is_reserved_until_its_rule_is_removed(start):
    steering = WatchedSteering(kernel={CART: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    await refuse(steering, loop, cluster.serve("web", WEB.ip, POD))
    assert steering.kernel == {CART: 28000}
    assert not is_listening(28000)
    await relent(steering, loop)
    assert steering.kernel.keys() == {WEB}
    assert 28000 in start.served_ports.pool.candidates()


async def test_a_recovered_port_with_rules_for_another_service_is_not_reused(start):
    steering = WatchedSteering(kernel={CART: 28000, WEB: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    cluster.serve("web", WEB.ip, POD)
    loop.publish(cluster.serve("cart", CART.ip, POD))
    await until(lambda: loop.counters.failures >= 2)
    assert not is_listening(28000)
    await relent(steering, loop)
    assert len({*steering.kernel.values(), REFUSE, 28000}) == 4


async def test_a_recovered_port_of_a_removed_service_and_address_is_not_reused(start):
    other = Frontend("198.51.100.9", 80, Protocol.TCP)
    steering = WatchedSteering(kernel={CART: 28000, other: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    await refuse(steering, loop, cluster.serve("web", WEB.ip, POD, load_balancer_ips=(other.ip,)))
    assert not is_listening(28000)
    await relent(steering, loop)
    assert steering.kernel.keys() == {WEB, other}


async def test_a_recovered_port_shared_by_tcp_and_udp_frontends_is_reused(start):
    dns = Frontend("10.96.0.3", 53, Protocol.UDP)
    steering = WatchedSteering(kernel={dns: 28000, WEB: 28000})
    loop, cluster = await start(steering, recovered=await steering.start()), Cluster()
    cluster.serve("dns", dns.ip, POD, port=53, protocol="UDP")
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert 28000 in steering.kernel.values()


async def test_recovered_listeners_without_a_service_port_close_with_the_first_plan(plane, start):
    ports = 28000, 28001
    plane.recover(
        [(Protocol.TCP, SocketAddress("0.0.0.0", port)) for port in ports], transparent=False
    )
    steering = WatchedSteering(kernel={CART: 28000})
    loop = await start(steering, recovered=await steering.start())
    await refuse(steering, loop, Cluster().serve("cart", CART.ip, POD))
    assert [is_listening(port) for port in ports] == [True, True]
    await relent(steering, loop)
    assert [is_listening(port) for port in ports] == [True, False]


async def test_a_port_used_by_draining_workers_is_reserved(start):
    ports = {28000, 28001}
    steering, cluster = WatchedSteering(), Cluster()
    loop = await start(steering, ports_of_others=lambda: frozenset(ports))
    await settle(loop, cluster.serve("web", WEB.ip, POD))
    assert steering.kernel[WEB] == 28002
    assert ports.isdisjoint(start.served_ports.pool.candidates())
    ports.clear()
    await until(lambda: {28000, 28001} <= {*start.served_ports.pool.candidates()})


async def test_node_facts_are_requested_for_each_planned_snapshot(start):
    asked = []
    loop = await start(
        WatchedSteering(), facts=lambda snapshot: asked.append(snapshot) or NodeFacts()
    )
    cluster = Cluster()
    snapshots = [cluster.serve("web", WEB.ip, *pods) for pods in ((POD,), ())]
    for snapshot in snapshots:
        await settle(loop, snapshot)
    assert asked == snapshots


async def test_a_long_plan_lets_other_tasks_run(start, monkeypatch):
    monkeypatch.setattr(tasks, "_TURN_S", 0.0)
    loop, turns = await start(WatchedSteering()), []
    plan = loop.planning._planner.turns
    loop.planning._planner.turns = lambda *given: watched(plan(*given), turns)
    await settle(loop, Cluster().serve_large(30))
    assert len(turns) > 30
    assert all(turns)


async def test_opening_listeners_does_not_make_the_loop_count_as_stuck(start):
    """Opening very many listeners can take a minute, during which /livez must not fail."""
    loop, seen = await start(WatchedSteering()), []
    open_ = loop._served_ports.open
    loop._served_ports.open = lambda *given: seen.append(loop.planning.turned) or open_(*given)
    await settle(loop, Cluster().serve_large(30))
    assert len(set(seen)) == 30


async def test_a_service_with_too_many_listeners_is_reported_by_an_event(start):
    happenings, web = [], ServiceKey("shop", "web")
    await start(WatchedSteering(), report=happenings.append)
    start.served_ports.shortages.on_excess(web, "no proxy port is free")
    assert happenings == [
        Happening("ServiceNotServed", "Serve", "no proxy port is free", service=web)
    ]
