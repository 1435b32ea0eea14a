"""Why the agent of a node has no answer."""

import pytest

from userspace_proxy.causes import agents
from userspace_proxy.causes.say import kubectl_words

from . import words

ROWS = (
    agents.no_agent("net"),
    agents.agent_not_running("net", "container userspace-proxy waits: CrashLoopBackOff"),
    agents.no_answer("net", 5.0),
    agents.gone_silent("net", 10.0),
    agents.forward_failed("net", "pod gone"),
    agents.answer_too_large("net", 32),
    agents.answer_unreadable("net", "it isn't HTTP"),
)


@pytest.mark.parametrize("cause", ROWS, ids=repr)
def test_each_has_a_command_that_shows_more(cause):
    assert " -n net" in kubectl_words(cause, "")


def test_their_words_are_on_the_page():
    assert words.changed(agents) == []
