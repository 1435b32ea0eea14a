"""Tests of functions that depend only on the state of a Service port."""

import pickle

import msgspec
import pytest

from userspace_proxy.facts import PortState
from userspace_proxy.facts.states import FOUND


def test_a_port_state_is_encoded_as_its_text():
    assert msgspec.json.encode(PortState.PARTLY_SERVED) == b'"partly served"'
    assert msgspec.json.decode(b'"partly served"', type=PortState) is PortState.PARTLY_SERVED
    assert f"{PortState.PARTLY_SERVED}" == PortState.PARTLY_SERVED.word == "partly served"


def test_an_unknown_state_of_a_newer_proxy_keeps_its_text():
    state = msgspec.json.decode(b'"served twice"', type=PortState)
    assert (state, state.serves, state.neutral) == ("served twice", False, "")
    assert state not in FOUND


def test_search_words_for_states_contain_dashes_instead_of_blanks():
    assert PortState.OUT_OF_CLIENT_PORTS.search_word == "out-of-client-ports"


def test_not_looked_up_is_the_only_state_never_found_in_a_running_proxy():
    assert {*PortState} - {*FOUND} == {PortState.NOT_LOOKED_UP}


@pytest.mark.parametrize("state", [state for state in PortState if state.neutral])
def test_only_states_without_a_known_failure_have_a_neutral_mark(state):
    assert state in (PortState.UNKNOWN, PortState.HOLDING, PortState.DROPPED)


def test_pickling_preserves_a_port_state():
    for state in (PortState.SERVED, msgspec.json.decode(b'"served twice"', type=PortState)):
        assert pickle.loads(pickle.dumps(state)) == state
