"""The data that the page shows about a Service port."""

from dataclasses import replace

import pytest

from tests.port_keys import port_key
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.agent.view import (
    client_mistakes,
    show_traffic,
    turned_away,
    view_endpoint,
    view_frontend,
    view_ports,
)
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.names import name_unresolved
from userspace_proxy.causes.say import EXPECTS_NO_HEADER, remedy, say
from userspace_proxy.causes.services import (
    hop_limit_reached,
    no_proxy_header,
    none_was_local,
    not_listening,
    source_denied,
)
from userspace_proxy.causes.slices import none_local
from userspace_proxy.cluster import Store
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.diagnosis.paths import PathView, format_target
from userspace_proxy.facts import (
    ClientMistake,
    EndpointCounters,
    GroupCounters,
    SourceFacts,
    StateFacts,
    StreakPart,
    TrafficByCause,
    Waits,
)
from userspace_proxy.facts.last_minute import LastMinuteFacts, MinuteCounts
from userspace_proxy.model import (
    DataPath,
    Failure,
    Frontend,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceType,
    SocketAddress,
    Taken,
)
from userspace_proxy.model.handling import Balance
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.plane import Group
from userspace_proxy.plane.messages import GroupReport, WaitingReport
from userspace_proxy.policy import EndpointVerdict, NodeFacts
from userspace_proxy.steering import Bind

from ..plan.planning import with_serving
from ..plane.reports import group_report
from .samples import Cluster, at, endpoints, served, service

POD_A, POD_B = "192.0.2.1", "192.0.2.2"
POD = SocketAddress(POD_A, 8080)
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
NODE = NodeFacts(node_name="node-a", addresses=("198.51.100.10",))

CLOCK = at(0.0)


def judged(served_ports, plane, clock=CLOCK):
    """Return the diagnosed views of Service ports."""
    return diagnose(view_ports(served_ports, plane, Bind.PROXY_PORT, clock), SourceFacts())


def shown(view):
    return [(f.kind, f.address, f.target) for f in view.frontends]


def verdicts(view):
    return [(e.address, e.state, e.is_usable) for e in view.endpoints]


async def test_a_served_port_names_its_frontends_endpoints_and_proxy_port(plane):
    served_ports = served(plane, Bind.PROXY_PORT, Cluster().serve("web", "10.96.0.1", POD_A, POD_B))
    (port,) = served_ports.steered.targets().values()
    (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, CLOCK)
    assert (view.plan.key.name, view.plan.key.family) == (("shop", "web", ""), IPFamily.IPV4)
    assert view.plan.protocol == "TCP"
    assert shown(view) == [("ClusterIP", "10.96.0.1:80", f"proxy port {port}")]
    assert verdicts(view) == [(f"{POD_A}:8080", "ready", True), (f"{POD_B}:8080", "ready", True)]
    assert (view.plan.cause, view.problem) == (None, "")
    assert view.state == StateFacts(), "the state is judged later, with other facts"


def web(plane, *pods):
    return served(plane, Bind.PROXY_PORT, Cluster().serve("web", "10.96.0.1", *pods))


async def test_counters_and_ejections_of_endpoints_and_the_service_port_are_shown(plane):
    (port,) = served_ports = web(plane, POD_A, POD_B)
    first, second = port.plan.serving.endpoints
    port.group.counters_of(first).connections = 7
    port.group.counters_of(first).received_bytes = 70
    figures, waiting = GroupCounters().figures(), WaitingReport(1, 6.0)
    ejected = [(second, 5.0)]
    report = GroupReport(port.group.number, figures, [], ejected, waiting=waiting)
    port.group.add(0, report, 10.0)
    counters, waits = port.group.counters, port.group.counters.waits
    counters.refused, counters.shortages = 3, 1
    waits.total, waits.timeouts, waits.overflows, waits.client_aborts = 9, 4, 3, 2
    counters.evicted, counters.evicted_for_memory = 7, 1
    port.group.out_of_ports_at = port.group.out_of_client_ports_at = 10.0
    (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, at(11.0))
    endpoints = [(e.connections, e.ejected_for_s) for e in view.endpoints]
    assert endpoints == [(7, None), (0, 4.0)]
    assert (view.connections, view.received_bytes, view.refused) == (7, 70, 3)
    assert (view.evicted, view.shortages, view.is_out_of_ports) == (7, 1, True)
    assert view.evicted_for_memory == 1
    assert view.waits == Waits(1, 7.0, total=9, timeouts=4, overflows=3, client_aborts=2)
    assert view.is_out_of_client_ports
    (later,) = view_ports(served_ports, plane, Bind.PROXY_PORT, at(71.0))
    assert not later.is_out_of_ports
    assert not later.is_out_of_client_ports


