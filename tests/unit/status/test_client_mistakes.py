import pytest

from userspace_proxy.facts import Level
from userspace_proxy.model import Failure
from userspace_proxy.policy.causes import dial_failed
from userspace_proxy.policy.client_causes import hop_limit_reached, no_proxy_header
from userspace_proxy.status.port_state import judge

from .views import make_address, make_endpoint, make_port, replace

READY = make_endpoint("10.244.1.7:8080", "ready", True)


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        pytest.param(no_proxy_header("203.0.113.11"), "refused", id="header"),
        pytest.param(hop_limit_reached("203.0.113.11"), "dropped", id="hop-limit"),
    ],
)
def test_clients_that_are_turned_away_for_what_they_send_need_attention(cause, word):
    cause = replace(cause, count=20)
    state = judge(make_port(endpoints=(READY,), client_mistakes=(cause,), connections=0))
    assert (state.level, state.word, state.is_problem) == (Level.ATTENTION, word, True)
    assert (state.sentence, state.causes) == (f"No client has been served: {cause}", (cause,))
    some = judge(make_port(endpoints=(READY,), client_mistakes=(cause,), connections=9))
    assert (some.level, some.word) == (Level.ATTENTION, "partly served")
    assert some.sentence == f"Not all clients are served: {cause}"
    refuses = dial_failed(make_address("10.244.1.8:8080"), Failure.REFUSED, "")
    failing = replace(READY, cause=refuses, ejected_for_s=9.0)
    state = judge(make_port(endpoints=(failing,), client_mistakes=(cause,)))
    assert (state.word, state.causes[1:]) == ("not answering", (cause,))
