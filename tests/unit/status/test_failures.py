import pytest

from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.facts import LATELY_S, EndpointCounters, Level, Waits
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import CauseCode, DataPath, Handling, Hold, Protocol, SocketAddress
from userspace_proxy.model.failures import Failure
from userspace_proxy.model.node_network import NextHop
from userspace_proxy.policy.causes import dial_failed, resets
from userspace_proxy.policy.endpoint_causes import (
    DroppedBy,
    answers_late,
    cuts_off,
    denies,
    excludes,
    in_the_past,
    no_datagram,
    sends_nothing,
)
from userspace_proxy.status.failures import (
    DENIALS,
    DENIALS_S,
    DENIED_PAST_S,
    MANY_ENDS,
    becomes_past,
    failure_of,
    has_excluded,
    is_quiet,
)
from userspace_proxy.status.path_words import PathView
from userspace_proxy.status.port_state import judge

from .views import make_endpoint, make_port, replace

CLOSED, RESET, UNANSWERED = Failure.CLOSED, Failure.RESET, Failure.UNANSWERED
NO_DATAGRAM = Failure.NO_DATAGRAM
POD = SocketAddress("192.0.2.1", 8080)
REFUSES = dial_failed(POD, Failure.REFUSED, "")


def at(now):
    """Return the clock at a moment; Unix time is 1000 s ahead of it."""
    return WallClock(lambda: now, lambda: 1000.0 + now)


@pytest.fixture
def counters():
    return EndpointCounters()


def fail(counters, failure=Failure.REFUSED, now=5.0):
    counters.dials.failed(now, failure)


def test_a_dial_that_failed_a_moment_ago_fails_now(counters):
    fail(counters)
    cause, is_past = failure_of(POD, counters, at(5.0 + LATELY_S - 1))
    assert not is_past
    assert cause == replace(REFUSES, count=1, first_at=1005.0, last_at=1005.0)


def test_a_dial_that_failed_a_while_ago_did_so_then(counters):
    fail(counters)
    now, _ = failure_of(POD, counters, at(5.0))
    assert failure_of(POD, counters, at(5.0 + LATELY_S)) == (in_the_past(now), True)
    # A probe.
    counters.dials.still_fails(5.0 + LATELY_S, Failure.REFUSED)
    assert failure_of(POD, counters, at(5.0 + LATELY_S))[1] is False


def test_a_dial_that_failed_a_while_ago_is_followed_by_flows_without_an_answer(counters):
    counters.connections = 9
    fail(counters, Failure.NET_UNREACHABLE)
    failed, _ = failure_of(POD, counters, at(5.0))
    for now in range(40, 40 + MANY_ENDS):
        assert failure_of(POD, counters, at(5.0 + LATELY_S))[0] == in_the_past(failed)
        counters.ends.failed(float(now), Failure.NO_DATAGRAM)
    assert failure_of(POD, counters, at(50.0)) == (failed, False), "it may be so still"
    cause, is_past = failure_of(POD, counters, at(5.0 + LATELY_S))
    assert (cause.code, cause.count, is_past) == (CauseCode.ENDPOINT_SENDS_NOTHING, 3, False)
    endpoint = make_endpoint(str(POD), cause=cause, connections=9)
    silent = "o datagram has come back in the last 3 flows; before, 192.0.2.1:8080 was unreachable"
    for sent_bytes, begins in ((0, "N"), (1, "Clients get no answer: n")):
        port = make_port(protocol=Protocol.UDP, endpoints=(endpoint,), sent_bytes=sent_bytes)
        assert judge(port).sentence == f"{begins}{silent}"
    counters.dials.succeeded_at = 70.0
    assert "before" not in failure_of(POD, counters, at(71.0))[0].sentence


def test_an_endpoint_that_accepted_a_connection_before_has_ended(counters):
    fail(counters)
    assert "Compare targetPort" in failure_of(POD, counters, at(5.0))[0].hint
    # It ended the connection without a byte.
    counters.dials.succeeded_at = 4.0
    assert "kubectl logs --previous" in failure_of(POD, counters, at(5.0))[0].hint


def test_a_silent_endpoint_is_not_there_or_its_packets_are_dropped_where_that_is_known(counters):
    fail(counters, Failure.SILENT)
    assert failure_of(POD, counters, at(5.0))[0].code is CauseCode.ENDPOINT_SILENT
    cause, _ = failure_of(POD, counters, at(5.0), NextHop("eth0"))
    assert (cause.count, cause.sentence) == (1, "no host answers for 192.0.2.1 on eth0")
    assert "c drops it" in failure_of(POD, counters, at(5.0), DroppedBy("c drops it"))[0].sentence