@pytest.mark.parametrize("shortage", ["out_of_ports", "out_of_client_ports"])
async def test_a_shortage_of_ports_is_shown_for_a_minute(plane, shortage):
    served_ports = served(plane, Bind.PROXY_PORT, Cluster().serve("web", "10.96.0.1", POD_A))
    (port,) = served_ports
    setattr(port.group, f"{shortage}_at", 10.0)
    for now, is_shown in ((11.0, True), (71.0, False)):
        (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, at(now))
        assert getattr(view, f"is_{shortage}") is is_shown


async def test_a_view_creates_no_counters_for_endpoints_without_clients(plane):
    cluster = Cluster()
    cluster.serve("cart", "10.96.0.2", POD_A, POD_B)
    served_ports = served(plane, Bind.PROXY_PORT, cluster.serve("web", "10.96.0.1", POD_A, POD_B))
    idle, busy = sorted(served_ports, key=lambda one: one.plan.key)
    first, _ = busy.plan.serving.endpoints
    busy.group.counters_of(first).dials.failed(1.0, Failure.REFUSED)
    busy.group.last_minute.add(MinuteCounts(connections=1, refused=3), 1.0)
    cart, web = judged(served_ports, plane, at(2.0))
    assert not idle.group.has_counted, "counters of 10,000 such Services would take 22 MB"
    assert [endpoint for endpoint, _ in busy.group.each_counters()] == [first]
    assert [endpoint.cause for endpoint in cart.endpoints] == [None, None]
    assert [endpoint.cause is None for endpoint in web.endpoints] == [False, True]


async def test_an_endpoint_shows_the_cause_of_failed_dials_since_its_last_success(plane):
    (port,) = served_ports = web(plane, POD_A, POD_B)
    first, second = port.plan.serving.endpoints
    counters, others = port.group.counters_of(first), port.group.counters_of(second)
    others.dials.failed(5.0, Failure.SILENT)
    counters.dials.succeeded_at = others.dials.succeeded_at = 6.0
    for now in (7.0, 9.0):
        counters.count_failure(CauseCode.ENDPOINT_REFUSES)
        counters.dials.failed(now, Failure.REFUSED)
    port.group.counters.saved = 2
    (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, at(11.0))
    refusing, serving = view.endpoints
    ended = refuses(first, was_open=True).replace(host=first.ip)
    assert refusing.cause == ended.replace(count=2, first_at=1007.0, last_at=1009.0)
    assert (refusing.answered_at, serving.answered_at, serving.cause) == (1006.0, 1006.0, None)
    assert refusing.failures_by_cause == view.failures_by_cause == {"endpoint-refuses": 2}
    assert view.saved == 2


async def test_denied_packets_are_reported_with_their_count_and_times(plane):
    (port,) = served_ports = web(plane, POD_A)
    port.plan = with_serving(port.plan, admits=("198.51.100.0/24",))

    def turned_away():
        (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, CLOCK)
        assert view.other_ports == port.other_ports
        return view.denied, view.turned_away

    assert turned_away() == (0, ())
    port.other_ports = source_denied(())
    for now, count in ((5.0, 1), (7.0, 2)):
        counted = GroupCounters()
        counted.denied = count
        port.group.add(0, GroupReport(port.group.number, counted.figures()), now)
    denied = source_denied(("198.51.100.0/24",))
    assert turned_away() == (3, (denied.replace(count=3, first_at=1005.0, last_at=1007.0),))


async def test_unanswered_flows_alone_are_not_shown_as_an_endpoint_failure(plane):
    dns = Cluster().serve("dns", "10.96.0.1", POD_A, protocol="UDP")
    (port,) = served_ports = served(plane, Bind.PROXY_PORT, dns)
    counters = port.group.counters_of(POD)
    counters.connections = 9
    counters.ends.add(StreakPart(-1.0, 3, 2.0, 5.0, Failure.NO_DATAGRAM))
    (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, at(5.0))
    assert [endpoint.cause for endpoint in view.endpoints] == [None]


@pytest.mark.parametrize(
    ("bind", "ip", "target"),
    [
        pytest.param(Bind.FRONTEND, "127.97.0.1", "listens there", id="own-address"),
        pytest.param(
            Bind.LOOPBACK, "127.97.0.2", "listens there", id="loopback-at-its-own-address"
        ),
        pytest.param(Bind.LOOPBACK, "10.96.0.1", "127.0.0.1:26000", id="loopback-elsewhere"),
    ],
)
async def test_the_target_of_a_frontend_depends_on_where_its_listener_is_bound(
    plane, bind, ip, target
):
    served_ports = served(plane, bind, Cluster().serve("web", ip, POD_A, port=8080))
    (view,) = view_ports(served_ports, plane, bind, CLOCK)
    assert view.frontends[0].target == target


