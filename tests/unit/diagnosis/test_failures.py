import pytest

from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import (
    answers_at_end,
    answers_flows_late,
    answers_late,
    cuts_off,
    denies,
    dial_failed,
    dropped_here,
    excludes,
    fault_on_purpose,
    loses,
    no_datagram,
    no_host,
    refuses,
    resets,
    sends_nothing,
    silent,
    unreachable,
)
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis import rules
from userspace_proxy.diagnosis.clauses import stated
from userspace_proxy.diagnosis.failures import (
    DENIALS,
    DENIALS_S,
    DENIED_PAST_S,
    MANY_ENDS,
    becomes_past,
    cause_of_endpoint,
    failure_of,
    has_excluded,
    is_quiet,
    without_silence,
)
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import LAST_MINUTE_S, EndpointCounters, Level
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import DataPath, Protocol
from userspace_proxy.model.failures import Failure
from userspace_proxy.model.node_network import DroppedBy, NextHop
from userspace_proxy.policy import EndpointVerdict

from ..status.views import make_endpoint, make_port, replace
from .samples import POD, UDP, at, failing, told_of

CLOSED, RESET, UNANSWERED = Failure.CLOSED, Failure.RESET, Failure.UNANSWERED
NO_DATAGRAM = Failure.NO_DATAGRAM
NOTHING = (None, False)


@pytest.fixture
def counters():
    return EndpointCounters()


def fail(counters, failure=Failure.REFUSED, now=5.0):
    counters.dials.failed(now, failure)


def past(cause):
    return cause.replace(when=When.PAST)


def seen(cause, count, first, last):
    """Return a cause with a count and the times of its first and last occurrence."""
    return cause.replace(count=count, first_at=1000.0 + first, last_at=1000.0 + last)


def test_a_recently_failed_dial_is_in_the_present_tense(counters):
    fail(counters)
    failed = failure_of(POD, counters, at(5.0 + LAST_MINUTE_S - 1))
    assert failed == (seen(refuses(POD), 1, 5.0, 5.0), False)


def test_dials_that_fail_again_within_a_minute_are_reported_as_intermittent(counters):
    """An endpoint behind a firewall that limits connections was reported as not answering."""
    fail(counters)
    counters.dials.succeeded_at = 6.0
    fail(counters, now=7.0)
    cause = seen(refuses(POD, was_open=True), 1, 7.0, 7.0)
    at_times = cause.replace(when=When.LAST_MINUTE, answers_others=True)
    assert failure_of(POD, counters, at(8.0)) == (at_times, False)
    assert failure_of(POD, counters, at(5.0 + LAST_MINUTE_S)) == (cause, False)


def test_a_failure_starts_when_the_endpoint_starts_or_stops_refusing(counters):
    """The incident of a lost gateway had the age of earlier refusals."""
    fail(counters)
    for now in (8.0, 9.0):
        counters.dials.failed(now, Failure.SILENT)
    cause, _ = failure_of(POD, counters, at(10.0))
    assert cause == seen(silent(POD), 3, 8.0, 9.0)


@pytest.mark.parametrize(
    ("name", "pod", "host", "header", "state"),
    [
        ("db.test", "", "db.test", False, "ready"),
        ("", "web-1", "", True, "ready"),
        ("", "", POD.ip, False, "ready"),
        ("", "web-1", "", False, "terminating"),
    ],
)
def test_a_cause_includes_the_inputs_of_its_remedy(counters, name, pod, host, header, state):
    verdict = EndpointVerdict(POD, True, state, host=name, pod=pod)
    assert cause_of_endpoint(verdict, counters, at(5.0), has_header=header) == NOTHING
    fail(counters)
    cause, _ = cause_of_endpoint(verdict, counters, at(6.0), has_header=header)
    assert cause == seen(refuses(POD), 1, 5.0, 5.0).replace(
        host=host, has_header=header, is_terminating=state == "terminating"
    )


