import pytest

from userspace_proxy.diagnosis.problems import codes_of_node, late_s, problems_of_node, summarise
from userspace_proxy.facts import (
    BridgeFacts,
    ClientAddressFacts,
    FirewallFacts,
    LastStateFacts,
    Level,
    MemoryFacts,
    SocketLbFacts,
    SourceFacts,
    SteeringState,
    SyncFacts,
    TrackingFacts,
    UnservedFacts,
)
from userspace_proxy.model import CauseCode

from ..status.views import (
    NOW,
    make_calm_view,
    make_health_check,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
    replace,
)

HELD_BY = "node port 30080/TCP is held by nginx (pid 812)"


def test_causes_of_the_whole_node_have_codes():
    assert codes_of_node(make_calm_view()) == frozenset()
    chain = FirewallFacts("inet evil in", "rule tcp dport 80 reject")
    assert codes_of_node(make_view(firewalls=(chain,))) == {CauseCode.FIREWALL_DROPS}


@pytest.mark.parametrize(
    ("sync", "waited_s"),
    [
        pytest.param(SyncFacts(waiting_since=NOW - 190), 190, id="waits"),
        pytest.param(SyncFacts(last_queued=NOW - 190, last_done=NOW - 200), 190, id="not-begun"),
        pytest.param(SyncFacts(last_queued=NOW - 190, last_done=NOW - 180), 0, id="in-force"),
    ],
)
def test_a_change_is_late_until_it_is_in_force(sync, waited_s):
    assert late_s(sync, NOW) == waited_s


def test_a_ports_problem_has_its_remedy_beside_it():
    view = make_view(make_port(problem=HELD_BY, hint="stop nginx"))
    (problem,) = summarise(view, NOW).problems
    assert (problem.what, problem.hint) == (f"Not served: {HELD_BY}", "stop nginx")