@pytest.mark.parametrize(
    ("failure", "word"),
    [(CLOSED, resets), (UNANSWERED, sends_nothing), (NO_DATAGRAM, no_datagram)],
)
def test_connections_without_a_byte_are_a_cause_if_there_are_many_or_no_others(
    counters, failure, word
):
    counters.connections = 100
    for now in range(1, MANY_ENDS):
        counters.ends.failed(float(now), failure)
    assert failure_of(POD, counters, at(5.0)) == (None, False)
    counters.connections = MANY_ENDS - 1
    cause, _ = failure_of(POD, counters, at(5.0))
    assert cause == replace(word(POD), count=MANY_ENDS - 1, first_at=1001.0, last_at=1002.0)
    counters.connections = 100
    counters.ends.failed(3.0, failure)
    assert failure_of(POD, counters, at(5.0))[0].count == MANY_ENDS


def test_clients_that_leave_at_once_show_nothing_of_an_endpoint_that_has_answered(counters):
    counters.connections = 3
    for left_at in (1.0, 1.2, 1.9):
        counters.ends.failed(left_at, UNANSWERED)
    assert failure_of(POD, counters, at(5.0))[0] is not None, "it has never answered"
    counters.ends.succeeded_at = 0.5
    assert failure_of(POD, counters, at(5.0)) == (None, False)
    # It has been waited for since.
    counters.ends.failed(3.0, UNANSWERED)
    assert failure_of(POD, counters, at(5.0))[0].count == 4
    # The endpoint has ended them.
    counters.ends.succeeded_at = 4.0
    for ended_at in (4.1, 4.2, 4.3):
        counters.ends.failed(ended_at)
    assert failure_of(POD, counters, at(5.0))[0].code is CauseCode.ENDPOINT_RESETS


@pytest.mark.parametrize(
    ("failure", "needed"),
    [(RESET, 20), (CLOSED, 20), (UNANSWERED, MANY_ENDS), (NO_DATAGRAM, MANY_ENDS)],
)
def test_of_an_endpoint_that_answered_in_between_three_ends_in_a_row_are_chance(
    counters, failure, needed
):
    counters.connections = 100
    counters.ended_unanswered(1.0, failure)
    counters.ends.succeeded_at = 2.0
    for _ in range(needed - 1):
        counters.ended_unanswered(3.0, failure)
    assert failure_of(POD, counters, at(4.0)) == (None, False)
    counters.ended_unanswered(4.0, failure)
    assert failure_of(POD, counters, at(4.0))[0].count == needed


def test_of_an_endpoint_that_answered_without_an_end_three_in_a_row_are_no_chance(counters):
    counters.connections = 100
    for now in (1.0, 60.0, 61.0, 62.0):
        counters.ended_unanswered(now, Failure.RESET)
        counters.ends.succeeded_at = max(counters.ends.succeeded_at, 2.0)
    assert failure_of(POD, counters, at(60.9)) == (None, False)
    assert failure_of(POD, counters, at(1.0 + LATELY_S))[0].count == MANY_ENDS


def test_a_first_byte_after_the_clients_have_left_is_a_cause_with_its_time(counters):
    counters.connections = 3
    counters.ends.failed(1.0, UNANSWERED)
    counters.ends.still_fails(2.0, UNANSWERED, late=LateByte(2.5, is_at_end=False))
    # It hasn't been answered yet.
    counters.ends.failed(3.0, UNANSWERED)
    counters.ends.failed(4.0, UNANSWERED)
    late = replace(answers_late(POD, 2.5), count=3, first_at=1001.0, last_at=1004.0)
    assert failure_of(POD, counters, at(5.0)) == (late, False)
    counters.ends.late = LateByte(2.5, is_at_end=True)
    assert "right after its clients have left" in failure_of(POD, counters, at(5.0))[0].sentence
    counters.ends.failed(5.0)
    assert failure_of(POD, counters, at(5.0))[0].code is CauseCode.ENDPOINT_RESETS


def deny(counters, *moments, client="10.244.0.123", failure=Failure.SILENT):
    for now in moments:
        counters.denials.failed(now, failure, client)