def test_an_injected_fault_is_the_cause_instead_of_a_failure(counters):
    fail(counters)
    verdict = EndpointVerdict(POD, True, "ready")
    shown = cause_of_endpoint(verdict, counters, at(6.0), faults=["refuse"])
    assert shown == (fault_on_purpose(POD, ("refuse",)), False)


def test_a_dial_failure_older_than_a_minute_is_in_the_past_tense(counters):
    fail(counters)
    now, _ = failure_of(POD, counters, at(5.0))
    assert failure_of(POD, counters, at(5.0 + LAST_MINUTE_S)) == (past(now), True)
    # A failed probe confirms the failure, which stays in the present tense.
    counters.dials.still_fails(5.0 + LAST_MINUTE_S, Failure.REFUSED)
    assert failure_of(POD, counters, at(5.0 + LAST_MINUTE_S))[1] is False


def test_unanswered_flows_replace_an_older_dial_failure_as_the_cause(counters):
    counters.connections = 9
    fail(counters, Failure.NET_UNREACHABLE)
    failed, _ = failure_of(POD, counters, at(5.0))
    assert failed == seen(unreachable(POD), 1, 5.0, 5.0)
    for now in range(40, 40 + MANY_ENDS):
        assert failure_of(POD, counters, at(5.0 + LAST_MINUTE_S))[0] == past(failed)
        counters.ends.failed(float(now), Failure.NO_DATAGRAM)
    assert failure_of(POD, counters, at(50.0)) == (failed, False), "it was replaced early"
    silent_since = seen(no_datagram(POD), 3, 40.0, 42.0)
    cause, is_past = failure_of(POD, counters, at(5.0 + LAST_MINUTE_S))
    assert (cause, is_past) == (silent_since.replace(before=failed), False)
    told = [said.no_datagram_in(3, 9), said.failed_otherwise_before(failed)]
    for sent_bytes, lead in ((0, []), (1, [said.get_no_answer()])):
        endpoints = (failing(cause, connections=9),)
        port = make_port(endpoints=endpoints, sent_bytes=sent_bytes, **UDP)
        assert told_of(port)[1] == [*lead, *told]
    counters.dials.succeeded_at = 70.0
    assert failure_of(POD, counters, at(71.0))[0] == silent_since


@pytest.mark.parametrize("obstacle", [None, NextHop("eth0"), DroppedBy("c drops its answers")])
def test_a_rule_dropping_datagrams_is_the_cause_of_unanswered_flows(counters, obstacle):
    counters.connections = MANY_ENDS
    for now in range(MANY_ENDS):
        counters.ends.failed(float(now), Failure.NO_DATAGRAM)
    cause, _ = failure_of(POD, counters, at(5.0), obstacle)
    is_rule = isinstance(obstacle, DroppedBy)
    expected = dropped_here(POD, "c drops its answers") if is_rule else no_datagram(POD)
    assert cause == seen(expected, MANY_ENDS, 0.0, MANY_ENDS - 1.0)


def test_a_refusal_shows_whether_the_endpoint_accepted_connections_before(counters):
    fail(counters)
    assert failure_of(POD, counters, at(5.0))[0].get("was_open") is False
    # The dial succeeded, and the endpoint then closed the connection without sending a byte.
    counters.dials.succeeded_at = 4.0
    ended = seen(refuses(POD, was_open=True), 1, 5.0, 5.0)
    assert failure_of(POD, counters, at(5.0))[0] == ended


@pytest.mark.parametrize(
    ("obstacle", "cause"),
    [
        pytest.param(None, silent(POD), id="unknown"),
        pytest.param(NextHop("eth0"), no_host(POD, "eth0"), id="no-host"),
        pytest.param(DroppedBy("c drops it"), dropped_here(POD, "c drops it"), id="dropped"),
    ],
)
def test_a_silent_endpoint_has_a_known_obstacle_as_its_cause(counters, obstacle, cause):
    counters.stalled = 1
    rule = cause if isinstance(obstacle, DroppedBy) else None
    assert failure_of(POD, counters, at(5.0), obstacle)[0] == rule
    fail(counters, Failure.SILENT)
    assert failure_of(POD, counters, at(5.0), obstacle)[0] == seen(cause, 1, 5.0, 5.0)