@pytest.mark.parametrize(
    ("changes", "level", "what"),
    [
        pytest.param(
            {"socket_lb": SocketLbFacts(problem="no cgroup v2 is mounted")},
            Level.ATTENTION,
            "connect() of this node's programs is not translated everywhere: no cgroup v2 is "
            "mounted",
            id="socket-lb",
        ),
        pytest.param(
            {"is_ready": False, "source": SourceFacts("manifests", "web.yaml", is_synced=False)},
            Level.ATTENTION,
            "Starting: Services have not been read yet from web.yaml",
            id="not-read-yet",
        ),
        pytest.param(
            {"is_ready": False, "sync": SyncFacts()},
            Level.ATTENTION,
            "Starting: the first plan is not in force yet",
            id="not-in-force-yet",
        ),
        pytest.param(
            {"is_ready": False, "is_draining": True},
            Level.ATTENTION,
            "Shutting down: open connections may finish",
            id="draining",
        ),
        pytest.param(
            {"is_ready": False},
            Level.TROUBLE,
            "No worker process runs: new connections wait",
            id="no-worker",
        ),
        pytest.param(
            {"source": SourceFacts("manifests", ".", is_synced=True, problems=("a.yaml:3: bad",))},
            Level.TROUBLE,
            "Source: a.yaml:3: bad",
            id="source",
        ),
        pytest.param(
            {"unserved": (UnservedFacts("cannot serve x on 0.0.0.0:1: in use", "stop it"),)},
            Level.TROUBLE,
            "Cannot serve x on 0.0.0.0:1: in use",
            id="status-address",
        ),
        pytest.param(
            {"steering": SteeringState("iptables", problem="Operation not permitted")},
            Level.TROUBLE,
            "Steering by iptables: Operation not permitted",
            id="steering",
        ),
        pytest.param(
            {"tracking": TrackingFacts(1000, 1000, is_full=True)},
            Level.TROUBLE,
            "New connections fail on this node: connection tracking is full, 1,000 of 1,000 "
            "entries in use",
            id="conntrack-full",
        ),
        pytest.param(
            {"tracking": TrackingFacts(900, 1000)},
            Level.ATTENTION,
            "Connection tracking is nearly full: 900 of 1,000 entries in use",
            id="conntrack-nearly-full",
        ),
        pytest.param(
            {"steering": SteeringState("local", unguarded="there is no nftables here")},
            Level.ATTENTION,
            "After a crash of the proxy, any process on this node can take its ports and receive "
            "its clients' traffic: there is no nftables here",
            id="unguarded",
        ),
        pytest.param(
            {"steering": SteeringState("nftables", problem="not permitted", has_drifted=True)},
            Level.TROUBLE,
            "Rules of nftables steering may differ from the plan and can't be repaired: "
            "not permitted",
            id="drift",
        ),
        pytest.param(
            {"steering": SteeringState("nftables", repaired_last_minute=3)},
            Level.ATTENTION,
            "Another program keeps changing the proxy's rules: put back 3 times in the last minute",
            id="drift-again-and-again",
        ),
        pytest.param(
            {"sync": SyncFacts(waiting_since=NOW - 190, problem="No buffer space available")},
            Level.TROUBLE,
            "A change has waited 3 min and is not in force: No buffer space available",
            id="late-change",
        ),
        pytest.param(
            {"sync": SyncFacts(waiting_since=NOW - 2, problem="No buffer space available")},
            Level.TROUBLE,
            "The last round failed: No buffer space available",
            id="failed-round",
        ),
        pytest.param(
            {"client_address": ClientAddressFacts(problem="not permitted")},
            Level.TROUBLE,
            "Client addresses: not permitted",
            id="client-addresses",
        ),
        pytest.param(
            {"firewalls": (FirewallFacts("inet evil in", "rule tcp dport 80 reject"),)},
            Level.TROUBLE,
            "Chain inet evil in may drop packets to Services on their way in: "
            "rule tcp dport 80 reject",
            id="firewall",
        ),
        pytest.param(
            {"descriptors": 95, "descriptor_limit": 100},
            Level.ATTENTION,
            "Descriptors run short: 95 of 100 descriptors in use",
            id="descriptors-run-short",
        ),
        pytest.param(
            {"descriptors": 100, "descriptor_limit": 100, "is_accepting": False},
            Level.TROUBLE,
            "New connections wait: 100 of 100 descriptors in use",
            id="accepting-is-paused",
        ),
        pytest.param(
            {
                "memory": MemoryFacts(183 << 20, 200 << 20, is_short=True, was_short=True),
                "is_accepting": False,
            },
            Level.TROUBLE,
            "Memory: 91 % of the limit of 200 MiB is used, no more connections are accepted; the "
            "connections that hold the most are reset",
            id="memory",
        ),
        pytest.param(
            {"worker_problems": ("worker 1 ended by signal 9 and is started again",)},
            Level.TROUBLE,
            "Worker 1 ended by signal 9 and is started again",
            id="worker",
        ),
        pytest.param(
            {
                "health_checks": (
                    make_health_check("shop/web", 31000, 1, "cannot serve it: in use"),
                )
            },
            Level.TROUBLE,
            "shop/web: cannot serve it: in use",
            id="health-check",
        ),
        pytest.param(
            {
                "client_address": ClientAddressFacts(
                    True, bridges=(BridgeFacts("cni0", "IPv4", "so"),)
                )
            },
            Level.ATTENTION,
            "Endpoints on bridge cni0 see this node's address instead of that of IPv4 clients on "
            "the same bridge: so",
            id="bridge",
        ),
        pytest.param(
            {"last_state": LastStateFacts("/var/lib/state", served_at=NOW - 180)},
            Level.ATTENTION,
            "Serving the last state, which is 3 min old: Services have not been read yet from "
            "https://10.0.0.1:6443",
            id="last-state",
        ),
        pytest.param(
            {"last_state": LastStateFacts("/x", problem="disk full", failing_since=NOW - 60)},
            Level.ATTENTION,
            "The last state is not kept on disk: disk full",
            id="last-state-not-kept",
        ),
        pytest.param(
            {"node_is_eligible": False},
            Level.ATTENTION,
            "This node is to be deleted: /healthz answers 503, so that load balancers avoid it",
            id="node-leaves",
        ),
    ],
)
def test_problems_of_the_node(changes, level, what):
    summary = summarise(make_view(make_port(), **changes), NOW)
    assert [(p.level, p.what) for p in summary.problems] == [(level, what)]
    assert summary.level is level


def test_a_state_that_could_not_be_written_for_a_moment_is_no_problem():
    state = LastStateFacts("/x", problem="disk full", failing_since=NOW - 59)
    assert not summarise(make_view(last_state=state), NOW).problems


def test_without_problems_the_number_of_services_is_shown():
    assert summarise(make_calm_view(), NOW).verdict == "No problems. 4 Service ports served."
    assert summarise(make_view(), NOW).verdict == "No problems. No Services yet."


