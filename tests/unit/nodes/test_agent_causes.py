"""Tests of the causes for which the agent of a node has no response."""

import pytest

from userspace_proxy.causes.say import kubectl_words
from userspace_proxy_kubectl.nodes import agent_causes

from ..causes import words

ROWS = (
    agent_causes.no_agent("net"),
    agent_causes.agent_excluded("net"),
    agent_causes.agent_not_running("net", "it waits", "agent-x"),
    agent_causes.agent_ended("net", "it waits", "agent-x"),
    agent_causes.no_answer("net", 5.0),
    agent_causes.gone_silent("net", 10.0),
    agent_causes.forward_failed("net", "pod gone"),
    agent_causes.answer_too_large("net", 32),
    agent_causes.answer_unreadable("net", "it isn't HTTP"),
)


@pytest.mark.parametrize("cause", ROWS, ids=repr)
def test_the_kubectl_command_of_each_cause_names_the_agents_namespace(cause):
    assert " -n net" in kubectl_words(cause, "")


def test_the_recorded_page_contains_all_texts_about_agents():
    assert words.changed(agent_causes) == []