@pytest.mark.parametrize(
    ("failure", "row"),
    [(CLOSED, resets), (UNANSWERED, sends_nothing), (NO_DATAGRAM, no_datagram)],
)
def test_connections_without_a_byte_are_reported_if_they_are_many_or_all(counters, failure, row):
    counters.connections = 100
    for now in range(1, MANY_ENDS):
        counters.ends.failed(float(now), failure)
    assert failure_of(POD, counters, at(5.0)) == NOTHING
    counters.connections = MANY_ENDS - 1
    cause, _ = failure_of(POD, counters, at(5.0))
    assert cause == seen(row(POD), MANY_ENDS - 1, 1.0, 2.0)
    counters.connections = 100
    counters.ends.failed(3.0, failure)
    assert failure_of(POD, counters, at(5.0))[0].count == MANY_ENDS


def test_an_endpoint_that_has_answered_is_not_blamed_for_clients_leaving_soon(counters):
    counters.connections = 3
    for left_at in (1.0, 1.2, 1.9):
        counters.ends.failed(left_at, UNANSWERED)
    assert failure_of(POD, counters, at(5.0))[0] is not None, "without an answer"
    counters.ends.succeeded_at = 0.5
    assert failure_of(POD, counters, at(5.0)) == NOTHING
    # One client has waited without an answer since the endpoint's last success.
    counters.ends.failed(3.0, UNANSWERED)
    assert failure_of(POD, counters, at(5.0))[0].count == 4
    # The endpoint, not the client, ended these connections.
    counters.ends.succeeded_at = 4.0
    for ended_at in (4.1, 4.2, 4.3):
        counters.ends.failed(ended_at)
    assert failure_of(POD, counters, at(5.0))[0].row is resets


@pytest.mark.parametrize(
    ("failure", "needed"),
    [(RESET, 20), (CLOSED, 20), (UNANSWERED, MANY_ENDS), (NO_DATAGRAM, MANY_ENDS)],
)
def test_few_consecutive_failures_after_a_success_are_not_reported(counters, failure, needed):
    counters.connections = 100
    counters.ended_unanswered(1.0, failure)
    counters.ends.succeeded_at = 2.0
    for _ in range(needed - 1):
        counters.ended_unanswered(3.0, failure)
    assert failure_of(POD, counters, at(4.0)) == NOTHING
    counters.ended_unanswered(4.0, failure)
    cause, _ = failure_of(POD, counters, at(4.0))
    assert (cause.count, cause.answers_others) == (needed, True)


def test_three_consecutive_closes_by_a_reliable_endpoint_are_reported(counters):
    counters.connections = 100
    for now in (1.0, 60.0, 61.0, 62.0):
        counters.ended_unanswered(now, Failure.RESET)
        counters.ends.succeeded_at = max(counters.ends.succeeded_at, 2.0)
    assert failure_of(POD, counters, at(60.9)) == NOTHING
    assert failure_of(POD, counters, at(1.0 + LAST_MINUTE_S))[0].count == MANY_ENDS


def test_a_first_byte_after_clients_have_left_is_reported_with_its_delay(counters):
    counters.connections = 3
    counters.ends.failed(1.0, UNANSWERED)
    counters.ends.still_fails(2.0, UNANSWERED, late=LateByte(2.5, is_at_end=False))
    # These clients are still unanswered.
    counters.ends.failed(3.0, UNANSWERED)
    counters.ends.failed(4.0, UNANSWERED)
    assert failure_of(POD, counters, at(5.0)) == (seen(answers_late(POD, 2.5), 3, 1.0, 4.0), False)
    counters.ends.still_fails(4.0, UNANSWERED, late=LateByte(2.5, is_at_end=True))
    assert failure_of(POD, counters, at(5.0))[0] == seen(answers_at_end(POD, 2.5), 3, 1.0, 4.0)
    counters.ends.failed(5.0)
    assert failure_of(POD, counters, at(5.0))[0].row is resets