def test_trouble_is_first_and_names_the_service_port():
    summary = summarise(make_troubled_view(), NOW)
    assert [(p.level.value, p.port) for p in summary.problems] == [
        ("trouble", ""),
        ("trouble", ""),
        ("trouble", ""),
        ("trouble", "shop/admin:http"),
        ("trouble", "shop/search:http"),
        ("attention", ""),
        ("attention", "shop/batch:http"),
        ("attention", "shop/cart:http"),
        ("attention", "shop/payments:http"),
        ("attention", "shop/trick:http"),
    ]
    assert summary.verdict == "4 problems on this node. 6 of 10 Service ports need attention."


def test_a_refused_service_is_no_trouble_of_the_proxy():
    batch = make_port("batch", endpoints=(), reason="it has no endpoints")
    summary = summarise(make_view(make_port(), batch), NOW)
    assert summary.level is Level.ATTENTION
    assert summary.verdict == "1 of 2 Service ports needs attention."


def test_while_the_proxy_starts_problems_are_not_counted():
    source = SourceFacts("kubernetes", "https://k", is_synced=False, problems=("refused",))
    summary = summarise(make_view(is_ready=False, source=source, sync=SyncFacts()), NOW)
    assert summary.verdict == "Starting. 1 problem on this node."


def test_the_sentence_about_a_source_is_true_of_all_its_problems():
    # A number that two Services claim: the second one's frontends are in force.
    line = "a.yaml:3: spec.healthCheckNodePort: 30080/TCP is already named by shop/web"
    source = SourceFacts("manifests", ".", is_synced=True, problems=(line,))
    (problem,) = summarise(make_view(source=source), NOW).problems
    assert problem.hint == (
        "Objects that can't be read keep their last state; everything else is in force"
    )


def test_one_problem_is_counted_as_one():
    view = make_view(make_port(), steering=SteeringState("iptables", problem="lost"))
    assert summarise(view, NOW).verdict == "1 problem on this node."


def test_a_proxy_that_drains_shows_it():
    view = make_view(is_ready=False, is_draining=True)
    assert summarise(view, NOW).verdict == "Shutting down."


def test_a_proxy_without_workers_is_not_shown_as_draining():
    view = make_view(is_ready=False, worker_problems=("worker 0 was killed",))
    assert summarise(view, NOW).verdict == "2 problems on this node."


def test_a_service_whose_address_is_taken_is_a_problem_and_one_of_another_proxy_is_not():
    reason = "10.96.0.1:80/TCP is already held by shop/cart"
    view = make_view(
        ignored=(
            make_ignored("shop/web", "80", reason, is_conflict=True),
            make_ignored("shop/db", "", "it is headless"),
        )
    )
    (problem,) = summarise(view, NOW).problems
    assert problem.level is Level.TROUBLE
    assert problem.what == f"shop/web is not served: {reason}"


def test_a_port_that_drops_is_not_shown_as_refusing():
    inside, outside = make_two_sides()
    assert (inside.state.word, outside.state.word) == ("served", "dropped")


def test_ports_that_drop_clients_from_outside_are_counted_without_problems():
    verdict = summarise(make_view(make_port(), *make_two_sides()), NOW).verdict
    assert verdict == "No problems. 3 Service ports served, 1 of them not for outside clients."


def test_a_problem_names_its_side():
    _, outside = make_two_sides()
    (problem,) = summarise(make_view(replace(outside, problem="in use")), NOW).problems
    assert (problem.port, problem.side) == ("shop/front:http", "external")


def test_a_shortage_of_memory_is_shown_for_a_moment_after_its_end():
    view = replace(make_calm_view(), memory=MemoryFacts(160 << 20, 200 << 20, was_short=True))
    (problem,) = summarise(view, NOW).problems
    assert "80 % of the limit of 200 MiB is used, it was more a moment ago" in problem.what
    assert "MemoryMax=" in problem.hint


def test_problems_of_the_node_alone_are_the_worst_first_too():
    found = problems_of_node(make_troubled_view(), NOW)
    levels = [problem.level for problem in found]
    assert not any(problem.port for problem in found)
    assert levels == sorted(levels, key=lambda level: level is not Level.TROUBLE)
    assert set(levels) == {Level.TROUBLE, Level.ATTENTION}
    assert len({problem.kind for problem in found} - {""}) == len(found), "events tell them apart"