def test_an_endpoint_that_answers_this_node_only_denies_the_client(counters):
    counters.connections = 9
    counters.dials.failed(4.0, Failure.SILENT)
    counters.dials.succeeded_at = 5.0
    deny(counters, 5.0, 6.0, 9.0)
    last = 5.0 + DENIALS_S
    assert failure_of(POD, counters, at(9.0)) == (None, False)
    deny(counters, last)
    denied = replace(denies(POD, "10.244.0.123"), count=4, first_at=1005.0, last_at=1000.0 + last)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S - 0.1)) == (denied, False)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S)) == (in_the_past(denied), True)
    # Another client.
    counters.dials.succeeded_at = last + 1.0
    assert failure_of(POD, counters, at(last + 1.0)) == (denied, False)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S)) == (None, False)
    counters.denials.succeeded_at = last + 2.0
    assert failure_of(POD, counters, at(last + 2.0)) == (None, False)


def test_two_dials_in_a_row_may_have_failed_by_chance_for_one_client(counters):
    counters.connections = 9
    deny(counters, 5.0, 5.0 + LATELY_S)
    assert failure_of(POD, counters, at(5.0 + LATELY_S)) == (None, False)
    deny(counters, 6.0 + LATELY_S)
    assert failure_of(POD, counters, at(6.0 + LATELY_S))[0].count == DENIALS


def test_an_endpoint_that_answers_a_client_at_times_does_not_deny_it(counters):
    counters.connections = 9
    deny(counters, 5.0)
    counters.denials.succeeded_at = 6.0
    deny(counters, 7.0, *range(8, 66))
    assert failure_of(POD, counters, at(65.9)) == (None, False)
    # Since then, no dial of it has been answered.
    deny(counters, 6.0 + LATELY_S)
    cause, is_past = failure_of(POD, counters, at(6.0 + LATELY_S))
    assert (cause.code, cause.count, is_past) == (CauseCode.ENDPOINT_DENIES, 60, False)


@pytest.mark.parametrize("failure", [Failure.SILENT, Failure.REFUSED])
def test_an_endpoint_that_has_answered_no_client_is_no_success_before_it_denies_one(
    counters, failure
):
    counters.dials.failed(5.0, failure)
    counters.dials.succeeded_at = 5.1
    deny(counters, 5.1, 6.1, failure=failure)
    failed = replace(dial_failed(POD, failure, ""), count=2, first_at=1005.1, last_at=1006.1)
    assert failure_of(POD, counters, at(6.2)) == (in_the_past(failed), True)
    deny(counters, 11.0)
    assert failure_of(POD, counters, at(11.0))[0].code is CauseCode.ENDPOINT_DENIES


def exclude(counters, *moments, client="10.244.3.7", failure=Failure.RESET):
    """Note connections that an endpoint ended, each after one of another client was answered."""
    for now in moments:
        counters.ends.succeeded_at = now - 0.5
        counters.ended_unanswered(now, failure, client)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
def test_of_ends_in_a_row_the_client_is_named_whose_connections_alone_were_ended(counters, failure):
    counters.connections = 90
    exclude(counters, 1.0, 2.0, 3.0, failure=failure)
    assert failure_of(POD, counters, at(4.0)) == (None, False), "it answers in between"
    for _ in range(19):
        counters.ended_unanswered(3.0, failure, "10.244.3.7")
    cause, _ = failure_of(POD, counters, at(4.0))
    assert cause == replace(excludes(POD, "10.244.3.7"), count=20, first_at=1003.0, last_at=1003.0)
    state = judge(make_port(endpoints=(make_endpoint(str(POD), cause=cause, connections=90),)))
    assert (state.level, state.word) == (Level.ATTENTION, "partly answering")
    assert state.sentence == f"Some clients get no answer: {cause}"
    # The last one is of a client that failed for the first time.
    counters.ended_unanswered(3.5, failure, "10.244.3.9")
    assert failure_of(POD, counters, at(4.0))[0].code is CauseCode.ENDPOINT_RESETS


def test_a_client_that_was_answered_a_moment_ago_is_not_excluded(counters):
    exclude(counters, 1.0)
    counters.exclusions.answered("10.244.3.7", 2.0)
    exclude(counters, 3.0, 4.0, 5.0, 61.9)
    assert counters.exclusions.failures == 3
    assert not has_excluded(counters.exclusions)
    exclude(counters, 62.0)
    assert has_excluded(counters.exclusions)


