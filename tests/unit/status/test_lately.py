import pytest

from userspace_proxy.facts import LATELY_S, EndpointCounters, LatelyFacts, Level, Waits
from userspace_proxy.facts.lately import Lately
from userspace_proxy.model import CauseCode, DataPath, Handling, Hold, Protocol, SocketAddress
from userspace_proxy.model.failures import Failure
from userspace_proxy.policy import EndpointVerdict, PathDecision
from userspace_proxy.policy.causes import dial_failed, resets
from userspace_proxy.policy.endpoint_causes import at_times, sends_nothing
from userspace_proxy.policy.loss_causes import loses
from userspace_proxy.status.failures import failure_of
from userspace_proxy.status.lately import failed_lately
from userspace_proxy.status.port_state import judge

from .test_failures import POD, at
from .views import make_endpoint, make_port, replace

READY = make_endpoint("10.244.1.7:8080", "ready", True, answered_at=1.0)
REFUSES = dial_failed(SocketAddress("10.244.1.8", 8080), Failure.REFUSED, "")
FAILING = make_endpoint("10.244.1.8:8080", "ready", True, cause=REFUSES)
UDP = {"protocol": Protocol.UDP}
IN_KERNEL = PathDecision(DataPath.KERNEL)


def returned(at, failure=Failure.REFUSED, address=POD):
    """Return an endpoint whose dials failed until a moment, and then succeeded."""
    counters = EndpointCounters()
    counters.dials.failed(at, failure)
    counters.dials.succeeded_at = at + 0.1
    return EndpointVerdict(address, True, "ready"), counters


def test_of_clients_that_failed_lately_the_last_endpoint_that_failed_is_the_cause():
    lately, other = Lately(8, 12), SocketAddress("192.0.2.2", 8080)
    refused, before = returned(5.0), returned(4.0, Failure.SILENT, other)
    never = EndpointVerdict(other, True, "ready"), EndpointCounters()
    facts = failed_lately(lately, (before, refused, never), at(9.0))
    assert (facts.connections, facts.refused) == (8, 12)
    assert facts.cause.sentence == "192.0.2.1:8080 refused connections"
    assert (facts.cause.count, facts.cause.last_at) == (12, 1005.0)
    # It is in the past, or another one that fails now is the cause.
    assert failed_lately(lately, (refused,), at(5.0 + LATELY_S)).cause is None
    failing = EndpointCounters()
    failing.dials.failed(5.0, Failure.REFUSED)
    assert failed_lately(lately, ((refused[0], failing),), at(9.0)) == LatelyFacts(8, 12)
    assert failed_lately(Lately(), (refused,), at(9.0)) == LatelyFacts()


def test_a_client_that_failed_while_this_node_was_answered_is_the_latest_failure():
    verdict, counters = returned(5.0)
    counters.denials.failed(8.0, Failure.SILENT, "10.244.0.123")
    cause = failed_lately(Lately(8, 12), ((verdict, counters),), at(9.0)).cause
    assert cause.sentence == "192.0.2.1:8080 did not answer"
    assert (cause.count, cause.last_at) == (12, 1008.0)


def test_a_client_that_was_denied_the_endpoint_until_a_moment_ago_is_named():
    verdict, counters = returned(1.0)
    for now in range(2, 12):
        counters.denials.failed(float(now), Failure.SILENT, "10.244.0.123")
    cause = failed_lately(Lately(8, 12), ((verdict, counters),), at(13.0)).cause
    assert cause.sentence == "192.0.2.1:8080 answered this node, but not 10.244.0.123"


def ended(at, failure=Failure.RESET, address=POD):
    """Return an endpoint that ended a connection without a byte, and answers others."""
    counters = EndpointCounters()
    counters.ended_unanswered(at, failure)
    return EndpointVerdict(address, True, "ready"), counters


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
def test_of_connections_that_ended_unanswered_the_last_endpoint_is_the_cause(failure):
    lately, other = Lately(20, 1, 12), SocketAddress("192.0.2.2", 8080)
    left = ended(8.0, Failure.UNANSWERED, other)
    facts = failed_lately(lately, (ended(4.0, failure, other), ended(5.0, failure)), at(9.0))
    assert (facts.connections, facts.refused, facts.unanswered) == (20, 1, 12)
    assert facts.cause.sentence == (
        "192.0.2.1:8080 accepted connections and ended them without answering"
    )
    assert (facts.cause.count, facts.cause.last_at) == (12, 1005.0)
    assert facts.cause.hint.startswith("Read the log of the pod"), "it may answer no other"
    (_, counters) = answering = ended(5.0, failure)
    counters.ends.succeeded_at = 5.1
    assert (
        "has answered other connections" in failed_lately(lately, (answering,), at(9.0)).cause.hint
    )
    # The client of another one has left; and what was a while ago isn't the cause.
    assert failed_lately(lately, (left, returned(5.0)), at(9.0)).cause is None
    assert failed_lately(lately, (ended(5.0),), at(5.0 + LATELY_S)).cause is None
    assert failed_lately(Lately(20, 12, 1), (ended(5.0),), at(9.0)).cause is None


