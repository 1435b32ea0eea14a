from dataclasses import replace

from tests.port_keys import port_key
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.agent.turned_away import client_mistakes, turned_away
from userspace_proxy.agent.view import view_ports
from userspace_proxy.causes.services import (
    hop_limit_reached,
    no_proxy_header,
    none_was_local,
    source_denied,
    source_was_denied,
)
from userspace_proxy.causes.slices import none_local
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.facts import ClientMistake, PortState, SourceFacts, StreakPart
from userspace_proxy.model import (
    Failure,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    SocketAddress,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.plane import Group
from userspace_proxy.steering import Bind

from ..plan.planning import with_serving
from ..plane.reports import endpoint_report, group_report
from .samples import Cluster, at, served

POD = SocketAddress("192.0.2.1", 8080)
KEY = PortKey(ServicePortName("shop", "cart", "http"), IPFamily.IPV4)
PLAN = PortPlan(KEY, Protocol.TCP, (), (), Serving((POD,)))
CLOCK = WallClock(lambda: 0.0, lambda: 1000.0)


def test_clients_that_a_policy_drops_are_not_those_of_former_ranges():
    group = Group(1, port_key("shop/cart:http"))
    ranges = ("198.51.100.0/24",)
    served_here = with_serving(PLAN, admits=ranges)
    only_elsewhere = with_serving(PLAN, admits=("10.0.0.0/8",), outside=())
    elsewhere = none_local(1, 0, "node-b", "externalTrafficPolicy")

    def drop(plan, now):
        """Serve like this, have a packet dropped later, and return the causes that are shown."""
        group.change(plan.serving, now)
        group.add(0, group_report(denied=1), now + 50.0)
        return [(cause.fact, cause.count) for cause in turned_away(plan, group, CLOCK)]

    by_ranges, by_policy = source_denied(ranges).fact, elsewhere.fact
    assert drop(served_here, 0.0) == [(by_ranges, 1)]
    left = replace(only_elsewhere, cause=elsewhere)
    assert drop(left, 100.0) == [(by_ranges, 1), (by_policy, 1)]
    assert drop(served_here, 200.0) == [(by_ranges, 2), (none_was_local().fact, 1)]


def test_what_former_ranges_dropped_is_not_worded_by_the_present_ones():
    group = Group(1, port_key("shop/cart:http"))
    former = with_serving(PLAN, admits=("198.51.100.0/24",))
    present = with_serving(PLAN, admits=("192.0.2.0/24",))
    group.change(former.serving, 0.0)
    group.add(0, group_report(denied=3), 50.0)
    group.change(present.serving, 60.0)
    expected = source_was_denied().replace(count=3, first_at=1050.0, last_at=1050.0)
    assert turned_away(present, group, CLOCK) == (expected,)


def test_where_no_client_is_dropped_nothing_is_shown():
    group = Group(1, port_key("shop/cart:http"))
    group.add(0, group_report(denied=1), 1.0)
    assert turned_away(PLAN, group, CLOCK) == ()


def test_mistakes_of_clients_are_shown_for_a_minute_or_until_one_was_served():
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


async def test_clients_that_send_no_proxy_header_are_shown_while_it_is_so(plane):
    served_ports = served(plane, Bind.PROXY_PORT, Cluster().serve("web", "10.96.0.1", POD.ip))
    (port,) = served_ports
    mistakes = {
        ClientMistake.NO_PROXY_HEADER: StreakPart(-1.0, 1, 5.0, 5.0, Failure.OTHER, 0, "192.0.2.7")
    }
    port.group.add(0, group_report(mistakes=mistakes), 5.0)

    def state(now):
        views = view_ports(served_ports, plane, Bind.PROXY_PORT, at(now))
        (view,) = diagnose(views, SourceFacts())
        return view.state.word, [(cause.row, cause.get("client")) for cause in view.state.stated]

    header = [(no_proxy_header, "192.0.2.7")]
    assert state(900.0) == (PortState.REFUSED, header)
    port.group.add(0, group_report(endpoint_report(POD, connections=1)), 64.0)
    assert state(64.0) == (PortState.PARTLY_SERVED, header)
    assert state(65.0) == (PortState.UNKNOWN, [])
