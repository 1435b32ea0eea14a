import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import end_code
from userspace_proxy.facts import AfterWait, CounterTable, EndpointCounters
from userspace_proxy.facts.connection_outcome import (
    AT_END_S,
    LATE,
    ConnectionOutcome,
    EndFacts,
    classify,
)
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import Failure
from userspace_proxy.model.connection_ends import EndedBy

ALICE = "192.0.2.7"
UNANSWERED, RESET, NOT_TO_CLIENT = Failure.UNANSWERED, Failure.RESET, Failure.NOT_TO_CLIENT


def left(silent_s=1.0, left_s=0.0, **others):
    return EndFacts(EndedBy.CLIENT, silent_s=silent_s, left_s=left_s, **others)


def given_up(asked_s=1.0, silent_s=1.0, **others):
    return left(silent_s, asked_s=asked_s, **others)


def ended(**others):
    return EndFacts(EndedBy.ENDPOINT, **others)


def was_reset(**others):
    return ended(is_reset=True, **others)


def exchange(counters, abort_counters=None):
    return ConnectionOutcome(counters, abort_counters or counters, ALICE, now=0.0)


CASES = {
    "given-up": (given_up(left_s=0.5), UNANSWERED, {"client_aborts": 1}),
    "left-sooner": (given_up(0.8, 0.8), None, {}),
    "left-at-once": (given_up(0.2, 0.2, answers_others=True), None, {}),
    "left-sooner-than-others": (
        given_up(0.4, 0.4, answers_others=True),
        UNANSWERED,
        {"client_aborts": 1},
    ),
    "ended-its-side": (given_up(0.4, 0.4, left_s=0.2, answers_others=True), None, {}),
    "sent-again": (given_up(2.0, 1.0, answers_others=True), None, {}),
    "lost": (given_up(lost=Failure.FROM_ENDPOINT), Failure.FROM_ENDPOINT, {"client_aborts": 1}),
    "left-with-an-answer": (given_up(has_answer=True), None, {}),
    "lost-behind-a-byte": (
        left(has_answer=True, lost=NOT_TO_CLIENT),
        NOT_TO_CLIENT,
        {"endpoint_aborts": 1},
    ),
    "closed": (ended(has_asked=True, lasted_s=9.0), Failure.CLOSED, {"empty": 1, "unanswered": 1}),
    "closed-at-once": (ended(lasted_s=0.9), Failure.CLOSED, {"empty": 1, "unanswered": 1}),
    "closed-as-idle": (ended(lasted_s=1.0), None, {}),
    "closed-behind-a-byte": (ended(has_asked=True, has_answer=True), None, {}),
    "reset": (was_reset(asked_s=9.0), RESET, {"resets": 1, "unanswered": 1}),
    "reset-after-its-end": (was_reset(had_end=True), RESET, {"resets": 1, "unanswered": 1}),
    "full": (was_reset(asked_s=2.9, is_full=True), RESET, {"resets": 1, "unanswered": 1}),
    "hung": (was_reset(asked_s=3.0, is_full=True), UNANSWERED, {"client_aborts": 1}),
    "cut": (
        was_reset(has_answer=True, asked_s=3.0, is_full=True),
        RESET,
        {"resets": 1, "endpoint_aborts": 1},
    ),
    "over": (was_reset(has_answer=True, had_end=True), None, {}),
}


@pytest.mark.parametrize(("end", "failure", "counted"), CASES.values(), ids=CASES)
def test_a_connections_end_is_classified_and_counted_once(end, failure, counted):
    assert classify(end) is failure
    counters = EndpointCounters()
    talk = exchange(counters)
    talk.note_end(end, 5.0)
    figures = dict(zip(counters.names, counters.figures(), strict=True))
    assert {name: figure for name, figure in figures.items() if figure} == counted
    has_code = failure and not (end.is_reset and end.has_answer)
    assert talk.code is (end_code(failure) if has_code else None)
    streaks = counters.cuts, counters.ends
    streak, other = streaks if end.has_answer else reversed(streaks)
    noted = (failure, 5.0 - end.left_s) if failure else (Failure.OTHER, -1.0)
    assert (streak.part.failure, streak.part.last_at, other.part.failures) == (*noted, 0)
    assert counters.cuts.part.client == (ALICE if end.lost and end.has_answer else "")


