"""When agents are asked for summaries, and how failures are noted."""

import errno

import msgspec
import pytest

from userspace_proxy.facts import Level
from userspace_proxy.status.http_answer import ANSWER_BYTES, TooLarge, Unreadable
from userspace_proxy_kubectl.nodes import agent_causes
from userspace_proxy_kubectl.nodes.agent_calls import Read
from userspace_proxy_kubectl.nodes.answer_detail import (
    SUMMARY_FROM,
    WHOLE_BYTES,
    Asking,
    every_s,
)
from userspace_proxy_kubectl.nodes.discovery import Where
from userspace_proxy_kubectl.nodes.node_answers import Answers
from userspace_proxy_kubectl.port_forward import ForwardTarget, PortForwardError
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

from .objects import node, pod
from .test_answers import found

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


def test_few_nodes_are_asked_for_whole_answers_and_many_for_summaries():
    assert Asking().mode("node-1", 3).path == "/api/v1/status"
    mode = Asking(["shop/web", "a/b&c"]).mode("node-1", SUMMARY_FROM + 1)
    assert mode.path == "/api/v1/status?view=summary&also=a%2Fb%26c&also=shop%2Fweb"
    assert mode.is_summary


def test_streams_of_many_nodes_have_fewer_lines():
    assert Asking(watches=True).mode("node-1", 3).path == "/api/v1/status?watch&every=1"
    assert Asking(watches=True).mode("node-1", 1000).path.endswith("?view=summary&watch&every=5")
    assert (every_s(SUMMARY_FROM), every_s(SUMMARY_FROM + 1)) == (1, 5)


def test_all_whole_answers_together_have_a_bound():
    one, many = (
        Asking().mode("node-1", 1).bounds.body,
        Asking().mode("node-1", SUMMARY_FROM).bounds.body,
    )
    assert many < one <= ANSWER_BYTES
    assert SUMMARY_FROM * many <= WHOLE_BYTES
    summary = Asking().mode("node-1", 10 * SUMMARY_FROM)
    assert summary.bounds.body == ANSWER_BYTES


def test_a_node_whose_answer_is_too_large_is_asked_for_a_summary(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    assert asking.reduce("node-1", asking.mode("node-1", 3))
    mode = asking.mode("node-1", 3)
    assert mode.is_summary
    assert not asking.reduce("node-1", mode)
    asking.take(answers, "node-1", read, mode)
    assert not asking.mode("node-2", 3).is_summary


def test_once_several_nodes_have_sent_summaries_all_are_asked_for_them(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    for name in ("node-1", "node-2"):
        asking.reduce(name, asking.mode(name, 3))
        assert not asking.mode("node-3", 3).is_summary
        asking.take(answers, name, read, asking.mode(name, 3))
    assert asking.mode("node-3", 3).is_summary
    assert not asking.mode("node-3", 30).is_summary


def test_nodes_that_were_many_for_a_moment_are_asked_for_whole_answers_again(answers):
    asking, read = Asking(), Read(STATUS, 1.0, 2.0)
    for name in ("node-1", "node-2"):
        asking.take(answers, name, read, asking.mode(name, SUMMARY_FROM + 1))
    assert not asking.mode("node-3", 3).is_summary


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        pytest.param(
            PortForwardError("refused", errno.ECONNREFUSED),
            agent_causes.forward_failed("kube-system", "refused"),
            id="port-forward",
        ),
        pytest.param(
            TooLarge(5 << 20), agent_causes.answer_too_large("kube-system", 5), id="too-large"
        ),
        pytest.param(
            Unreadable("it isn't\nHTTP " + "x" * 1000),
            agent_causes.answer_unreadable("kube-system", ("it isn't HTTP " + "x" * 1000)[:300]),
            id="unreadable",
        ),
    ],
)
def test_failures_are_causes_in_short_words(answers, error, cause):
    asking = Asking()
    asking.fail(answers, "node-1", TO, error)
    assert only(answers).problem == cause
    assert asking.refused is None


def test_port_forwards_that_are_not_permitted_are_noted(answers):
    asking = Asking()
    asking.fail(answers, "node-1", TO, refused := PortForwardError("forbidden", errno.EACCES))
    assert asking.refused is refused


def test_a_late_answer_and_a_stream_that_has_stopped_differ(answers):
    asking = Asking()
    asking.fail_late(answers, "node-1", TO, 5.0)
    assert only(answers).problem == agent_causes.no_answer("kube-system", 5.0)
    asking.take(answers, "node-1", Read(STATUS, 1.0, 2.0), asking.mode("node-1", 1))
    asking.fail_late(answers, "node-1", TO, 10.0)
    assert only(answers).problem == agent_causes.gone_silent("kube-system", 10.0)


def test_the_state_of_the_node_is_part_of_the_cause(answers):
    answers.take(found(pod(), nodes=[node("node-1", ready="Unknown")]))
    Asking().fail_late(answers, "node-1", TO, 5.0)
    assert only(answers).problem.get("node_state") == "kubelet has stopped"
