"""Answers of nodes as they arrive, and why others have none."""

import pytest

from userspace_proxy.facts import StatusFacts
from userspace_proxy_kubectl.nodes import agent_causes
from userspace_proxy_kubectl.nodes.agent_calls import Read
from userspace_proxy_kubectl.nodes.agent_pods import by_node, read_agent
from userspace_proxy_kubectl.nodes.discovery import FoundAgents, Where
from userspace_proxy_kubectl.nodes.node_answers import Answers
from userspace_proxy_kubectl.nodes.placement import read_node_state

from .objects import node, pod, written

READ = Read(StatusFacts(version="1"), 10.0, 11.0)


def found(*pods, nodes=None):
    states = [read_node_state(written(one)) for one in nodes or ()]
    by_name = None if nodes is None else {state.name: state for state in states}
    return FoundAgents(by_node(read_agent(written(one)) for one in pods), by_name)


@pytest.fixture
def answers():
    return Answers(Where())


def test_each_node_has_an_answer_or_a_cause(answers):
    waiting = pod("two", "node-2", status={"phase": "Pending"})
    nodes = [node(f"node-{number}") for number in (1, 2, 3)]
    answers.take(found(pod("one", "node-1"), waiting, nodes=nodes))
    answers.put("node-1", READ, is_summary=True)
    one, two, three = answers.all_nodes(None).answers
    assert (one.status.version, one.is_summary) == ("1", True)
    assert (one.asked_at, one.answered_at, one.problem) == (10.0, 11.0, None)
    assert (two.agents, three.agents) == ((), ())
    assert two.problem == agent_causes.agent_not_running("kube-system", "its phase is Pending")
    assert three.problem == agent_causes.no_agent("kube-system")
    assert answers.is_settled()


def test_nodes_are_unknown_where_they_can_not_be_listed(answers):
    answers.take(found(pod()))
    assert not answers.all_nodes(None).has_nodes
    answers.take(found(pod(), nodes=[]))
    assert answers.all_nodes(None).has_nodes


def test_a_failure_keeps_the_last_answer_and_the_next_answer_ends_it(answers):
    answers.take(found(pod()))
    assert not answers.is_settled()
    answers.put("node-1", READ, is_summary=False)
    answers.fail("node-1", agent_causes.no_answer("kube-system", 5.0))
    (one,) = answers.all_nodes(None).answers
    assert (one.status, one.problem) == (READ.status, agent_causes.no_answer("kube-system", 5.0))
    answers.put("node-1", READ, is_summary=False)
    assert answers.all_nodes(None).answers[0].problem is None


def test_an_agent_that_runs_again_is_asked_again(answers):
    answers.take(found(pod(status={"phase": "Pending"})))
    assert answers.to_ask() == {}
    answers.take(found(pod()))
    assert answers.to_ask()["node-1"].pod == "agent-1"
    assert answers.all_nodes(None).answers[0].problem is None


def test_what_a_node_sends_after_it_has_gone_is_nothing(answers):
    answers.take(found(pod()))
    answers.take(found())
    answers.put("node-1", READ, is_summary=False)
    answers.fail("node-1", agent_causes.no_answer("kube-system", 5.0))
    assert answers.all_nodes(None).answers == ()


def test_services_that_are_behind_are_news_once(answers):
    answers.take(found(pod()))
    assert answers.set_behind({"node-1": ("shop/web",), "node-9": ("shop/web",)})
    assert not answers.set_behind({"node-1": ("shop/web",)})
    assert answers.all_nodes(None).answers[0].behind == ("shop/web",)
    assert answers.set_behind({})


def test_why_a_node_is_not_ready_is_known(answers):
    answers.take(found(pod(), nodes=[node("node-1", ready="Unknown")]))
    assert answers.state_of("node-1") == "kubelet has stopped"
    assert answers.state_of("node-9") == ""
