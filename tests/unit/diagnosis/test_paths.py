import pytest
from msgspec.structs import replace

from userspace_proxy.causes.endpoints import silent_to_some
from userspace_proxy.diagnosis.paths import (
    PathView,
    format_path,
    problems_of_kernel,
    unseen_reason,
)
from userspace_proxy.facts import Level
from userspace_proxy.facts.node import (
    BridgeFacts,
    ClientAddressFacts,
    SocketLbFacts,
    TrackingFacts,
)
from userspace_proxy.model import DataPath
from userspace_proxy.policy import PathDecision

from ..status.views import make_port, make_view
from .words import WORDS, paths

KERNEL = DataPath.KERNEL


def test_the_recorded_page_contains_texts_of_paths_and_probes():
    recorded = WORDS.read_text(encoding="utf-8").splitlines()
    assert [*paths()] == recorded[-len([*paths()]) :]


def test_a_path_is_formatted_with_its_age_and_reason():
    assert format_path("kernel", "it is asked for", 100.0, 280.0) == (
        "kernel for 3 min: it is asked for"
    )
    assert format_path("userspace", "", 0.0, 280.0) == "userspace"


def test_a_paths_age_starts_when_it_takes_effect():
    chosen = PathDecision(DataPath.KERNEL, "its annotation asks for it")
    view = PathView(since=90.0, kernel_connections=3).follow(chosen, 100.0)
    assert view == PathView(DataPath.KERNEL, 100.0, "its annotation asks for it", 3)
    assert view.follow(PathDecision(DataPath.KERNEL, "auto"), 110.0) == PathView(
        DataPath.KERNEL, 100.0, "auto", 3
    )


def test_a_path_is_written_into_the_facts_of_its_port():
    facts = make_port()
    PathView(KERNEL, 3.0, "auto", 7, socket_connections=2).show(facts, 1795000000.0)
    assert (facts.path, facts.path_since, facts.path_reason) == (KERNEL, 1795000000.0, "auto")
    assert (facts.past_workers, facts.unanswered) == (9, None)


def test_clients_unanswered_in_the_kernel_are_reported_only_on_the_kernel_path():
    silent = PathView(DataPath.KERNEL, unanswered=silent_to_some("10.244.1.2:80"))
    for path, unanswered in ((DataPath.KERNEL, silent.unanswered), (DataPath.USERSPACE, None)):
        assert silent.follow(PathDecision(path, "auto"), 110.0).unanswered == unanswered


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param({}, "", id="proxy"),
        pytest.param({"path": KERNEL}, "the kernel leads its connections", id="rules"),
        pytest.param({"path": KERNEL, "socket_connections": 0}, "rules lead them", id="hooks"),
    ],
)
def test_the_reason_why_connections_are_unobservable_depends_on_the_path(facts, reason):
    text = unseen_reason(replace(make_port(), **facts))
    assert text.startswith(reason)
    assert bool(text) is bool(reason)


@pytest.mark.parametrize(
    ("facts", "level", "kind"),
    [
        pytest.param(
            {"socket_lb": SocketLbFacts(problem="no cgroup v2")},
            Level.ATTENTION,
            "socket-lb",
            id="hooks",
        ),
        pytest.param(
            {"client_address": ClientAddressFacts(problem="no rules")},
            Level.TROUBLE,
            "client addresses",
            id="client-addresses",
        ),
        pytest.param(
            {"client_address": ClientAddressFacts(is_on=True, bridges=[BridgeFacts("b", "IPv4")])},
            Level.ATTENTION,
            "bridge b IPv4",
            id="bridge",
        ),
        pytest.param(
            {"tracking": TrackingFacts(entries=100, limit=100, is_full=True)},
            Level.TROUBLE,
            "tracking full",
            id="full",
        ),
        pytest.param(
            {"tracking": TrackingFacts(entries=90, limit=100)},
            Level.ATTENTION,
            "tracking nearly full",
            id="nearly-full",
        ),
    ],
)
def test_each_failure_of_the_kernel_is_one_problem(facts, level, kind):
    (problem,) = problems_of_kernel(make_view(**facts))
    assert (problem.level, problem.kind) == (level, kind)


def test_a_conntrack_table_less_than_nine_tenths_full_is_not_reported():
    view = make_view(tracking=TrackingFacts(entries=89, limit=100))
    assert not [*problems_of_kernel(view)]