def test_a_header_that_this_proxy_sends_may_be_why_connections_ended():
    cause = failed_lately(Lately(20, 1, 12), (ended(5.0),), at(9.0), has_header=True).cause
    assert cause.sentence == (
        "192.0.2.1:8080 accepted connections and ended them without answering (this proxy sends a "
        "PROXY header first)"
    )
    assert cause.hint.startswith("This proxy sends a PROXY header before the client's bytes")
    refused = failed_lately(Lately(20, 12), (returned(5.0),), at(9.0), has_header=True).cause
    assert "PROXY" not in f"{refused.sentence}{refused.hint}"


def test_of_a_client_whose_connections_alone_end_unanswered_the_address_is_named():
    verdict, counters = ended(1.0)
    for now in (2.0, 4.0, 6.0):
        counters.ends.succeeded_at = now - 1.0
        counters.ended_unanswered(now, Failure.CLOSED, "10.244.3.7")
    lately = Lately(40, 0, 12)
    cause = failed_lately(lately, ((verdict, counters),), at(9.0)).cause
    assert cause.sentence == (
        "192.0.2.1:8080 ended connections of 10.244.3.7 without a byte, and answered others"
    )
    assert (cause.code, cause.count, cause.last_at) == (CauseCode.ENDPOINT_DENIES, 12, 1006.0)
    assert "access rule of the program" in cause.hint
    counters.ended_unanswered(7.0, Failure.CLOSED, "10.244.3.9")
    cause = failed_lately(lately, ((verdict, counters),), at(9.0)).cause
    assert cause.code is CauseCode.ENDPOINT_RESETS, "the last one was another client's first"
    counters.ended_unanswered(8.0, Failure.UNANSWERED)
    left = failed_lately(Lately(40, left=12), ((verdict, counters),), at(9.0))
    assert left.cause.sentence == "192.0.2.1:8080 sent nothing in time"


def test_of_clients_that_left_the_last_endpoint_is_the_cause():
    lately, other = Lately(20, 1, 2, 12), SocketAddress("192.0.2.2", 8080)
    left, reset = ended(4.0, Failure.UNANSWERED), ended(5.0, Failure.RESET, other)
    cause = failed_lately(lately, (reset, left), at(9.0)).cause
    assert cause.sentence == "192.0.2.1:8080 sent nothing in time"
    assert (cause.count, cause.last_at) == (12, 1004.0)
    facts = failed_lately(Lately(20, left=12), (reset,), at(9.0))
    assert facts == LatelyFacts(20, 0, 0, 12, have_left=True)


SILENT = replace(sends_nothing(SocketAddress("10.244.1.7", 8080)), count=3)


@pytest.mark.parametrize(
    ("left", "endpoint", "sentence"),
    [
        pytest.param(4, READY, "Served by 1 endpoint now; 4 of 30 clients left before", id="last"),
        pytest.param(4, replace(READY, cause=SILENT), "4 of 30 clients left", id="not-last"),
        pytest.param(3, replace(READY, cause=SILENT), "Clients get no answer", id="none-since"),
        pytest.param(2, READY, "Served by 1 endpoint", id="too-few"),
    ],
)
def test_clients_that_left_before_an_answer_are_no_success(left, endpoint, sentence):
    lately = LatelyFacts(30, left=left)
    state = judge(make_port(endpoints=(endpoint,), lately=lately))
    assert state.sentence.startswith(sentence)
    few = LatelyFacts(41, left=left)
    assert judge(make_port(endpoints=(READY,), lately=few)).word == "served"


def test_connections_that_end_in_the_middle_are_no_success():
    counters = EndpointCounters()
    counters.was_cut(5.0)
    cut = EndpointVerdict(POD, True, "ready"), counters
    lately = failed_lately(Lately(40, 0, 0, 2, 8), (ended(7.0), cut), at(9.0))
    assert (lately.cut, lately.cause.count) == (8, 8)
    state = judge(make_port(endpoints=(READY,), lately=lately))
    assert state.level is Level.ATTENTION
    assert state.sentence == (
        "Served by 1 endpoint now; 10 of 40 connections failed in the last minute: "
        "192.0.2.1:8080 reset connections while or after it answered"
    )
    assert judge(make_port(endpoints=(READY,), lately=LatelyFacts(81, cut=8))).word == "served"