def test_late_answers_to_flows_are_reported_until_an_answer_comes_in_time(counters):
    counters.connections = MANY_ENDS
    for now in range(MANY_ENDS):
        counters.ended_unanswered(float(now), NO_DATAGRAM)
        counters.came_late(8.0)
    late = seen(answers_flows_late(POD), MANY_ENDS, 0.0, 2.0)
    assert failure_of(POD, counters, at(10.0)) == (late, False)
    assert failure_of(POD, counters, at(2.0 + LAST_MINUTE_S)) == (past(late), True)
    counters.ends.succeeded_at = 70.0
    assert failure_of(POD, counters, at(70.0)) == NOTHING


def deny(counters, *moments, client="10.244.0.123", failure=Failure.SILENT):
    for now in moments:
        counters.denials.failed(now, failure, client)


def test_an_endpoint_answering_only_this_node_is_reported_as_denying_the_client(counters):
    counters.connections = 9
    counters.dials.failed(4.0, Failure.SILENT)
    counters.dials.succeeded_at = 5.0
    deny(counters, 5.0, 6.0, 9.0)
    last = 5.0 + DENIALS_S
    assert failure_of(POD, counters, at(9.0)) == NOTHING
    deny(counters, last)
    denied = seen(denies(POD, "10.244.0.123"), 4, 5.0, last)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S - 0.1)) == (denied, False)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S)) == (past(denied), True)
    # A success of another client doesn't clear the denial.
    counters.dials.succeeded_at = last + 1.0
    assert failure_of(POD, counters, at(last + 1.0)) == (denied, False)
    assert failure_of(POD, counters, at(last + DENIED_PAST_S)) == NOTHING
    counters.denials.succeeded_at = last + 2.0
    assert failure_of(POD, counters, at(last + 2.0)) == NOTHING


def test_denials_older_than_a_minute_do_not_count_towards_a_reported_denial(counters):
    counters.connections = 9
    deny(counters, 5.0, 5.0 + LAST_MINUTE_S)
    assert failure_of(POD, counters, at(5.0 + LAST_MINUTE_S)) == NOTHING
    deny(counters, 6.0 + LAST_MINUTE_S)
    assert failure_of(POD, counters, at(6.0 + LAST_MINUTE_S))[0].count == DENIALS


def test_an_endpoint_intermittently_answering_a_client_does_not_deny_it(counters):
    counters.connections = 9
    deny(counters, 5.0)
    counters.denials.succeeded_at = 6.0
    deny(counters, 7.0, *range(8, 66))
    assert failure_of(POD, counters, at(65.9)) == NOTHING
    # Since then, the endpoint has answered no dial of this client.
    deny(counters, 6.0 + LAST_MINUTE_S)
    denied = seen(denies(POD, "10.244.0.123"), 60, 7.0, 66.0)
    assert failure_of(POD, counters, at(6.0 + LAST_MINUTE_S)) == (denied, False)


@pytest.mark.parametrize("failure", [Failure.SILENT, Failure.REFUSED])
def test_an_endpoint_that_serves_no_client_is_reported_as_failing_not_as_denying(counters, failure):
    counters.dials.failed(5.0, failure)
    counters.dials.succeeded_at = 5.1
    deny(counters, 5.1, 6.1, failure=failure)
    failed = past(seen(dial_failed(POD, failure, ""), 2, 5.1, 6.1))
    assert failure_of(POD, counters, at(6.2)) == (failed, True)
    deny(counters, 11.0)
    assert failure_of(POD, counters, at(11.0))[0].row is denies


