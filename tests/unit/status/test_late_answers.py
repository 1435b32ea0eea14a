import pytest

from userspace_proxy.facts import EndpointCounters, LatelyFacts, Level
from userspace_proxy.facts.lately import Lately
from userspace_proxy.model import CauseCode, Failure, Handling, Hold, SocketAddress
from userspace_proxy.policy import EndpointVerdict
from userspace_proxy.policy.endpoint_causes import at_times, no_datagram
from userspace_proxy.policy.loss_causes import loses
from userspace_proxy.status.late_answers import many_saved_late
from userspace_proxy.status.lately import failed_lately, many_failed
from userspace_proxy.status.port_state import judge

from .test_failures import POD, at
from .test_lately import READY, UDP, ended, returned
from .views import make_port, replace

MUTE = replace(no_datagram(SocketAddress("10.244.1.7", 8080)), count=3)


@pytest.mark.parametrize(
    ("unanswered", "endpoint", "sentence"),
    [
        pytest.param(9, READY, "9 of 12 flows got no answer within 2 s", id="answered-last"),
        pytest.param(9, replace(READY, cause=MUTE), "9 of 12 flows got no answer", id="not-last"),
        pytest.param(
            3,
            replace(READY, cause=MUTE),
            "Clients get no answer: no datagram has come back",
            id="none-since",
        ),
        pytest.param(2, READY, "Served by 1 endpoint", id="too-few"),
    ],
)
def test_flows_of_which_some_are_answered_have_one_sentence(unanswered, endpoint, sentence):
    lately = LatelyFacts(12, 0, unanswered)
    state = judge(make_port(endpoints=(endpoint,), lately=lately, **UDP))
    assert state.sentence.startswith(sentence)
    few = LatelyFacts(100, 0, unanswered)
    assert judge(make_port(endpoints=(READY,), lately=few, **UDP)).word == "served"


def test_flows_without_an_answer_have_their_endpoint_and_the_remedy():
    mute, lately = ended(5.0, Failure.NO_DATAGRAM), Lately(12, 0, 9)
    cause = failed_lately(lately, (mute,), at(9.0)).cause
    assert cause.sentence == "192.0.2.1:8080 sent nothing in time"
    state = judge(make_port(endpoints=(READY,), lately=LatelyFacts(12, 0, 9, cause=cause), **UDP))
    assert state.sentence.endswith("in the last minute: 192.0.2.1:8080 sent nothing in time")
    assert "network policy" in state.way_out


def test_flows_that_were_answered_late_are_not_said_to_have_no_answer():
    mute, late = ended(5.0, Failure.NO_DATAGRAM), ended(4.0, Failure.NO_DATAGRAM)
    late[1].came_late()
    cause = failed_lately(Lately(12, 0, 1, late=9), (mute, late), at(9.0)).cause
    assert (cause.sentence, cause.count) == ("192.0.2.1:8080 answered late", 9)
    lately = LatelyFacts(12, 0, 1, late=9, cause=cause)
    state = judge(make_port(endpoints=(READY,), lately=lately, **UDP))
    flows = "9 of 12 flows were answered only after more than 2 s in the last minute"
    assert state.sentence == f"{flows}: 192.0.2.1:8080 answered late"
    assert state.code is CauseCode.ENDPOINT_ANSWERS_LATE


def test_flows_that_were_never_answered_may_expect_no_answer():
    port = make_port(endpoints=(READY,), lately=LatelyFacts(12, 0, 9), sent_bytes=0, **UDP)
    assert port.mark is None


SILENT = "192.0.2.1:8080 did not answer"


@pytest.mark.parametrize(
    ("counts", "changes", "said"),
    [
        pytest.param((28, 4), {}, "4 of 28 connections were saved late", id="many"),
        pytest.param((40, 3), {}, "", id="few-of-many"),
        pytest.param((4, 1), {}, "", id="one"),
        pytest.param((28, 4), UDP, "4 of 28 flows were answered only after", id="udp"),
    ],
)
def test_connections_that_were_saved_late_are_news_where_they_are_many(counts, changes, said):
    connections, late = counts
    lately = Lately(connections, late=late)
    silent = returned(5.0, Failure.SILENT)
    facts = failed_lately(lately, (silent, returned(6.0, Failure.REFUSED)), at(9.0))
    assert (facts.cause.sentence, facts.cause.count) == (SILENT, late)
    state = judge(make_port(endpoints=(READY,), lately=facts, **changes))
    assert state.word == ("partly answering" if said else "served")
    assert said in state.sentence
    assert state.sentence.endswith(f"in the last minute: {SILENT}") == bool(said)