def balanced(*nodes, node_port=30080, **changes):
    """Return a snapshot of a LoadBalancer Service with an endpoint on each given node."""
    store = Store()
    web = service("web", "10.96.0.1")
    store.put_service(
        replace(
            web,
            ports=(ServicePort("", 80, "TCP", node_port),),
            type=ServiceType.LOAD_BALANCER,
            load_balancer_ips=("203.0.113.7",),
            **changes,
        )
    )
    slice_ = endpoints("web", *(f"192.0.2.{n}" for n in range(1, len(nodes) + 1)))
    with_nodes = [replace(e, node=n) for e, n in zip(slice_.endpoints, nodes, strict=True)]
    store.put_slice(replace(slice_, endpoints=tuple(with_nodes)))
    return store.snapshot()


def views(plane, snapshot):
    served_ports = served(plane, Bind.PROXY_PORT, snapshot, NODE)
    found = view_ports(served_ports, plane, Bind.PROXY_PORT, CLOCK)
    served_ports.close()
    return found


async def test_an_external_local_policy_is_shown_as_a_separate_side(plane):
    cluster, outside = views(plane, balanced("node-a", "node-b", is_external_local=True))
    assert (cluster.plan.key.side, cluster.policy) == ("", "")
    assert (outside.plan.key.side, outside.policy) == (
        "external",
        "from outside: only this node's endpoints",
    )
    assert [state for _, state, _ in verdicts(outside)] == ["ready", "not on this node"]
    assert not any(view.is_dropping for view in (cluster, outside))


async def test_an_internal_policy_without_a_local_endpoint_drops_all_clients(plane):
    view, _ = views(plane, balanced("node-b", is_internal_local=True))
    assert (view.plan.is_dropping, view.admits) == (True, ())
    assert view.policy == "only this node's endpoints"
    assert {f.target for f in view.frontends} == {"dropped"}


async def test_a_view_is_rebuilt_only_after_a_change(plane):
    (port,) = served_ports = web(plane, POD_A)
    group, (frontend,) = port.group, port.plan.frontends

    def view():
        return view_ports(served_ports, plane, Bind.PROXY_PORT, CLOCK)[0]

    def count():
        figures = GroupCounters().figures()
        group.add(0, GroupReport(group.number, figures, [], []), 0.0)

    def refuse():
        port.listeners[frontend].is_serving = False

    def unsteer():
        served_ports.steered.note_unsteered({frontend: "no route"})

    def plan_again():
        port.plan = replace(port.plan)

    def fail():
        group.last_minute.add(MinuteCounts(2, 3), 0.0)

    first = view()
    assert view() is first
    for change in (count, refuse, unsteer, plan_again, fail):
        before = view()
        change()
        after = view()
        assert after is not before, change
        assert view() is after
    assert (first.last_minute, after.last_minute.connections, after.last_minute.refused) == (
        LastMinuteFacts(),
        2,
        3,
    )


async def test_the_shown_time_of_a_names_failure_follows_clock_changes(plane):
    (port,) = served_ports = web(plane, POD_A)
    unresolved = name_unresolved("db.example", "no such name").replace(first_at=5.0)
    port.plan = replace(port.plan, cause=unresolved, notes=(unresolved,))
    unix = [1005.0]
    clock = WallClock(lambda: 5.0, lambda: unix[0])

    def since():
        clock.tick()
        (view,) = view_ports(served_ports, plane, Bind.PROXY_PORT, clock)
        return {cause.first_at for cause in (view.cause, *view.notes)}

    assert since() == {1005.0}
    unix[0] = 9005.0
    assert since() == {9005.0}


def test_the_slow_start_share_is_shown_only_for_usable_endpoints():
    verdict, idle = (EndpointVerdict(POD, is_usable, "ready", weight=10) for is_usable in (1, 0))
    view = view_endpoint(verdict, Group(1, port_key("shop/web")), CLOCK, {}, {POD: 0.4}, {})
    assert (view.starting, view.preference) == (0.4, "weight 10, starts slowly: 40 %")
    assert (
        view_endpoint(verdict, Group(1, port_key("shop/web")), CLOCK, {}, {}, {}).starting is None
    )
    assert (
        view_endpoint(idle, Group(1, port_key("shop/web")), CLOCK, {}, {POD: 0.4}, {}).starting
        is None
    )