@pytest.mark.parametrize("failure", [Failure.NOT_TO_ENDPOINT, Failure.FROM_ENDPOINT])
def test_packets_that_an_endpoint_loses_are_a_cause_with_and_without_a_byte(failure):
    counters = EndpointCounters()
    counters.connections = 100
    for now in (1.0, 2.0, 3.0):
        assert failure_of(POD, counters, at(3.0)) == (None, False)
        counters.was_cut(now, failure, "10.244.3.7")
    cut, _ = failure_of(POD, counters, at(3.0))
    lost = {"count": 3, "first_at": 1001.0, "last_at": 1003.0}
    assert cut == replace(loses(POD, failure, has_sent=True), **lost)
    state = judge(make_port(endpoints=(make_endpoint(str(POD), "ready", True, cause=cut),)))
    assert (state.level, state.code) == (Level.TROUBLE, CauseCode.PACKETS_LOST)
    assert state.sentence == f"Clients fail: {cut}"
    for now in (1.0, 2.0, 3.0):
        counters.ended_unanswered(now, failure, "10.244.3.7")
    assert failure_of(POD, counters, at(3.0))[0] == replace(loses(POD, failure), **lost)


def test_packets_that_a_client_loses_are_no_failure_of_an_endpoint():
    counters = EndpointCounters()
    counters.connections = 3
    for now in (1.0, 2.0, 3.0):
        counters.was_cut(now, Failure.NOT_TO_CLIENT, "10.244.3.7")
    assert failure_of(POD, counters, at(3.0)) == (None, False)


def test_of_packets_that_are_lost_the_side_is_named_that_they_do_not_reach():
    counters = EndpointCounters()
    one = EndpointVerdict(POD, True, "ready"), counters
    counters.was_cut(5.0, Failure.NOT_TO_CLIENT, "10.244.3.7")
    cause = failed_lately(Lately(40, cut=8), (one,), at(9.0)).cause
    assert (cause.code, cause.object, cause.count) == (CauseCode.PACKETS_LOST, "10.244.3.7", 8)
    assert cause.sentence.startswith("client 10.244.3.7 did not acknowledge the answers")
    counters.ended_unanswered(6.0, Failure.NOT_TO_ENDPOINT, "10.244.3.7")
    cause = failed_lately(Lately(40, left=8), (one,), at(9.0)).cause
    assert cause.sentence.startswith("192.0.2.1:8080 acknowledged handshakes")


def test_clients_that_failed_in_several_ways_are_counted_by_each():
    state = judge(make_port(endpoints=(READY,), lately=LatelyFacts(100, 4, 5, 6, 7)))
    assert state.sentence.endswith(
        "22 of 104 connections failed in the last minute (4 not connected, 5 ended without an "
        "answer, 6 left before an answer, 7 cut off after an answer began)"
    )


@pytest.mark.parametrize(
    ("most", "changes", "why"),
    [
        pytest.param(
            2,
            {},
            "connections failed in the last minute: endpoints were at their limit on this node "
            "(max-connections)",
            id="limit",
        ),
        pytest.param(
            None,
            {},
            "connections failed in the last minute: no endpoint took them in time",
            id="hold",
        ),
        pytest.param(
            1,
            UDP,
            "flows failed in the last minute: endpoints were at their limit on this node "
            "(max-connections)",
            id="udp",
        ),
    ],
)
def test_clients_that_had_to_wait_have_the_reason_for_their_wait(most, changes, why):
    handling = Handling(hold=Hold(60), max_connections=most)
    lately = failed_lately(Lately(28, waited=12), (ended(5.0),), at(9.0))
    port = make_port(endpoints=(READY,), handling=handling, lately=lately, **changes)
    assert port.state.level is Level.ATTENTION
    total = 28 if changes else 40
    assert port.state.sentence == f"Served by 1 endpoint now; 12 of {total} {why}"
    others = failed_lately(Lately(28, 0, 14, waited=12), (ended(5.0),), at(9.0))
    if not changes:
        sentence = replace(port, lately=others).state.sentence
        assert "(14 ended without an answer, 12 had waited for an endpoint): 192.0" in sentence


def test_endpoints_that_refuse_are_named_before_clients_that_left():
    state = judge(make_port(endpoints=(FAILING,), lately=LatelyFacts(30, 0, 0, 9)))
    assert "10.244.1.8:8080 refuses connections" in state.sentence