def test_a_client_whose_dials_are_accepted_and_reset_is_denied_by_a_rule_of_the_program(counters):
    counters.connections = 9
    deny(counters, 5.0, 8.0, 11.0, failure=Failure.RESET)
    assert "answers this node" in failure_of(POD, counters, at(11.0))[0].sentence
    counters.ends.succeeded_at = 9.0
    cause, _ = failure_of(POD, counters, at(11.0))
    assert cause.sentence == excludes(POD, "10.244.0.123").sentence


def test_connections_that_are_reset_after_an_answer_are_a_cause_until_one_ends_well(counters):
    counters.connections, counters.ends.succeeded_at = 100, 4.0
    for now in (1.0, 2.0):
        counters.cuts.failed(now, Failure.RESET)
    assert failure_of(POD, counters, at(5.0)) == (None, False)
    counters.cuts.failed(3.0, Failure.RESET)
    cut = replace(cuts_off(POD), count=3, first_at=1001.0, last_at=1003.0)
    assert failure_of(POD, counters, at(5.0)) == (cut, False)
    endpoint = make_endpoint(str(POD), "ready", True, cause=cut, connections=100)
    state = judge(make_port(endpoints=(endpoint,)))
    assert (state.level, state.code) == (Level.ATTENTION, CauseCode.ENDPOINT_CUTS_OFF)
    assert state.sentence == (
        "The last 3 connections were reset by the endpoint while or after it answered"
    )
    counters.cuts.succeeded_at = 4.0
    assert failure_of(POD, counters, at(5.0)) == (None, False)


def failing(cause):
    return make_endpoint(str(POD), "ready", True, cause=cause)


@pytest.mark.parametrize(
    ("others", "connections", "sentence"),
    [
        pytest.param((), 0, "Clients get no answer: {}", id="all"),
        pytest.param((), 3, "Some clients get no answer: {}", id="some"),
        pytest.param(
            (failing(REFUSES),),
            3,
            "Some clients get no answer: {}; 192.0.2.1:8080 refuses connections",
            id="others-refuse",
        ),
        pytest.param(
            (make_endpoint("192.0.2.2:80", answered_at=1.0),),
            3,
            "{}; the other one serves",
            id="one",
        ),
    ],
)
def test_a_port_whose_endpoint_denies_clients_needs_attention(others, connections, sentence):
    denied = failing(replace(denies(POD, "10.244.0.123"), count=5))
    state = judge(make_port(endpoints=(*others, denied), connections=connections))
    assert (state.level, state.word) == (Level.ATTENTION, "partly answering")
    assert state.sentence == sentence.format(denied.cause)
    assert denied.level is Level.ATTENTION
    assert denied.serves


@pytest.mark.parametrize(
    ("reasons", "clause"),
    [
        ((), ""),
        (("drained (weight 0)",), "; the other one isn't used: drained (weight 0)"),
        (("meant for zone b",) * 3, "; the other 3 aren't used: meant for zone b"),
        (
            ("not ready", "terminating", "not ready"),
            "; the other 3 aren't used: 2 not ready, 1 terminating",
        ),
        (
            ("not ready", "not on this node", "refused: x", "refused: y"),
            "; the other 4 aren't used: 1 not ready, 1 not on this node, 1 refused: x, …",
        ),
    ],
    ids=len,
)
def test_where_no_endpoint_serves_the_reasons_of_those_that_are_not_used_are_named(reasons, clause):
    unused = [make_endpoint(f"192.0.2.{i}:80", why, False) for i, why in enumerate(reasons, 2)]
    state = judge(make_port(endpoints=(failing(REFUSES), *unused)))
    assert (state.level, state.code) == (Level.TROUBLE, CauseCode.ENDPOINT_REFUSES)
    assert state.sentence == f"Clients fail: {REFUSES}{clause}"


def test_a_client_that_was_denied_a_while_ago_is_a_note_where_another_endpoint_served_it():
    cause = in_the_past(replace(denies(POD, "10.244.0.123"), count=44))
    denied = make_endpoint(str(POD), "ready", True, cause=cause, is_past=True)
    state = judge(make_port(endpoints=(make_endpoint("192.0.2.2:80"), denied), connections=90))
    assert (state.level, state.word, state.causes) == (Level.OK, "served", (cause,))
    assert state.sentence == f"Served by 2 endpoints; {cause}"
    assert denied.level is Level.ATTENTION
    alone = judge(make_port(endpoints=(denied,)))
    assert (alone.level, alone.word) == (Level.ATTENTION, "failed before")
    refused = make_endpoint("192.0.2.3:80", cause=in_the_past(REFUSES))
    others = (make_endpoint("192.0.2.2:80"), denied, replace(refused, is_past=True))
    assert judge(make_port(endpoints=others)).level is Level.ATTENTION


