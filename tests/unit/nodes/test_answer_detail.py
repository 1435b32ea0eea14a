"""Tests of when agents are queried for summaries, and how failures are recorded."""

import errno

import msgspec
import pytest

from userspace_proxy.causes.say import remedy
from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.status.http_answer import ANSWER_BYTES, TooLarge, Unreadable
from userspace_proxy_kubectl.nodes import agent_causes
from userspace_proxy_kubectl.nodes.agent_calls import Read
from userspace_proxy_kubectl.nodes.agent_pods import by_node, read_agent
from userspace_proxy_kubectl.nodes.answer_detail import (
    SUMMARY_FROM,
    WHOLE_BYTES,
    Answers,
    Asking,
    every_s,
)
from userspace_proxy_kubectl.nodes.discovery import FoundAgents, Where
from userspace_proxy_kubectl.nodes.placement import read_node_state
from userspace_proxy_kubectl.port_forward import ForwardTarget, PortForwardError
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

from .objects import node, pod, written

LONG = "x" * 1000
TO = ForwardTarget("kube-system", "agent-1", 10249)
ILL, FINE, OTHER = status_of(service_objects(3), "node-1").ports
ILL = msgspec.structs.replace(ILL, state=msgspec.structs.replace(ILL.state, level=Level.TROUBLE))
FINE = msgspec.structs.replace(FINE, state=msgspec.structs.replace(FINE.state, level=Level.OK))
OTHER = msgspec.structs.replace(OTHER, state=FINE.state)
STATUS = msgspec.structs.replace(status_of([], "node-1"), ports=[ILL, FINE, OTHER])


@pytest.fixture
def answers():
    answers = Answers(Where())
    answers.take(found(pod()))
    return answers


def only(answers):
    return answers.nodes["node-1"]


def test_few_nodes_are_queried_for_complete_responses_and_many_for_summaries():
    assert Asking().mode("node-1", 3).path == "/api/v1/status"
    mode = Asking(["shop/web", "a/b&c"]).mode("node-1", SUMMARY_FROM + 1)
    assert mode.path == "/api/v1/status?view=summary&also=a%2Fb%26c&also=shop%2Fweb"
    assert mode.is_summary


def test_streams_of_many_nodes_send_fewer_lines():
    assert Asking(watches=True).mode("node-1", 3).path == "/api/v1/status?watch&every=1"
    assert Asking(watches=True).mode("node-1", 1000).path.endswith("?view=summary&watch&every=5")
    assert (every_s(SUMMARY_FROM), every_s(SUMMARY_FROM + 1)) == (1, 5)


def test_the_total_size_of_complete_responses_is_bounded():
    counts = 1, SUMMARY_FROM, 10 * SUMMARY_FROM
    one, many, summary = (Asking().mode("node-1", count).bounds.body for count in counts)
    assert many < one <= ANSWER_BYTES == summary
    assert SUMMARY_FROM * many <= WHOLE_BYTES