@pytest.mark.parametrize(
    ("connections", "unanswered", "sentence"),
    [
        pytest.param(
            8,
            4,
            "Served by 1 endpoint now; 4 of 8 connections failed in the last minute: "
            "10.244.1.8:8080 accepted connections and ended them without answering",
            id="every-second",
        ),
        pytest.param(3, 5, "Served by 1 endpoint now; 5 of 5 connections failed", id="long-ones"),
        pytest.param(8, 2, "Served by 1 endpoint now; 2 of 8 connections", id="of-few"),
        pytest.param(9, 2, "", id="too-few"),
        pytest.param(1, 1, "", id="one"),
        pytest.param(61, 3, "", id="a-small-share"),
    ],
)
def test_connections_that_an_endpoint_ended_are_no_success(connections, unanswered, sentence):
    cause = at_times(resets(SocketAddress("10.244.1.8", 8080)))
    lately = LatelyFacts(connections, 0, unanswered, cause=cause)
    state = judge(make_port(endpoints=(READY,), lately=lately))
    assert (state.level is Level.ATTENTION, state.code is cause.code) == (bool(sentence),) * 2
    assert state.sentence.startswith(sentence or "Served by 1 endpoint")
    assert not state.is_problem


def test_refused_clients_and_unanswered_connections_add_up():
    state = judge(make_port(endpoints=(READY,), lately=LatelyFacts(8, 2, 4)))
    assert "; 6 of 10 connections failed in the last minute" in state.sentence


@pytest.mark.parametrize(
    ("connections", "refused", "changes", "sentence"),
    [
        pytest.param(
            8,
            12,
            {},
            "Served by 1 endpoint now; 12 of 20 connections failed in the last minute: "
            "10.244.1.8:8080 refused connections",
            id="many",
        ),
        pytest.param(57, 3, {}, "Served by 1 endpoint now; 3 of 60 connections", id="at-least"),
        pytest.param(20, 12, UDP, "Served by 1 endpoint now; 12 of 20 flows failed", id="udp"),
        pytest.param(8, 12, {"path": IN_KERNEL}, "12 of 20 connections failed", id="kernel"),
        pytest.param(7, 2, {}, "", id="too-few"),
        pytest.param(58, 3, {}, "", id="a-small-share"),
    ],
)
def test_clients_that_failed_in_the_last_minute_are_no_success(
    connections, refused, changes, sentence
):
    lately = LatelyFacts(connections, refused, cause=at_times(REFUSES))
    state = judge(make_port(**{"endpoints": (READY,), "lately": lately, **changes}))
    assert (state.level is Level.ATTENTION, state.code is REFUSES.code) == (bool(sentence),) * 2
    assert state.sentence.startswith(sentence or "Served by 1 endpoint")
    assert not state.is_problem
    failing = judge(make_port(endpoints=(READY, FAILING), lately=lately))
    assert failing.sentence.endswith("the other one serves")


def test_connections_that_a_service_has_reset_with_their_endpoint_are_named():
    assert make_port(endpoints=(READY,), lately=LatelyFacts(20, removed=8)).state.sentence.endswith(
        "last minute (8 reset as their endpoint had left: on-endpoint-removal)"
    )


def test_an_endpoint_that_fails_in_two_ways_has_both():
    ends = replace(resets(SocketAddress("10.244.1.7", 8080)), count=7)
    dying, lately = replace(READY, cause=ends, resets=7), LatelyFacts(7, 21, 7)
    lately = replace(lately, cause=at_times(replace(REFUSES, object=READY.address)))
    port = make_port(endpoints=(dying,), lately=lately)
    assert port.state.sentence == (
        f"Clients fail: {ends}; 28 of 28 connections failed in the last minute (21 not connected, "
        "7 ended without an answer): 10.244.1.7:8080 refused connections"
    )
    port = replace(port, lately=replace(lately, cause=at_times(ends)))
    assert port.state.sentence == f"Clients fail: {ends}"