def test_time_alone_makes_a_view_untrue_once():
    cause = replace(REFUSES, count=1, last_at=1005.0)
    failing = make_endpoint(str(POD), cause=cause)
    view = make_port(endpoints=(failing,))
    view.state = judge(view)
    assert not becomes_past(view, at(5.0 + LATELY_S - 1))
    assert becomes_past(view, at(5.0 + LATELY_S))
    denied = replace(denies(POD, "10.244.0.123"), count=1, last_at=1005.0)
    view.endpoints = (make_endpoint(str(POD), cause=denied),)
    assert not becomes_past(view, at(4.9 + DENIED_PAST_S))
    assert becomes_past(view, at(5.0 + DENIED_PAST_S))
    view = make_port(endpoints=(replace(failing, is_past=True),))
    view.state = judge(view)
    assert not becomes_past(view, at(5.0 + LATELY_S))


def test_a_minute_without_an_answer_makes_a_view_untrue_once():
    view = make_port(sent_at=1005.0)
    assert not becomes_past(view, at(5.0 + LATELY_S - 1))
    assert becomes_past(view, at(5.0 + LATELY_S))
    others = replace(view, is_quiet=True), replace(view, sent_at=0.0)
    assert not any(becomes_past(one, at(5.0 + LATELY_S)) for one in others)


def test_how_long_clients_of_the_kernel_path_have_had_no_answer_is_not_known():
    assert is_quiet(make_port(sent_at=1005.0), at(5.0 + LATELY_S))
    assert not is_quiet(replace(make_port(sent_at=9.0), path=PathView(DataPath.KERNEL)), at(99.0))


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ([0.0], "the other one has not been tried"),
        ([0.0, 0.0], "the other 2 have not been tried"),
        ([0.0, 1.0], "the other 2 serve"),
    ],
)
def test_other_endpoints_serve_only_if_one_has_answered(others, sentence):
    refusing = failing(REFUSES)
    endpoints = [make_endpoint(f"192.0.2.{n}:80", answered_at=at) for n, at in enumerate(others, 2)]
    state = judge(make_port(endpoints=(*endpoints, refusing)))
    assert state.sentence == f"{refusing.cause}; {sentence}"


def test_other_endpoints_that_answered_a_while_ago_did_so_before():
    refused = in_the_past(REFUSES)
    endpoints = (
        make_endpoint("192.0.2.2:80", answered_at=1.0),
        replace(failing(refused), is_past=True),
    )
    state = judge(make_port(endpoints=endpoints, is_quiet=True))
    assert state.sentence == f"{refused}; the other one answered before"


def test_of_endpoints_that_all_fail_the_one_that_failed_most_often_is_named_first():
    seldom = failing(replace(REFUSES, count=5))
    often = failing(replace(sends_nothing(POD), count=89))
    state = judge(make_port(endpoints=(seldom, often)))
    assert (state.level, state.word) == (Level.TROUBLE, "not answering")
    assert state.sentence.endswith(
        f"none of its 2 endpoints answers; {often.cause}; 192.0.2.1:8080 refuses connections"
    )
    others = (failing(word(POD)) for word in (cuts_off, resets))
    state = judge(make_port(endpoints=(seldom, often, seldom, *others)))
    assert state.sentence.endswith(
        f"{often.cause}; 192.0.2.1:8080 refuses connections; 2 further causes"
    )


@pytest.mark.parametrize(
    ("most", "said"),
    [(1, "endpoints have 1 connection each"), (None, "answers after its clients have left")],
)
def test_a_limit_that_clients_wait_for_is_why_answers_are_late(most, said):
    late = failing(replace(answers_late(POD, 4.0), count=43))
    waits = Waits(waiting=5, longest_s=4.0)
    handling = Handling(hold=Hold(60), max_connections=most)
    state = judge(make_port(endpoints=(late,), handling=handling, waits=waits))
    assert state.sentence.startswith("Holding 5 connections, the longest for 4 s: ")
    assert said in state.sentence