def exclude(counters, *moments, client="10.244.3.7", failure=Failure.RESET):
    """Count connections that an endpoint ended, each after another client was answered."""
    for now in moments:
        counters.ends.succeeded_at = now - 0.5
        counters.ended_unanswered(now, failure, client)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
def test_the_only_client_with_a_streak_of_failures_is_named(counters, failure):
    counters.connections = 90
    exclude(counters, 1.0, 2.0, 3.0, failure=failure)
    assert failure_of(POD, counters, at(4.0)) == NOTHING, "a client answered in between is named"
    for _ in range(19):
        counters.ended_unanswered(3.0, failure, "10.244.3.7")
    cause, _ = failure_of(POD, counters, at(4.0))
    assert cause == seen(excludes(POD, "10.244.3.7"), 20, 3.0, 3.0)
    port = make_port(endpoints=(failing(cause, connections=90),))
    assert told_of(port) == (rules.some_are_denied, [said.get_no_answer(True), stated(cause)])
    # The last failure is the first failure of its client.
    counters.ended_unanswered(3.5, failure, "10.244.3.9")
    assert failure_of(POD, counters, at(4.0))[0].row is resets


def test_a_client_answered_within_the_last_minute_is_not_reported_as_excluded(counters):
    exclude(counters, 1.0)
    counters.exclusions.answered("10.244.3.7", 2.0)
    exclude(counters, 3.0, 4.0, 5.0, 61.9)
    assert counters.exclusions.part.failures == 3
    assert not has_excluded(counters.exclusions)
    exclude(counters, 62.0)
    assert has_excluded(counters.exclusions)


def test_resets_of_one_clients_dials_are_an_exclusion_only_if_others_are_answered(counters):
    counters.connections = 9
    deny(counters, 5.0, 8.0, 11.0, failure=Failure.RESET)
    assert failure_of(POD, counters, at(11.0))[0].row is denies
    counters.ends.succeeded_at = 9.0
    cause, _ = failure_of(POD, counters, at(11.0))
    assert cause == seen(excludes(POD, "10.244.0.123"), 3, 5.0, 11.0)


def test_resets_after_a_response_are_reported_until_a_clean_close(counters):
    counters.connections, counters.ends.succeeded_at = 100, 4.0
    for now in (1.0, 2.0):
        counters.cuts.failed(now, Failure.RESET)
    assert failure_of(POD, counters, at(5.0)) == NOTHING
    counters.cuts.failed(3.0, Failure.RESET)
    cut = seen(cuts_off(POD), 3, 1.0, 3.0)
    assert failure_of(POD, counters, at(5.0)) == (cut, False)
    port = make_port(endpoints=(failing(cut, connections=100),))
    assert told_of(port) == (rules.cut_off, [said.were_reset(3, 100)])
    assert (port.state.level, port.state.causes) == (Level.ATTENTION, (cut,))
    counters.cuts.succeeded_at = 4.0
    assert failure_of(POD, counters, at(5.0)) == NOTHING


@pytest.mark.parametrize("failure", [Failure.NOT_TO_ENDPOINT, Failure.FROM_ENDPOINT])
def test_packets_lost_by_an_endpoint_are_reported_whether_or_not_a_byte_arrived(counters, failure):
    counters.connections = 100
    for now in (1.0, 2.0, 3.0):
        assert failure_of(POD, counters, at(3.0)) == NOTHING
        counters.was_cut(now, failure, "10.244.3.7")
    cut, _ = failure_of(POD, counters, at(3.0))
    assert cut == seen(loses(POD, failure, has_sent=True), 3, 1.0, 3.0)
    port = make_port(endpoints=(make_endpoint(str(POD), cause=cut),))
    assert told_of(port) == (rules.all_fail, [said.fail(), stated(cut)])
    assert (port.state.level, port.state.code) == (Level.TROUBLE, cut.code)
    for now in (1.0, 2.0, 3.0):
        counters.ended_unanswered(now, failure, "10.244.3.7")
    assert failure_of(POD, counters, at(3.0))[0] == seen(loses(POD, failure), 3, 1.0, 3.0)