def test_a_node_with_an_oversized_response_is_queried_for_a_summary(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    assert asking.reduce("node-1", asking.mode("node-1", 3))
    mode = asking.mode("node-1", 3)
    assert mode.is_summary
    assert not asking.reduce("node-1", mode)
    asking.take(answers, "node-1", read, mode)
    assert not asking.mode("node-2", 3).is_summary


def test_after_several_oversized_responses_all_nodes_are_queried_for_summaries(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    for name in ("node-1", "node-2"):
        asking.reduce(name, asking.mode(name, 3))
        assert not asking.mode("node-3", 3).is_summary
        asking.take(answers, name, read, asking.mode(name, 3))
    assert asking.mode("node-3", 3).is_summary
    assert not asking.mode("node-3", 30).is_summary


def test_nodes_are_queried_for_complete_responses_again_after_a_brief_peak(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    for name in ("node-1", "node-2"):
        asking.take(answers, name, read, asking.mode(name, SUMMARY_FROM + 1))
    assert not asking.mode("node-3", 3).is_summary


@pytest.mark.parametrize(
    ("error", "row", "detail"),
    [
        (PortForwardError("refused", errno.EIO), agent_causes.forward_failed, "refused"),
        (TooLarge(5 << 20), agent_causes.answer_too_large, 5),
        (
            Unreadable("it isn't\nHTTP" + LONG),
            agent_causes.answer_unreadable,
            f"it isn't HTTP{LONG}"[:300],
        ),
    ],
)
def test_a_failed_query_becomes_a_cause_with_a_text_of_limited_length(answers, error, row, detail):
    asking = Asking()
    asking.fail(answers, "node-1", TO, error)
    assert only(answers).problem == row("kube-system", detail)
    assert asking.refused is None


def test_a_failed_port_forward_shows_how_the_agents_container_last_ended(answers, monkeypatch):
    end = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-21T09:00:00Z"}
    status = {"name": "userspace-proxy", "lastState": {"terminated": end}, "restartCount": 2}
    agents = found(pod(status={"phase": "Running", "containerStatuses": [status]}))
    for ended_s, is_lately in ((601, False), (599, True)):
        monkeypatch.setattr(Clocks, "time", lambda s=ended_s: 1795251600.0 + s)
        answers.take(agents)
        assert (only(answers).restarts is not None) is is_lately
        assert bool(answers.last_end_of("node-1").text) is is_lately
    assert only(answers).restarts == agent_causes.agent_restarts(
        "ended with status 137 (OOMKilled)", "kube-system", is_repeated=True, out_of_memory=True
    ).replace(count=2, last_at=1795251600.0)
    Asking().fail(answers, "node-1", TO, PortForwardError("it broke off", errno.ECONNRESET))
    why = "it broke off; its container last ended with status 137 (OOMKilled)"
    problem = agent_causes.forward_failed("kube-system", why, out_of_memory=True)
    assert only(answers).problem == problem
    assert "resources.limits.memory" in remedy(only(answers).problem)


def test_forbidden_port_forwards_are_recorded(answers):
    asking = Asking()
    asking.fail(answers, "node-1", TO, refused := PortForwardError("forbidden", errno.EACCES))
    assert asking.refused is refused


def test_a_late_response_and_a_stalled_stream_have_different_causes(answers):
    asking = Asking()
    asking.fail_late(answers, "node-1", TO, 5.0)
    assert only(answers).problem == agent_causes.no_answer("kube-system", 5.0)
    asking.fail_late(answers, "node-1", TO, 10.0, is_open=True)
    assert only(answers).problem == agent_causes.gone_silent("kube-system", 10.0)


READ = Read(StatusFacts(version="1"), 10.0, 11.0)


def found(*pods, nodes=None):
    states = [read_node_state(written(one)) for one in nodes or ()]
    by_name = None if nodes is None else {state.name: state for state in states}
    return FoundAgents(by_node(read_agent(written(one)) for one in pods), by_name)


@pytest.fixture
def unasked():
    return Answers(Where())


def test_each_node_has_a_response_or_a_cause_for_its_absence(unasked):
    ended = {"name": "userspace-proxy", "lastState": {"terminated": {"exitCode": 1}}}
    waiting = pod("two", "node-2", status={"phase": "Pending", "containerStatuses": [ended]})
    nodes = [node(f"node-{number}") for number in (1, 2, 3)]
    unasked.take(found(pod("one", "node-1"), waiting, nodes=nodes))
    unasked.put("node-1", READ, is_summary=True)
    one, two, three = unasked.all_nodes(None).answers
    assert (one.status.version, one.is_summary) == ("1", True)
    assert (one.asked_at, one.answered_at, one.problem) == (10.0, 11.0, None)
    assert (two.agents, three.agents) == ((), ())
    assert two.problem.row is agent_causes.agent_ended
    assert three.problem == agent_causes.no_agent("kube-system")
    assert unasked.is_settled()


def test_a_requested_node_that_the_daemon_set_excludes_lacks_an_agent_for_this_reason():
    answers = Answers(Where(nodes=frozenset({"node-2", "node-9"})))
    answers.take(found(pod("one", "node-1", nodeSelector={"a": "b"}), nodes=[node("node-2")]))
    excluded, unknown = answers.all_nodes(None).answers
    assert excluded.problem == agent_causes.agent_excluded("kube-system")
    assert unknown.problem == agent_causes.no_agent("kube-system")


def test_nodes_are_unknown_if_they_cannot_be_listed(unasked):
    unasked.take(found(pod()))
    assert not unasked.all_nodes(None).has_nodes
    unasked.take(found(pod(), nodes=[]))
    assert unasked.all_nodes(None).has_nodes


def test_a_failure_is_shown_with_the_last_response_until_the_next_response(unasked):
    unasked.take(found(pod()))
    assert not unasked.is_settled()
    unasked.put("node-1", READ, is_summary=False)
    unasked.fail("node-1", agent_causes.no_answer("kube-system", 5.0))
    (one,) = unasked.all_nodes(None).answers
    assert (one.status, one.problem) == (READ.status, agent_causes.no_answer("kube-system", 5.0))
    unasked.put("node-1", READ, is_summary=False)
    assert unasked.all_nodes(None).answers[0].problem is None


def test_only_a_running_agent_is_queried(unasked):
    unasked.take(found(pod(status={"phase": "Pending"})))
    assert unasked.to_ask() == {}
    unasked.take(found(pod()))
    assert unasked.to_ask()["node-1"].pod == "agent-1"
    assert unasked.all_nodes(None).answers[0].problem is None


def test_a_response_from_a_removed_node_has_no_effect(unasked):
    unasked.take(found(pod()))
    unasked.take(found())
    unasked.put("node-1", READ, is_summary=False)
    unasked.fail("node-1", agent_causes.no_answer("kube-system", 5.0))
    assert unasked.all_nodes(None).answers == ()


def test_a_lagging_service_counts_as_a_change_only_once(unasked):
    unasked.take(found(pod()))
    assert unasked.set_behind({"node-1": ("shop/web",), "node-9": ("shop/web",)})
    assert not unasked.set_behind({"node-1": ("shop/web",)})
    assert unasked.all_nodes(None).answers[0].behind == ("shop/web",)
    assert unasked.set_behind({})