def test_connections_that_were_saved_late_may_have_been_saved_from_endpoints_that_have_left():
    facts = failed_lately(Lately(28, late=4), (), at(9.0))
    assert judge(make_port(endpoints=(READY,), lately=facts)).sentence == (
        "Served by 1 endpoint now; 4 of 28 connections were saved late in the last minute, from "
        "endpoints that aren't used any more"
    )


def test_what_was_saved_late_stays_news_until_it_is_half_as_many():
    lately = LatelyFacts(60, late=4)
    assert make_port(endpoints=(READY,), lately=lately).state.word == "served"
    again = replace(lately, was_many=True)
    assert make_port(endpoints=(READY,), lately=again).state.word == "partly answering"


def test_flows_to_a_port_that_is_closed_at_times_are_refused_or_unanswered():
    mute, refused = ended(5.0, Failure.NO_DATAGRAM), returned(4.0, Failure.REFUSED)
    facts = failed_lately(Lately(40, 5, 13), (mute, refused), at(9.0))
    state = judge(make_port(endpoints=(READY,), lately=facts, **UDP))
    assert state.sentence == (
        "18 of 40 flows failed in the last minute (5 at once, 13 without an answer): "
        "192.0.2.1:8080 refused connections"
    )
    assert facts.cause.count == 5
    # Of TCP that is known.
    reset = failed_lately(Lately(40, 5, 13), (ended(5.0), refused), at(9.0))
    assert reset.cause.code is CauseCode.ENDPOINT_RESETS


def test_flows_that_may_expect_no_answer_have_not_failed_as_some_were_refused():
    facts = failed_lately(Lately(203, 3, 200), (), at(9.0))
    state = judge(make_port(endpoints=(READY,), lately=facts, sent_bytes=0, **UDP))
    assert "failed" not in state.sentence


def test_slow_flows_do_not_make_few_that_were_refused_many():
    facts = failed_lately(Lately(250, 3, 12), (ended(5.0, Failure.NO_DATAGRAM),), at(9.0))
    assert judge(make_port(endpoints=(READY,), lately=facts, **UDP)).word == "served"


def test_an_endpoint_whose_flows_were_late_has_not_left_once_that_was_a_minute_ago():
    late = ended(5.0, Failure.NO_DATAGRAM)
    late[1].came_late()
    assert not failed_lately(Lately(12, late=9), (late,), at(90.0)).have_left


def test_an_endpoint_that_was_late_is_not_to_blame_for_what_others_cut_off():
    silent = returned(5.0, Failure.SILENT)
    cut = EndpointVerdict(SocketAddress("192.0.2.2", 8080), True, "ready"), EndpointCounters()
    cut[1].was_cut(6.0)
    lately = failed_lately(Lately(60, cut=10, late=6), (silent, cut), at(9.0))
    assert lately.cause.sentence.startswith("192.0.2.2:8080 reset connections")
    port = make_port(endpoints=(READY,), lately=lately)
    assert (many_saved_late(port).count(":"), many_failed(port).count(": 192.0.2.2")) == (0, 1)
    lately = failed_lately(Lately(60, cut=6, late=10), (silent, cut), at(9.0))
    port = make_port(endpoints=(READY,), lately=lately)
    assert many_saved_late(port).endswith("in the last minute: 192.0.2.1:8080 did not answer")
    assert many_failed(port) == "6 of 60 connections failed in the last minute"


def test_a_service_that_has_never_had_an_endpoint_has_none_that_left():
    assert not failed_lately(Lately(0, refused=9), (), at(9.0)).have_left


def test_a_limit_is_no_reason_for_a_wait_without_an_endpoint():
    handling = Handling(hold=Hold(60), max_connections=1)
    port = make_port(endpoints=(), handling=handling, lately=LatelyFacts(0, waited=5))
    assert many_failed(port).endswith(": no endpoint took them in time")