def test_packets_lost_by_a_client_are_not_an_endpoint_failure(counters):
    counters.connections = 3
    for now in (1.0, 2.0, 3.0):
        counters.was_cut(now, Failure.NOT_TO_CLIENT, "10.244.3.7")
    assert failure_of(POD, counters, at(3.0)) == NOTHING


def test_becomes_past_is_true_once_after_a_failures_time_limit():
    failed = failing(seen(refuses(POD), 1, 5.0, 5.0))
    view = make_port(endpoints=(failed,))
    assert not becomes_past(view, at(5.0 + LAST_MINUTE_S - 1))
    assert becomes_past(view, at(5.0 + LAST_MINUTE_S))
    view.endpoints = (failing(seen(denies(POD, "10.244.0.123"), 1, 5.0, 5.0)),)
    assert not becomes_past(view, at(4.9 + DENIED_PAST_S))
    assert becomes_past(view, at(5.0 + DENIED_PAST_S))
    view = make_port(endpoints=(replace(failed, is_past=True),))
    assert not becomes_past(view, at(5.0 + LAST_MINUTE_S))


def test_becomes_past_is_true_once_after_a_minute_without_an_answer():
    view = make_port(sent_at=1005.0)
    assert not becomes_past(view, at(5.0 + LAST_MINUTE_S - 1))
    assert becomes_past(view, at(5.0 + LAST_MINUTE_S))
    others = replace(view, is_quiet=True), replace(view, sent_at=0.0)
    assert not any(becomes_past(one, at(5.0 + LAST_MINUTE_S)) for one in others)


def test_a_service_port_on_the_kernel_path_is_not_reported_as_quiet():
    assert is_quiet(make_port(sent_at=1005.0), at(5.0 + LAST_MINUTE_S))
    for path in (PathView(DataPath.KERNEL), PathView(DataPath.KERNEL, socket_connections=5)):
        port = replace(make_port(sent_at=9.0, sent_bytes=500), path=path)
        assert not is_quiet(port, at(99.0))


MUTE = no_datagram(POD).replace(count=3)


def mute_port(*causes, **facts):
    endpoints = tuple(make_endpoint(str(POD), cause=cause, is_past=True) for cause in causes)
    return make_port(endpoints=endpoints, **{**UDP, "sent_bytes": 0, **facts})


def test_udp_endpoints_that_never_reply_are_not_reported_as_failing():
    first, _ = endpoints = without_silence(mute_port(MUTE, None))
    assert [endpoint.cause for endpoint in endpoints] == [None, None]
    assert (first.is_past, first.level) == (False, Level.OK)


@pytest.mark.parametrize(
    ("causes", "facts"),
    [
        pytest.param([MUTE], {"sent_bytes": 1}, id="one-has-answered"),
        pytest.param([MUTE, refuses("10.244.1.10:8125")], {}, id="another-fails"),
        pytest.param([MUTE.replace(before=refuses(POD))], {}, id="it-failed-before"),
        pytest.param([sends_nothing(POD)], {"protocol": Protocol.TCP}, id="tcp"),
        pytest.param([None], {}, id="none"),
    ],
)
def test_silence_is_omitted_only_if_no_udp_endpoint_answered_or_failed_otherwise(causes, facts):
    port = mute_port(*causes, **facts)
    assert [endpoint.cause for endpoint in without_silence(port)] == causes


def test_past_silence_is_omitted_even_if_it_followed_another_failure():
    port = mute_port(past(MUTE.replace(before=refuses(POD))))
    assert [endpoint.cause for endpoint in without_silence(port)] == [None]