def test_a_client_abort_after_a_wait_is_not_counted_against_the_endpoint():
    counters, after_wait = EndpointCounters(), AfterWait(CounterTable())
    for end, counts in [(ended(), (0, 1)), (given_up(), (1, 1))]:
        exchange(counters, after_wait).note_end(end, 5.0)
        assert (after_wait.client_aborts, counters.unanswered + counters.client_aborts) == counts


@pytest.mark.parametrize(("code", "owed"), [(None, 1), (CauseCode.ENDPOINT_RESETS, 0)])
def test_an_unanswered_request_is_counted_unless_another_failure_was_counted(code, owed):
    counters = EndpointCounters()
    talk = exchange(counters)
    talk.has_unanswered_request, talk.code = True, code
    talk.note_ended(is_stalled=True)
    assert (counters.unanswered_requests, counters.active, counters.stalled) == (owed, -1, -1)


@pytest.mark.parametrize(("code", "owed"), [(None, 1), (CauseCode.ENDPOINT_RESETS, 0)])
def test_an_unanswered_request_of_a_connection_left_open_is_counted_at_most_once(code, owed):
    counters = EndpointCounters()
    talk = exchange(counters)
    talk.code = code
    talk.note_left_open()
    talk.note_left_open()
    assert (counters.left_open, counters.unanswered_requests) == (owed, owed)


@pytest.mark.parametrize(("closed", "has_answers"), [(19, True), (20, False), (20, True)])
def test_the_20th_close_after_a_fin_is_a_failure_if_the_protocol_has_answers(closed, has_answers):
    counters = EndpointCounters()
    for _ in range(closed):
        talk = exchange(counters)
        talk.note_closed_after_client(5.0, lambda: has_answers)
    assert talk.is_failed is (closed == 20 and has_answers)
    assert counters.unanswered == talk.is_failed
    counters.ends.succeeded_at = 6.0
    talk = exchange(counters)
    talk.note_closed_after_client(7.0, lambda: True)
    assert not talk.is_failed


@pytest.mark.parametrize("end", [None, left(0.5, 0.45)])
def test_a_first_byte_in_time_or_barely_late_counts_as_success(end):
    counters = EndpointCounters()
    counters.exclusions.ended(ALICE, 4.0, Failure.CLOSED, -1.0)
    talk = exchange(counters)
    assert talk.note_first_byte(5.0, end) == talk.first_byte_s == 5.0
    assert (counters.ends.succeeded_at, talk.code, counters.client_aborts) == (5.0, None, 0)
    assert counters.exclusions.succeeded_at == 5.0


def test_a_byte_just_after_the_clients_fin_is_marked_as_triggered_by_the_fin():
    for left_s, is_at_end in [(0.0, True), (AT_END_S, False), (1.5, False)]:
        counters = EndpointCounters()
        ends, talk = counters.ends, exchange(counters)
        talk.note_first_byte(2.5, left(left_s + 0.1, left_s))
        part = ends.part
        assert (part.failures, part.failure, part.last_at) == (1, UNANSWERED, 2.5 - left_s)
        assert (part.late, talk.code) == (LateByte(2.5, is_at_end), LATE)
        assert counters.client_aborts == 1
        talk.note_arrived(4.0)
        assert (ends.is_on, talk.code, counters.client_aborts) == (False, None, 0)


def test_a_streak_is_marked_as_triggered_by_fins_only_while_all_its_slow_bytes_are():
    counters = EndpointCounters()
    ends = counters.ends
    for waited_s, left_s, is_at_end in [(2.0, 0.0, True), (2.5, 0.5, False), (3.0, 0.0, False)]:
        talk = exchange(counters)
        talk.note_end(given_up(), waited_s)
        talk.note_first_byte(waited_s, left(left_s, left_s))
        assert (ends.part.last_at, ends.part.late) == (waited_s, LateByte(waited_s, is_at_end))
    assert ends.part.failures == counters.client_aborts == 3, "an abort was counted twice"
    ends.succeeded_at = 4.0
    exchange(counters).note_first_byte(5.0, left(1.0))
    assert ends.part.late == LateByte(5.0, True)