def test_clients_whose_packets_were_lost_have_failed():
    lately = LatelyFacts(30, left=4, cause=at_times(loses(POD, Failure.FROM_ENDPOINT)))
    sentence = make_port(endpoints=(READY,), lately=lately).state.sentence
    assert sentence.startswith("Served by 1 endpoint now; 4 of 30 connections failed in the last")


OTHER = replace(READY, address="10.244.1.8:8080")


@pytest.mark.parametrize(
    ("mute", "open_", "sentence"),
    [
        pytest.param([2, 0], 4, "2 of 4 open flows get no answer any more from 10.244.1.7:8080",
                     id="half"),
        pytest.param([1, 1], 4, "2 of 4 open flows get no answer any more from 2 endpoints",
                     id="of-two"),
        pytest.param([1, 0], 1, "1 of 1 open flow gets no answer any more from 10.244.1.7:8080",
                     id="the-only-one"),
        pytest.param([1, 0], 9, "Served by 2 endpoints", id="few"),
    ],
)  # fmt: skip
def test_flows_that_are_answered_no_more_are_told_as_long_as_they_are_open(mute, open_, sentence):
    pods = (READY, OTHER)
    endpoints = [replace(pod, mute=count) for pod, count in zip(pods, mute, strict=True)]
    port = make_port(
        endpoints=endpoints, active=open_, mute=sum(mute), connections=99, sent_bytes=5, **UDP
    )
    state = judge(port)
    assert state.sentence == sentence
    assert (state.level is Level.OK) == (state.word == "served")


@pytest.mark.parametrize(
    ("mute", "by"),
    [
        ([2, 0], "10.244.1.7:8080 and former ones"),
        ([1, 1], "2 endpoints and former ones"),
        ([0, 0], "endpoints that aren't used any more"),
    ],
)
def test_connections_to_former_endpoints_are_told_as_such(mute, by):
    endpoints = [replace(pod, mute=n) for pod, n in zip((READY, OTHER), mute, strict=True)]
    port = make_port(endpoints=endpoints, active=4, mute=3, connections=99, sent_bytes=5)
    what = f"3 of 4 open connections get no answer any more from {by}"
    assert judge(port).sentence == what


def test_what_is_open_and_mute_has_a_remedy_and_new_clients_may_be_served():
    few = {"active": 2, "mute": 2, "connections": 99, "sent_bytes": 5}
    state = judge(make_port(endpoints=(replace(READY, mute=2),), **few))
    assert state.sentence == "2 of 2 open connections get no answer any more from 10.244.1.7:8080"
    assert "begun anew" in state.way_out
    assert (state.level, state.word) == (Level.ATTENTION, "partly answering")


LAST = SocketAddress("192.0.2.2", 8080)


@pytest.mark.parametrize(
    ("lately", "endpoints", "at_first", "at_last", "shown"),
    [
        pytest.param(
            Lately(60, unanswered=18),
            (ended(5.0), ended(8.0, address=LAST)),
            Lately(unanswered=15),
            Lately(unanswered=3),
            (POD, 15),
            id="ended",
        ),
        pytest.param(
            Lately(60, refused=5),
            (returned(5.0), returned(8.0, address=LAST)),
            Lately(refused=9),
            Lately(refused=2),
            (POD, 5),
            id="dials-of-fewer-clients",
        ),
        pytest.param(
            Lately(60, late=7),
            (returned(5.0, Failure.SILENT), returned(8.0, Failure.SILENT, LAST)),
            Lately(refused=6, late=1),
            Lately(refused=1, late=6),
            (POD, 6),
            id="late-ones-count-where-they-were-saved",
        ),
        pytest.param(
            Lately(60, unanswered=18),
            (ended(5.0), ended(8.0, address=LAST)),
            Lately(),
            Lately(),
            (LAST, 18),
            id="unknown",
        ),
        pytest.param(
            Lately(60, unanswered=18),
            (ended(-55.0), ended(8.0, address=LAST)),
            Lately(unanswered=15),
            Lately(unanswered=3),
            (LAST, 3),
            id="a-minute-ago",
        ),
    ],
)
def test_the_endpoint_is_named_at_which_most_clients_failed(
    lately, endpoints, at_first, at_last, shown
):
    failed = {POD: at_first, LAST: at_last}
    facts = failed_lately(
        lately, endpoints, at(9.0), failed_at=lambda endpoint, _now: failed[endpoint]
    )
    assert (facts.cause.object, facts.cause.count) == (str(shown[0]), shown[1])