@pytest.mark.parametrize(
    ("unanswered", "changes", "end"),
    [
        pytest.param(
            4,
            {},
            "the other one serves, but not always; 4 of 12 connections failed in the last minute: "
            "10.244.1.7:8080 accepted connections and ended them without answering",
            id="many",
        ),
        pytest.param(
            4,
            UDP,
            "the other one serves, but not always; 4 of 12 flows got no answer within 2 s in the "
            "last minute: 10.244.1.7:8080 accepted connections and ended them without answering",
            id="udp",
        ),
        pytest.param(1, {}, "the other one serves", id="few"),
        pytest.param(
            0,
            {"handling": Handling(max_connections=1), "waits": Waits(3, 2.0)},
            "the other one serves, but not always; holding 3 connections, the longest for 2 s: "
            "endpoints have 1 connection each, which is their limit on this node",
            id="at-its-limit",
        ),
        pytest.param(4, {"is_quiet": True}, "the other one answered before", id="quiet"),
    ],
)
def test_beside_an_endpoint_that_fails_another_one_may_fail_at_times(unanswered, changes, end):
    cause = at_times(resets(SocketAddress("10.244.1.7", 8080)))
    lately = LatelyFacts(12, 0, unanswered, cause=cause)
    port = make_port(endpoints=(READY, FAILING), lately=lately, **changes)
    assert port.state.sentence == f"{REFUSES}; {end}"


@pytest.mark.parametrize(
    ("lately", "changes"),
    [
        pytest.param((100, 3), {}, id="refused"),
        pytest.param((40, 0, 0, 0, 2), {}, id="cut"),
        pytest.param((100, 3), UDP, id="flows"),
        pytest.param((40, 0, 2), UDP, id="unanswered-flows"),
    ],
)
def test_what_was_news_stays_so_until_it_is_half_as_many(lately, changes):
    for was_many in (False, True):
        port = make_port(endpoints=(READY,), lately=LatelyFacts(*lately, was_many=was_many))
        assert (replace(port, **changes).state.word == "partly answering") is was_many
    few = LatelyFacts(lately[0] * 2, *lately[1:], was_many=True)
    assert make_port(endpoints=(READY,), lately=few, **changes).state.word == "served"


def test_without_a_cause_clients_that_failed_are_counted_only():
    state = judge(make_port(endpoints=(READY,), lately=LatelyFacts(1, 3)))
    assert state.sentence.endswith("3 of 4 connections failed in the last minute")
    assert state.causes == ()


@pytest.mark.parametrize("kind", ["unanswered", "left", "cut", "late"])
def test_endpoints_that_have_left_since_are_not_among_those_that_may_serve(kind):
    lately, answering = Lately(20, **{kind: 12}), EndpointCounters()
    others = ((EndpointVerdict(POD, True, "ready"), answering),)
    facts = failed_lately(lately, others, at(9.0))
    assert (facts.cause, facts.have_left) == (None, True)
    if kind == "late":
        answering.dials.failed(1.0, Failure.SILENT)
    else:
        setattr(answering, kind, 1)
    assert not failed_lately(lately, iter(others), at(90.0)).have_left
    # There may have been none, or no room.
    assert not failed_lately(Lately(20, refused=12), others, at(9.0)).have_left
    assert not failed_lately(Lately(20, waited=12), others, at(9.0)).have_left
    port = make_port(endpoints=(READY,), lately=LatelyFacts(20, unanswered=12, have_left=True))
    assert port.state.sentence.endswith(
        "in the last minute, at endpoints that aren't used any more"
    )


def test_clients_that_failed_are_not_called_served_if_none_was_answered():
    lately = LatelyFacts(connections=3, unanswered=3)
    failed = "3 of 3 connections failed in the last minute"
    assert make_port(lately=lately).state.sentence == f"Served by 2 endpoints now; {failed}"
    assert make_port(lately=lately, is_quiet=True).state.sentence == failed


def test_endpoints_that_leave_and_return_again_and_again_are_news():
    lately = failed_lately(Lately(8, gaps=3), (returned(5.0),), at(9.0))
    port = make_port(endpoints=(READY,), lately=lately)
    said = "it had no endpoint 3 times in the last minute; clients that came then were turned away"
    assert (port.state.sentence, port.state.word) == (
        f"Served by 1 endpoint; {said}",
        "partly answering",
    )
    assert port.state.way_out == (
        "See what changes its slices: kubectl get endpointslices -n shop "
        "-l kubernetes.io/service-name=web -w"
    )
    rollout = failed_lately(Lately(8, gaps=2), (), at(9.0))
    assert make_port(endpoints=(READY,), lately=rollout).state.word == "served"
    # Clients that failed have the reason for that.
    both = failed_lately(Lately(8, 12, gaps=30), (returned(5.0),), at(9.0))
    assert (both.cause.count, both.gaps) == (12, 30)
    # Of those that were refused there may have been no endpoint to blame.
    refused = failed_lately(Lately(60, 40, gaps=9), (), at(9.0))
    assert make_port(endpoints=(READY,), lately=refused).state.sentence.endswith(
        "40 of 100 connections failed in the last minute: it had no endpoint 9 times in the last "
        "minute"
    )
