import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.nodes import no_node
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import held_by
from userspace_proxy.diagnosis.problems import (
    NODE_CODES,
    codes_of_node,
    late_s,
    problems_of_clients,
    problems_of_node,
    summarise,
)
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
    Level,
    SourceFacts,
    SteeringState,
    SyncFacts,
)
from userspace_proxy.facts.node import SocketLbFacts
from userspace_proxy.status.text import render_text

from ..status.views import (
    NOW,
    make_calm_view,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
    replace,
)
from .words import NODES

HELD_BY = "node port 30080/TCP is held by nginx (pid 812)"


def test_addresses_in_use_of_many_services_are_one_problem():
    """Otherwise 25 similar lines would fill the first screen of the page."""
    causes = [held_by(f"10.96.0.{n}:80", "shop/web") for n in range(25)]
    taken = [
        make_ignored(f"shop/s{n:02}", "80", one, is_conflict=True) for n, one in enumerate(causes)
    ]
    (one,) = problems_of_node(make_view(ignored=taken), NOW)
    names = "shop/s00, shop/s01, shop/s02 and 22 others"
    assert one.what == f"{names} are not served: {say(causes[0])}, and others alike"
    few = problems_of_node(make_view(ignored=taken[:3]), NOW)
    assert [problem.level for problem in few] == [Level.TROUBLE] * 3
    text = render_text(make_view(ignored=taken), now=NOW).body.decode()
    assert "and 20 more Services are not served, as others have their addresses" in text


def test_only_problems_that_may_fail_clients_of_any_service_are_selected():
    waits = {"sync": SyncFacts(waiting_since=NOW - 60), "node_is_eligible": False}
    view = make_view(worker_problems=("worker 1 is gone",), **waits)
    kinds = [one.kind for one in problems_of_clients(view, NOW)]
    assert kinds == ["worker: worker 1 is gone", "change waits"]


@pytest.mark.parametrize(("is_attached", "count"), [(None, 1), (False, 1), (True, 0)])
def test_a_missing_route_is_a_problem_unless_hooks_translate_connect(is_attached, count):
    view = make_view(unrouted={"fd00::1": "Network is unreachable"})
    view.socket_lb = SocketLbFacts(is_attached=is_attached)
    problems = problems_of_node(view, NOW)
    assert [one.code for one in problems] == [CauseCode.NOT_LISTENING] * count


def test_codes_of_node_returns_the_codes_of_node_problems():
    assert codes_of_node(make_calm_view()) == frozenset()
    chain = FirewallFacts("inet evil in", "rule tcp dport 80 reject")
    view = make_view(
        firewalls=(chain,),
        unrouted={"fd00::1": "Network is unreachable"},
        no_node=no_node("node-a", ()),
        source=SourceFacts("kubernetes", problems=("refused",)),
    )
    assert codes_of_node(view) == {*NODE_CODES}


@pytest.mark.parametrize(
    ("sync", "waited_s"),
    [
        pytest.param(SyncFacts(waiting_since=NOW - 190), 190, id="waits"),
        pytest.param(
            SyncFacts(last_queued=NOW - 190, last_done=NOW - 200), 0, id="clock-was-set-back"
        ),
        pytest.param(SyncFacts(last_queued=NOW - 190, last_done=NOW - 180), 0, id="in-force"),
    ],
)
def test_the_delay_of_a_change_ends_once_the_change_is_applied(sync, waited_s):
    assert late_s(sync, NOW) == waited_s


def test_the_problem_of_a_port_includes_its_remedy():
    view = make_view(make_port(problem=HELD_BY, hint="stop nginx"))
    (problem,) = summarise(view, NOW).problems
    assert (problem.what, problem.hint) == (f"Not served: {HELD_BY}", "stop nginx")


@pytest.mark.parametrize("changes", NODES, ids="-".join)
def test_each_node_failure_is_one_problem(changes):
    summary = summarise(make_view(make_port(), **changes), NOW)
    (problem,) = summary.problems
    assert summary.level is problem.level


def test_a_brief_failure_to_write_the_state_is_not_reported():
    state = LastStateFacts("/x", problem="disk full", failing_since=NOW - 59)
    assert not summarise(make_view(last_state=state), NOW).problems


def test_without_problems_the_number_of_service_ports_is_shown():
    assert summarise(make_calm_view(), NOW).verdict == "No problems. 4 Service ports."
    assert summarise(make_view(), NOW).verdict == "No problems. No Services yet."


def test_a_service_without_endpoints_is_not_a_proxy_failure():
    batch = make_port("batch", endpoints=(), reason="it has no endpoints")
    summary = summarise(make_view(make_port(), batch), NOW)
    assert summary.level is Level.ATTENTION
    assert summary.verdict == "1 of 2 Service ports needs attention."


def test_a_starting_proxy_reports_that_it_is_starting_and_how_many_problems_it_has():
    source = SourceFacts("kubernetes", "https://k", is_synced=False, problems=("refused",))
    summary = summarise(make_view(is_ready=False, source=source, sync=SyncFacts()), NOW)
    assert summary.verdict == "Starting. 1 problem on this node."


def test_a_single_problem_is_stated_in_the_singular():
    view = make_view(make_port(), steering=SteeringState("iptables", problem="lost"))
    assert summarise(view, NOW).verdict == "1 problem on this node."


def test_a_draining_proxy_reports_shutting_down():
    view = make_view(is_ready=False, is_draining=True)
    assert summarise(view, NOW).verdict == "Shutting down."


def test_a_proxy_without_workers_is_not_shown_as_draining():
    view = make_view(is_ready=False, worker_problems=("worker 0 was killed",))
    assert summarise(view, NOW).verdict == "2 problems on this node."


def test_ports_dropping_outside_clients_are_counted_without_being_problems():
    verdict = summarise(make_view(make_port(), *make_two_sides()), NOW).verdict
    assert verdict == "No problems. 3 Service ports served, 1 of them not for outside clients."


def test_the_problem_of_one_side_of_a_service_port_names_the_side():
    _, outside = make_two_sides()
    (problem,) = summarise(make_view(replace(outside, problem="in use")), NOW).problems
    assert (problem.port, problem.side) == ("shop/front:http", "external")


def test_node_problems_are_sorted_by_severity():
    found = problems_of_node(make_troubled_view(), NOW)
    levels = [problem.level for problem in found]
    assert not any(problem.port for problem in found)
    assert levels == sorted(levels, key=lambda level: level is not Level.TROUBLE)
    assert set(levels) == {Level.TROUBLE, Level.ATTENTION}
    assert len({problem.kind for problem in found} - {""}) == len(found), "two are of one kind"