def test_shown_traffic_is_a_copy_of_the_counters():
    counters = EndpointCounters()
    counters.count_failure(CauseCode.ENDPOINT_REFUSES)
    show_traffic(traffic := TrafficByCause(), counters)
    counters.count_failure(CauseCode.ENDPOINT_REFUSES)
    assert (traffic.failures, traffic.failures_by_cause) == (1, {"endpoint-refuses": 1})


@pytest.mark.parametrize(("version", "is_named"), [("v1", True), (None, False)])
def test_the_remedy_of_resets_names_the_proxy_header_if_one_is_sent(version, is_named):
    verdict, group = EndpointVerdict(POD, True, "ready"), Group(1, port_key("shop/web"))
    group.serving = Serving(handling=Handling(proxy_protocol=version))
    group.counters_of(POD).ends.failed(1.0, Failure.RESET)
    hint = remedy(view_endpoint(verdict, group, CLOCK, {}, {}, {}).cause)
    assert hint.startswith(EXPECTS_NO_HEADER) is is_named


async def test_failures_by_resets_name_the_proxy_header_and_the_next_view_that_many_failed(plane):
    (port,) = served_ports = web(plane, POD_A)
    (pod,), handling = port.plan.serving.endpoints, Handling(proxy_protocol="v1")
    port.plan = replace(port.plan, serving=Serving((pod,), handling=handling))
    port.group.counters_of(pod).ends.add(StreakPart(0.0, 1, 0.0, 0.0, Failure.RESET))
    for was_many in (False, True):
        port.group.last_minute.add(MinuteCounts(40, 0, 3), 0.0)
        (view,) = judged(served_ports, plane)
        assert view.last_minute.was_many is was_many
    assert "PROXY header" in say(view.last_minute.cause)


@pytest.mark.parametrize(
    ("changes", "is_unusual"),
    [
        ({}, True),
        ({"handling": Handling(balance=Balance.SOURCE_HASH)}, False),
        ({"affinity_timeout_s": 60}, False),
    ],
)
async def test_source_hash_or_affinity_prevents_comparing_endpoints(plane, changes, is_unusual):
    (port,) = served_ports = web(plane, POD_A, POD_B)
    endpoints = port.plan.serving.endpoints
    port.plan = replace(port.plan, serving=Serving(endpoints, **changes))
    for owed, endpoint in zip((0, 40), endpoints, strict=True):
        counters = port.group.counters_of(endpoint)
        counters.connections, counters.unanswered_requests = 50, owed
    port.group.last_minute.add(MinuteCounts(12, unanswered_requests=6), 0.0)
    (view,) = judged(served_ports, plane)
    assert view.last_minute.is_unusual is is_unusual


def leads_to(served_ports, bind=Bind.PROXY_PORT):
    (served,) = served_ports
    view = view_frontend(served, WEB, bind)
    return view.target, view.is_reached


@pytest.mark.parametrize(
    ("pods", "more", "target"),
    [
        pytest.param([], {}, "refused", id="without-endpoints"),
        pytest.param(
            [POD_A],
            {"handling": Handling(path=DataPath.KERNEL)},
            format_target(PathView(DataPath.KERNEL), WEB),
            id="on-the-kernel-path",
        ),
    ],
)
async def test_a_frontend_shows_refusal_or_the_kernel_path_as_target(make, pods, more, target):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", WEB.ip, *pods, **more))
    assert leads_to(served_ports) == (target, True)


async def test_a_frontend_held_by_another_program_or_not_steered_is_not_reached(make, plane):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", WEB.ip, POD_A))
    served_ports.steered.note_unsteered(
        {WEB: Taken("it is translated", "delete that", "ip evil a")}
    )
    (port,) = judged(served_ports, plane)
    assert port.state.causes == (not_listening("it is translated", "delete that", "ip evil a"),)
    assert (port.problem, port.hint) == ("it is translated", "delete that")
    assert (port.taken_by, port.is_unsteered) == ("ip evil a", True)
    doubt = Taken("it may be dropped", "look", "ip evil a", is_certain=False)
    served_ports.steered.note_unsteered({WEB: doubt})
    (port,) = judged(served_ports, plane)
    assert (port.mark, port.perhaps_taken, port.problem) == (None, doubt, "")
    served_ports.steered.note_unsteered({WEB: "no route"})
    assert leads_to(served_ports) == ("not steered to this proxy", False)
    (served,) = served_ports
    served.held_by_others = frozenset({WEB})
    assert leads_to(served_ports) == ("held by another program", False)