def ended_so(owed, connections=99):
    """Return an endpoint with connections that ended without an answer to the last words."""
    counters = EndpointCounters()
    counters.owed, counters.connections = owed, connections
    return EndpointVerdict(POD, True, "ready"), counters


@pytest.mark.parametrize(
    ("owed", "connections", "seldom"),
    [
        pytest.param(4, 99, True, id="never-before"),
        pytest.param(9, 99, True, id="seldom-before"),
        pytest.param(14, 99, False, id="a-habit"),
        pytest.param(4, 14, True, id="others-of-a-new-service-not"),
        pytest.param(4, 4, False, id="all-of-a-new-service"),
        pytest.param(4, 7, False, id="most-of-a-new-service"),
    ],
)
def test_what_is_owed_is_a_failure_where_that_is_no_habit(owed, connections, seldom):
    lately = Lately(min(12, connections), owed=4)
    failed_at = {POD: Lately(owed=3), LAST: Lately(owed=1)}
    endpoints = (ended_so(0, 0), ended_so(owed, connections))
    facts = failed_lately(lately, endpoints, at(9.0), failed_at=lambda one, _: failed_at[one])
    cause = "192.0.2.1:8080 answered before, and then no more"
    assert (str(facts.cause), facts.cause.count, facts.owes_seldom) == (cause, 3, seldom)
    state = judge(make_port(endpoints=(READY,), lately=facts, **SENT))
    total = lately.connections
    what = (
        f"4 of {total} connections ended without an answer to the client's last words in the last "
        f"minute: {cause}"
    )
    shown = f"Served by 1 endpoint now; {what}" if seldom else what
    assert (state.sentence, state.way_out) == (shown, facts.cause.hint)
    assert (state.level, state.word) == (
        (Level.ATTENTION, "partly answering") if seldom else (Level.OK, "unknown")
    )


SENT = {"connections": 99, "sent_bytes": 5}


def test_few_ends_without_an_answer_are_no_news_and_none_beside_worse():
    port = make_port(endpoints=(READY,), lately=LatelyFacts(40, owed=3), **SENT)
    assert judge(port).sentence == "Served by 1 endpoint"
    lately = LatelyFacts(40, refused=9, owed=10)
    port = make_port(endpoints=(READY,), lately=lately, **SENT)
    assert "9 of 49 connections failed in the last minute" in judge(port).sentence


def test_nobody_is_named_who_owes_nothing_any_more():
    facts = failed_lately(Lately(12, owed=4), (), at(9.0))
    assert (facts.cause, facts.owes_seldom) == (None, True)


@pytest.mark.parametrize(("idle", "is_told"), [(3, True), (1, False)])
def test_connections_that_this_proxy_ends_as_they_are_idle_are_told_if_many(idle, is_told):
    facts = failed_lately(Lately(12, idle=idle), (ended_so(0),), at(9.0))
    assert (facts.idle, facts.cause) == (idle, None)
    state = judge(make_port(endpoints=(READY,), lately=facts, **SENT))
    said = (
        f"this proxy ended {idle} of 12 connections in the last minute, idle for as long as "
        "--conntrack-tcp-timeout-established allows"
    )
    served = "Served by 1 endpoint"
    assert state.sentence == (f"{served} now; {said}" if is_told else served)
    assert ("longest pause" in state.way_out) == is_told


def test_a_service_without_an_endpoint_says_how_often_that_was_so():
    port = make_port(endpoints=(), reason="it has none", lately=LatelyFacts(8, gaps=3))
    assert judge(port).sentence == (
        "Clients are refused: it has none; it had no endpoint 3 times in the last minute; clients "
        "that came then were turned away"
    )
    seldom = make_port(endpoints=(), reason="it has none", lately=LatelyFacts(8, gaps=2))
    assert judge(seldom).sentence == "Clients are refused: it has none"
