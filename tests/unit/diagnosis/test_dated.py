import pytest

from tests.unit.causes.samples import a_note
from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say
from userspace_proxy.causes.services import external_ip_off
from userspace_proxy.diagnosis.clauses import none_answers
from userspace_proxy.diagnosis.dated import (
    and_mistakes,
    cause_at,
    last_answer,
    sentence_at,
    times_of,
)

from ..status.views import NOW, make_port, replace
from .samples import POD, READY, failing

QUIET = {"is_quiet": True, "sent_at": NOW - 28 * 60}
REFUSES = refuses(POD).replace(count=9, last_at=NOW - 3)
A, B, C = map(a_note, ("a is unknown", "b is unknown", "c is unknown"))


def test_the_age_of_the_last_answer_follows_its_clause():
    port = make_port(notes=(A,), **QUIET)
    assert sentence_at(port, NOW).endswith(f" (last answer 28 min ago); {say(A)}")


def test_the_age_of_a_recent_answer_is_omitted():
    port = make_port(sent_at=NOW - 2)
    assert sentence_at(port, NOW) == "Served by 2 endpoints"
    assert last_answer(port, NOW) == ""


def test_the_age_of_an_answer_is_not_negative_if_the_clock_was_set_back():
    assert last_answer(make_port(is_quiet=True, sent_at=NOW + 5), NOW) == "last answer 0 ms ago"


def test_a_stated_cause_can_show_its_count_and_last_time():
    port = make_port(endpoints=(READY, failing(REFUSES)))
    stated, other = port.state.sentence.split("; ")
    assert sentence_at(port, NOW) == port.state.sentence
    timed = f"{stated} (9 times, last 3 s ago); {other}"
    assert sentence_at(port, NOW, port.state.causes) == timed


@pytest.mark.parametrize(
    ("cause", "times"),
    [
        pytest.param(REFUSES, " (9 times, last 3 s ago)", id="often"),
        pytest.param(REFUSES.replace(count=1, last_at=0.0), " (once)", id="once"),
        pytest.param(A, "", id="a-state"),
    ],
)
def test_the_count_and_last_time_of_a_cause_follow_its_text(cause, times):
    assert times_of(cause, NOW) == times
    assert cause_at(cause, NOW) == f"{say(cause)}{times}"
    past = cause.replace(when=When.PAST)
    assert cause_at(past, NOW, Form.SHORT) == f"{say(past, Form.SHORT)}{times}"


def test_mistakes_follow_a_sentence_that_states_another_cause():
    port = make_port(endpoints=(READY, failing(REFUSES)), notes=(A, replace(A, count=2), B))
    assert and_mistakes(port) == "; also: a is unknown; 1 further note"
    # The sentence already states the first note.
    assert and_mistakes(make_port(notes=(A, B))) == "; 1 further note"
    # Addresses that are deliberately not served are part of the state, not a mistake.
    off = external_ip_off("203.0.113.7", "external IPs are off")
    assert and_mistakes(make_port(notes=(off,))) == ""


def test_a_sentence_keeps_its_state_and_omits_causes_shown_above():
    port = make_port(endpoints=(failing(REFUSES), READY))
    assert sentence_at(port, NOW, above={REFUSES.fact}) == "Partly answering; the other one serves"
    assert sentence_at(port, NOW, above={"another"}) == sentence_at(port, NOW)
    both = make_port(endpoints=(failing(REFUSES), failing(refuses("192.0.2.2:80"))))
    above = {cause.fact for cause in both.state.causes}
    assert (
        sentence_at(both, NOW, above=above)
        == f"Clients fail: {none_answers(2, is_past=False).text}"
    )