async def test_a_frontend_bound_to_loopback_is_shown_as_reached_only_at_its_listener(make):
    served_ports = make(Bind.LOOPBACK)
    served_ports.follow(Cluster().serve("web", WEB.ip, POD_A))
    (served,) = served_ports
    view = view_frontend(served, WEB, Bind.LOOPBACK)
    assert view.target.startswith("127.0.0.1:")
    assert (view.only_at, view.is_reached) == (view.target, True)
    assert view_frontend(served, WEB, Bind.PROXY_PORT).only_at == ""


async def test_a_range_is_reached_only_if_each_of_its_ports_has_a_listener(make):
    served_ports = make(Bind.FRONTEND)
    served_ports.follow(Cluster().serve("web", "127.0.0.7", POD_A))
    (served,) = served_ports
    ((own, listener),) = served.listeners.items()
    other = replace(own, port=81)
    served.plan = replace(served.plan, frontends=(own, other))
    for listeners, is_reached in (
        ({own: listener}, False),
        ({own: listener, other: listener}, True),
    ):
        served.listeners = listeners
        view = view_frontend(served, replace(own, last=81), Bind.FRONTEND)
        assert (view.address, view.is_reached) == ("127.0.0.7:80–81", is_reached)


async def test_a_service_port_counts_as_quiet_a_minute_after_the_last_response(plane):
    (port,) = served_ports = web(plane, POD_A)
    port.group.counters_of(POD).sent_bytes = 7
    port.group.sent_at = 5.0
    looks = [view_ports(served_ports, plane, Bind.PROXY_PORT, at(now)) for now in (64.9, 65.0, 99)]
    (fresh,), (quiet,), (later,) = looks
    assert (fresh.is_quiet, fresh.sent_at, quiet.is_quiet) == (False, 1005.0, True)
    assert later is quiet, "the age is computed where it is shown"


POD = SocketAddress("192.0.2.1", 8080)
KEY = PortKey(ServicePortName("shop", "cart", "http"), IPFamily.IPV4)
PLAN = PortPlan(KEY, Protocol.TCP, (), (), Serving((POD,)))
CLOCK = WallClock(lambda: 0.0, lambda: 1000.0)


def test_drops_by_policy_are_not_attributed_to_removed_source_ranges():
    group = Group(1, port_key("shop/cart:http"))
    ranges = ("198.51.100.0/24",)
    served_here = with_serving(PLAN, admits=ranges)
    only_elsewhere = with_serving(PLAN, admits=("10.0.0.0/8",), outside=())
    elsewhere = none_local(1, 0, "node-b", "externalTrafficPolicy")

    def drop(plan, now):
        """Serve this plan, drop a packet later, and return the causes that are shown."""
        group.change(plan.serving, now)
        group.add(0, group_report(denied=1), now + 50.0)
        return [(cause.fact, cause.count) for cause in turned_away(plan, group, CLOCK)]

    by_ranges, by_policy = source_denied(ranges).fact, elsewhere.fact
    assert drop(served_here, 0.0) == [(by_ranges, 1)]
    left = replace(only_elsewhere, cause=elsewhere)
    assert drop(left, 100.0) == [(by_ranges, 1), (by_policy, 1)]
    assert drop(served_here, 200.0) == [(by_ranges, 2), (none_was_local().fact, 1)]


def test_client_mistakes_are_shown_for_a_minute_or_until_a_client_is_served():
    group = Group(1, port_key("shop/cart:http"))
    mistakes = {
        ClientMistake.NO_PROXY_HEADER: StreakPart(
            -1.0, 3, 10.0, 12.0, Failure.OTHER, 0, "203.0.113.11"
        ),
        ClientMistake.HOP_LIMIT: StreakPart(-1.0, 1, 14.0, 14.0, Failure.OTHER, 0, "203.0.113.12"),
    }
    group.add(0, group_report(mistakes=mistakes), 15.0)

    def shown(now, has_served):
        clock = WallClock(lambda: now, lambda: 1000.0 + now)
        return client_mistakes(group, clock, has_served=has_served)

    header = no_proxy_header("203.0.113.11").replace(count=3, first_at=1010.0, last_at=1012.0)
    hops = hop_limit_reached("203.0.113.12").replace(count=1, first_at=1014.0, last_at=1014.0)
    assert shown(71.0, True) == (header, hops)
    assert shown(72.0, True) == (hops,)
    assert shown(900.0, False) == (header, hops)
    assert shown(900.0, True) == ()
