import dataclasses

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import (
    answers_flows_late,
    cuts_off,
    denies,
    excludes,
    not_to_client,
    not_to_endpoint,
    owes_answers,
    refuses,
    resets,
    sends_nothing,
    silent,
)
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis import rules
from userspace_proxy.diagnosis.symptoms import (
    failed_last_minute,
    many_failed,
    many_flaps,
    many_idle,
    many_saved_late,
    many_unanswered,
    many_unanswered_requests,
)
from userspace_proxy.facts import LAST_MINUTE_S, EndpointCounters, LastMinuteFacts, PortState
from userspace_proxy.facts.last_minute import MinuteCounts
from userspace_proxy.model import DataPath, Handling, Hold, SocketAddress
from userspace_proxy.model.failures import Failure
from userspace_proxy.policy import PathDecision

from ..status.views import make_port, replace
from .samples import (
    CLIENT,
    POD,
    READY,
    UDP,
    at,
    counted,
    cut,
    ended,
    lately_of,
    returned,
    told_of,
)

OTHER = SocketAddress("192.0.2.2", 8080)
SERVED_NOW = said.served_by(1, 0, is_now=True)
SENT = {"connections": 99, "sent_bytes": 5}


def found(minute, *endpoints, now=9.0, **changes):
    """Return the counts of the last minute with the cause for which most clients failed."""
    return failed_last_minute(minute, iter(endpoints), at(now), **changes)


def served(minute, *endpoints, **changes):
    """Return a served Service port with these counts of the last minute."""
    return make_port(endpoints=endpoints or (READY,), last_minute=minute, **changes)


def test_the_endpoint_that_failed_last_is_the_cause_of_recent_failures():
    minute = MinuteCounts(8, 12)
    refused, before = returned(5.0), returned(4.0, Failure.SILENT, OTHER)
    never = counted(EndpointCounters(), OTHER)
    facts = found(minute, before, refused, never)
    assert facts == LastMinuteFacts(8, 12, cause=lately_of(refuses(POD), 12, 5.0))
    # Neither a failure older than a minute nor an endpoint that still fails is the cause.
    assert found(minute, refused, now=5.0 + LAST_MINUTE_S).cause is None
    failing_now = EndpointCounters()
    failing_now.dials.failed(5.0, Failure.REFUSED)
    assert found(minute, counted(failing_now)) == LastMinuteFacts(8, 12)
    assert found(MinuteCounts(), refused) == LastMinuteFacts()


def test_a_clients_failed_dial_counts_as_the_latest_failure_of_its_endpoint():
    _, counters = one = returned(5.0)
    counters.denials.failed(8.0, Failure.SILENT, "10.244.0.123")
    assert found(MinuteCounts(8, 12), one).cause == lately_of(silent(POD), 12, 8.0)


def test_a_recently_denied_client_is_named():
    _, counters = one = returned(1.0)
    for now in range(2, 12):
        counters.denials.failed(float(now), Failure.SILENT, "10.244.0.123")
    cause = found(MinuteCounts(8, 12), one, now=13.0).cause
    assert cause == lately_of(denies(POD, "10.244.0.123"), 12, 11.0)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
def test_the_endpoint_that_failed_last_is_the_cause_of_unanswered_connections(failure):
    minute = MinuteCounts(20, 1, 12)
    facts = found(minute, ended(4.0, failure, OTHER), ended(5.0, failure))
    it_may_answer_no_other = lately_of(resets(POD), 12, 5.0, others=False)
    assert facts == LastMinuteFacts(20, 1, 12, cause=it_may_answer_no_other)
    (_, counters) = answering = ended(5.0, failure)
    counters.ends.succeeded_at = 5.1
    assert found(minute, answering).cause == lately_of(resets(POD), 12, 5.0)
    # Neither an endpoint on which a client gave up nor a failure older than a minute is the cause.
    left = ended(8.0, Failure.UNANSWERED, OTHER)
    assert found(minute, left, returned(5.0)).cause is None
    assert found(minute, ended(5.0), now=5.0 + LAST_MINUTE_S).cause is None
    assert found(MinuteCounts(20, 12, 1), ended(5.0)).cause is None


def test_the_proxy_header_is_a_possible_reason_only_for_ended_connections():
    cause = found(MinuteCounts(20, 1, 12), ended(5.0), has_header=True).cause
    assert cause == lately_of(resets(POD), 12, 5.0, others=False).replace(has_header=True)
    verdict, counters = returned(5.0)
    last = dataclasses.replace(verdict, reason="terminating"), counters
    refused = found(MinuteCounts(20, 12), last, has_header=True).cause
    assert refused.is_terminating
    assert "PROXY" not in f"{say(refused)}{remedy(refused)}"


def test_the_only_client_with_unanswered_connections_is_named():
    _, counters = one = ended(1.0)
    for now in (2.0, 4.0, 6.0):
        counters.ends.succeeded_at = now - 1.0
        counters.ended_unanswered(now, Failure.CLOSED, CLIENT)
    minute = MinuteCounts(40, 0, 12)
    cause = found(minute, one).cause
    assert cause == lately_of(excludes(POD, CLIENT), 12, 6.0)
    counters.ended_unanswered(7.0, Failure.CLOSED, "10.244.3.9")
    cause = found(minute, one).cause
    assert cause.row is resets, "another client's first failure counts"
    counters.ended_unanswered(8.0, Failure.UNANSWERED)
    left = found(MinuteCounts(40, client_aborts=12), one).cause
    assert left == lately_of(sends_nothing(POD), 12, 8.0)


def test_the_endpoint_that_last_left_a_client_unanswered_is_the_cause_of_client_aborts():
    left, reset = ended(4.0, Failure.UNANSWERED), ended(5.0, Failure.RESET, OTHER)
    cause = found(MinuteCounts(20, 1, 2, 12), reset, left).cause
    assert cause == lately_of(sends_nothing(POD), 12, 4.0, others=False)
    facts = found(MinuteCounts(20, client_aborts=12), reset)
    assert facts == LastMinuteFacts(20, 0, 0, 12, have_left=True)


def test_connections_cut_off_after_the_first_byte_count_as_failed():
    minute = found(MinuteCounts(40, 0, 0, 2, 8), ended(7.0), cut(5.0))
    assert minute == LastMinuteFacts(40, 0, 0, 2, 8, cause=lately_of(cuts_off(POD), 8, 5.0))
    failed = said.connections_failed(10, 40, (), said.because(minute.cause))
    assert told_of(served(minute)) == (rules.clients_failed, [SERVED_NOW, failed])


def test_lost_packets_are_attributed_to_the_unreached_side():
    _, counters = one = cut(5.0, Failure.NOT_TO_CLIENT)
    cause = found(MinuteCounts(40, endpoint_aborts=8), one).cause
    assert cause == lately_of(not_to_client(CLIENT), 8, 5.0)
    counters.ended_unanswered(6.0, Failure.NOT_TO_ENDPOINT, CLIENT)
    cause = found(MinuteCounts(40, client_aborts=8), one).cause
    assert cause == lately_of(not_to_endpoint(POD), 8, 6.0, others=False)
    failed = said.connections_failed(8, 40, (), said.because(cause))
    assert many_failed(served(LastMinuteFacts(40, client_aborts=8, cause=cause))) == failed


@pytest.mark.parametrize("kind", ["unanswered", "client_aborts", "endpoint_aborts", "late"])
def test_failures_that_no_present_endpoint_explains_are_attributed_to_removed_endpoints(kind):
    minute, answering = MinuteCounts(20, **{kind: 12}), EndpointCounters()
    others = (counted(answering),)
    facts = found(minute, *others)
    assert (facts.cause, facts.have_left) == (None, True)
    if kind == "late":
        answering.dials.failed(1.0, Failure.SILENT)
    else:
        setattr(answering, kind, 1)
    assert not found(minute, *others, now=90.0).have_left
    # Refused and queued clients may have had no endpoint at all.
    assert not found(MinuteCounts(20, refused=12), *others).have_left
    assert not found(MinuteCounts(20, queued=12), *others).have_left
    port = served(LastMinuteFacts(20, unanswered=12, have_left=True))
    assert many_failed(port) == said.connections_failed(12, 20, (), said.at_former_endpoints("at"))


@pytest.mark.parametrize(
    ("minute", "endpoints", "at_first", "at_last", "shown"),
    [
        pytest.param(
            MinuteCounts(60, unanswered=18), (ended(5.0), ended(8.0, address=OTHER)),
            MinuteCounts(unanswered=15), MinuteCounts(unanswered=3), (POD, 15), id="ended",
        ),
        pytest.param(
            MinuteCounts(60, refused=5), (returned(5.0), returned(8.0, address=OTHER)),
            MinuteCounts(refused=9), MinuteCounts(refused=2), (POD, 5), id="fewer-clients",
        ),
        pytest.param(
            MinuteCounts(60, late=7),
            (returned(5.0, Failure.SILENT), returned(8.0, Failure.SILENT, OTHER)),
            MinuteCounts(refused=6, late=1), MinuteCounts(refused=1, late=6), (POD, 6),
            id="late-dials-count-where-saved",
        ),
        pytest.param(
            MinuteCounts(60, unanswered=18), (ended(5.0), ended(8.0, address=OTHER)),
            MinuteCounts(), MinuteCounts(), (OTHER, 18), id="unknown-counts",
        ),
        pytest.param(
            MinuteCounts(60, unanswered=18), (ended(-55.0), ended(8.0, address=OTHER)),
            MinuteCounts(unanswered=15), MinuteCounts(unanswered=3), (OTHER, 3), id="a-minute-ago",
        ),
    ],
)  # fmt: skip
def test_the_recently_failed_endpoint_with_the_most_failed_clients_is_named(
    minute, endpoints, at_first, at_last, shown
):
    failed = {POD: at_first, OTHER: at_last}
    facts = found(minute, *endpoints, failed_at=lambda one, _now: failed[one])
    assert (facts.cause.get("at"), facts.cause.count) == (str(shown[0]), shown[1])


WHY = lately_of(refuses("10.244.1.8:8080"))


@pytest.mark.parametrize(
    ("counts", "changes", "shown"),
    [
        pytest.param((8, 12), {}, (12, 20), id="many"),
        pytest.param((57, 3), {}, (3, 60), id="at-least"),
        pytest.param((20, 12), UDP, (12, 20), id="udp"),
        pytest.param((8, 12), {"path": PathDecision(DataPath.KERNEL)}, (12, 20), id="kernel"),
        pytest.param((7, 2), {}, None, id="too-few"),
        pytest.param((58, 3), {}, None, id="a-small-share"),
        pytest.param((8, 0, 4), {}, (4, 8), id="every-second-ended"),
        pytest.param((3, 0, 5), {}, (5, 5), id="long-ones-ended"),
        pytest.param((8, 0, 2), {}, (2, 8), id="of-few-ended"),
        pytest.param((9, 0, 2), {}, None, id="too-few-ended"),
        pytest.param((1, 0, 1), {}, None, id="one-ended"),
        pytest.param((61, 0, 3), {}, None, id="a-small-share-ended"),
        pytest.param((8, 2, 4), {}, (6, 10), id="refused-and-ended"),
        pytest.param((81, 0, 0, 0, 8), {}, None, id="a-small-share-cut"),
    ],
)
def test_failed_clients_of_the_last_minute_are_reported_if_many(counts, changes, shown):
    port = served(LastMinuteFacts(*counts, cause=WHY), **changes)
    rule, told = told_of(port)
    if shown is None:
        assert (rule, many_failed(port)) == (rules.served, None)
        return
    failed = said.connections_failed(*shown, (), said.because(WHY))
    if changes == UDP:
        failed = said.flows_failed(*shown, shown[0], 0, said.because(WHY))
    now = () if "path" in changes else (SERVED_NOW,)
    assert (rule, told) == (rules.clients_failed, [*now, failed])
    assert (port.state.causes, port.state.is_problem) == ((WHY,), False)


def test_clients_that_leave_early_are_not_reported_as_failed():
    port = served(LastMinuteFacts(30, client_aborts=4), READY)
    assert many_failed(port) == said.clients_left(4, 30)
    assert many_failed(port, but=[CauseCode.ENDPOINT_REFUSES]) is None, "others are reported"


def test_failed_connections_are_reported_by_kind():
    parts = (
        (4, "not connected"),
        (5, "ended without an answer"),
        (6, "left before an answer"),
        (7, "cut off after an answer began"),
    )
    failed = many_failed(served(LastMinuteFacts(100, 4, 5, 6, 7)))
    assert failed == said.connections_failed(22, 104, parts)
    # For connections that the proxy reset, the setting is the reason.
    removed = (8, "reset as their endpoint had left: on-endpoint-removal")
    failed = many_failed(served(LastMinuteFacts(20, removed=8)))
    assert failed == said.connections_failed(8, 20, (removed,))


@pytest.mark.parametrize(
    ("most", "changes", "row"),
    [
        pytest.param(2, {}, said.were_at_limit, id="limit"),
        pytest.param(None, {}, said.none_in_time, id="hold"),
        pytest.param(1, UDP, said.were_at_limit, id="udp"),
    ],
)
def test_clients_that_waited_are_shown_with_the_reason(most, changes, row):
    handling = Handling(hold=Hold(60), max_connections=most)
    minute = found(MinuteCounts(28, queued=12), ended(5.0))
    port = served(minute, handling=handling, **changes)
    failed = said.connections_failed(12, 40, (), row())
    if changes:
        failed = said.flows_failed(12, 28, 0, 0, row())
    assert told_of(port) == (rules.clients_failed, [SERVED_NOW, failed])
    if not changes:
        minute = found(MinuteCounts(28, 0, 14, queued=12), ended(5.0))
        parts = ((14, "ended without an answer"), (12, "had waited for an endpoint"))
        why = said.because(minute.cause)
        failed = said.connections_failed(26, 40, parts, why)
        assert many_failed(replace(port, last_minute=minute)) == failed
        # Without an endpoint, clients don't wait because of the limit.
        port = make_port(endpoints=(), handling=handling, last_minute=LastMinuteFacts(0, queued=5))
        assert many_failed(port) == said.connections_failed(5, 5, (), said.none_in_time())


@pytest.mark.parametrize(
    ("minute", "changes"),
    [
        pytest.param((100, 3), {}, id="refused"),
        pytest.param((40, 0, 0, 0, 2), {}, id="cut"),
        pytest.param((100, 3), UDP, id="flows"),
        pytest.param((40, 0, 2), UDP, id="unanswered-flows"),
        pytest.param((60, 0, 0, 0, 0, 0, 4), {}, id="saved-late"),
    ],
)
def test_failures_reported_before_are_reported_until_their_share_halves(minute, changes):
    for was_many in (False, True):
        port = served(LastMinuteFacts(*minute, was_many=was_many), **changes)
        assert (port.state.word is PortState.PARTLY_ANSWERING) is was_many
    few = LastMinuteFacts(minute[0] * 2, *minute[1:], was_many=True)
    assert served(few, **changes).state.word is PortState.SERVED


def test_a_service_that_repeatedly_loses_all_its_endpoints_is_reported():
    minute = found(MinuteCounts(8, flaps=3), returned(5.0))
    flaps = said.flaps(3, "shop", "web")
    assert many_flaps(served(minute)) == flaps
    assert served(minute).state.hint == flaps.hint
    assert many_flaps(served(found(MinuteCounts(8, flaps=2)))) is None, "two flaps are reported"
    # The flaps explain failed clients.
    both = found(MinuteCounts(8, 12, flaps=30), returned(5.0))
    assert (both.cause.count, both.flaps) == (12, 30)
    # Flaps don't explain refused clients, which may have had no endpoint.
    refused = served(found(MinuteCounts(60, 40, flaps=9)))
    assert many_failed(refused) == said.connections_failed(
        40, 100, (), said.because_of_flaps(9, "shop", "web")
    )
    assert refused.state.hint == flaps.hint


def test_late_udp_replies_are_not_reported_as_missing():
    stalled, late = ended(5.0, Failure.NO_DATAGRAM), ended(4.0, Failure.NO_DATAGRAM)
    late[1].came_late(8.0)
    facts = found(MinuteCounts(12, 0, 1, late=9), stalled, late)
    assert facts.cause == answers_flows_late(POD).replace(count=9, last_at=1004.0)
    clause = said.flows_answered_late(9, 12, said.because(facts.cause))
    assert told_of(served(facts, **UDP)) == (rules.answers_are_missed, [clause])


@pytest.mark.parametrize(
    ("counts", "changes", "row"),
    [
        pytest.param((28, 4), {}, said.saved_late, id="many"),
        pytest.param((40, 3), {}, None, id="few-of-many"),
        pytest.param((4, 1), {}, None, id="one"),
        pytest.param((28, 4), UDP, said.flows_answered_late, id="udp"),
    ],
)
def test_connections_saved_late_are_reported_if_many(counts, changes, row):
    connections, late = counts
    endpoints = returned(5.0, Failure.SILENT), returned(6.0, Failure.REFUSED)
    facts = found(MinuteCounts(connections, late=late), *endpoints)
    assert facts.cause == lately_of(silent(POD), late, 5.0)
    port = served(facts, **changes)
    clause = row and row(late, connections, said.because(facts.cause))
    assert (many_saved_late(port) or many_unanswered(port)) == clause
    state = PortState.PARTLY_ANSWERING if row else PortState.SERVED
    assert port.state.word is state


def test_connections_saved_late_without_a_late_endpoint_are_attributed_to_removed_endpoints():
    facts = found(MinuteCounts(28, late=4))
    clause = said.saved_late(4, 28, said.at_former_endpoints("from"))
    assert told_of(served(facts)) == (rules.answers_are_late, [SERVED_NOW, clause])


def test_flows_to_an_intermittently_closed_port_are_refused_or_unanswered():
    stalled, refused = ended(5.0, Failure.NO_DATAGRAM), returned(4.0, Failure.REFUSED)
    facts = found(MinuteCounts(40, 5, 13), stalled, refused)
    assert facts.cause == lately_of(refuses(POD), 5, 4.0)
    clause = said.flows_failed(18, 40, 5, 13, said.because(facts.cause))
    assert told_of(served(facts, **UDP)) == (rules.answers_are_missed, [clause])
    # Clients of a protocol without answers expect none.
    silent = replace(served(facts, **UDP), sent_bytes=0, endpoints=())
    assert many_failed(silent) == said.flows_failed(5, 40, 5, 0, said.because(facts.cause))
    # For TCP, refused and unanswered connections are distinguished.
    assert found(MinuteCounts(40, 5, 13), ended(5.0), refused).cause.row is resets


def test_stalled_open_flows_take_precedence_over_flows_of_the_last_minute():
    endpoint = replace(READY, stalled=2)
    port = served(LastMinuteFacts(12, unanswered=9), endpoint, stalled=2, active=4, **UDP)
    assert many_unanswered(port) == said.stalled(2, 4, "UDP", READY.address, 1, has_former=False)


def test_an_endpoint_with_late_flows_a_minute_ago_does_not_count_as_removed():
    late = ended(5.0, Failure.NO_DATAGRAM)
    late[1].came_late(8.0)
    assert not found(MinuteCounts(12, late=9), late, now=90.0).have_left


def test_a_late_endpoint_is_not_blamed_for_another_endpoints_resets():
    endpoints = returned(5.0, Failure.SILENT), cut(6.0, address=OTHER)
    minute = found(MinuteCounts(60, endpoint_aborts=10, late=6), *endpoints)
    assert minute.cause == lately_of(cuts_off(OTHER), 10, 6.0)
    why, port = said.because(minute.cause), served(minute)
    assert many_saved_late(port) == said.saved_late(6, 60)
    assert many_failed(port) == said.connections_failed(10, 60, (), why)
    minute = found(MinuteCounts(60, endpoint_aborts=6, late=10), *endpoints)
    assert minute.cause == lately_of(silent(POD), 10, 5.0)
    why, port = said.because(minute.cause), served(minute)
    assert many_saved_late(port) == said.saved_late(10, 60, why)
    assert many_failed(port) == said.connections_failed(6, 60, ())


def ended_so(owed, connections=99):
    """Return an endpoint with connections, of which ``owed`` ended with an unanswered request."""
    counters = EndpointCounters()
    counters.unanswered_requests, counters.connections = owed, connections
    return counted(counters)


@pytest.mark.parametrize(
    ("owed", "connections", "seldom"),
    [
        pytest.param(4, 99, True, id="never-before"),
        pytest.param(9, 99, True, id="seldom-before"),
        pytest.param(14, 99, False, id="a-habit"),
        pytest.param(4, 14, True, id="few-of-a-new-service"),
        pytest.param(4, 4, False, id="all-of-a-new-service"),
        pytest.param(4, 7, False, id="most-of-a-new-service"),
    ],
)
def test_unanswered_requests_are_reported_as_usual_or_unusual(owed, connections, seldom):
    total = min(12, connections)
    failed_at = {
        POD: MinuteCounts(unanswered_requests=3),
        OTHER: MinuteCounts(unanswered_requests=1),
    }
    endpoints = (ended_so(0, 0), ended_so(owed, connections))
    minute = MinuteCounts(total, unanswered_requests=4)
    facts = found(minute, *endpoints, failed_at=lambda one, _: failed_at[one])
    assert (facts.cause, facts.is_unusual) == (owes_answers(POD).replace(count=3), seldom)
    port = served(facts, **SENT)
    clause = said.ended_unanswered(4, total, said.because(facts.cause))
    now = [SERVED_NOW] if seldom else []
    assert told_of(port) == (rules.last_words_unanswered, [*now, clause])
    assert port.state.hint == remedy(facts.cause)
    state = PortState.PARTLY_ANSWERING if seldom else PortState.UNKNOWN
    assert port.state.word is state


@pytest.mark.parametrize(
    ("one", "other", "are_pinned", "is_unusual"),
    [
        pytest.param((0, 50), (40, 50), False, True, id="one-hangs"),
        pytest.param((0, 50), (40, 50), True, False, id="its-clients-may-send-last"),
        pytest.param((20, 50), (40, 50), False, False, id="both-omit-answers"),
        pytest.param((0, 50), (20, 50), False, False, id="fewer-than-half-of-one"),
        pytest.param((0, 9), (40, 50), False, False, id="nothing-to-compare-with"),
    ],
)
def test_unanswered_requests_are_unusual_if_another_endpoint_answers_all_requests(
    one, other, are_pinned, is_unusual
):
    minute = MinuteCounts(12, unanswered_requests=4)
    facts = found(minute, ended_so(*one), ended_so(*other), are_pinned=are_pinned)
    assert facts.is_unusual is is_unusual


@pytest.mark.parametrize(
    ("owed", "left_open", "is_unusual"), [(20, 11, True), (20, 10, False), (60, 60, False)]
)
def test_unanswered_requests_left_open_are_unusual_if_in_the_minority(owed, left_open, is_unusual):
    endpoint = ended_so(owed)
    endpoint[1].left_open = left_open
    facts = found(MinuteCounts(12, unanswered_requests=4), endpoint)
    assert facts.is_unusual is is_unusual


def test_connections_left_open_by_an_endpoint_count_as_ended_when_endpoints_are_compared():
    hanging, other = ended_so(12, 14), ended_so(0, 14)
    hanging[1].active = 14
    facts = found(MinuteCounts(28, unanswered_requests=12), other, hanging)
    assert facts.is_unusual


def test_unanswered_requests_are_not_reported_if_they_are_few_or_worse_failures_exist():
    assert (
        many_unanswered_requests(served(LastMinuteFacts(40, unanswered_requests=3), **SENT)) is None
    )
    _, (_, failed) = told_of(served(LastMinuteFacts(40, refused=9, unanswered_requests=10), **SENT))
    assert failed == said.connections_failed(9, 49, ())


def test_an_endpoint_without_recent_unanswered_requests_is_not_named():
    facts = found(MinuteCounts(12, unanswered_requests=4))
    assert (facts.cause, facts.is_unusual) == (None, True)


@pytest.mark.parametrize(("idle", "is_told"), [(3, True), (1, False)])
def test_idle_connections_closed_by_the_proxy_are_reported_if_many(idle, is_told):
    facts = found(MinuteCounts(12, idle=idle), ended_so(0))
    assert (facts.idle, facts.cause) == (idle, None)
    port, clause = served(facts, **SENT), said.ended_idle(idle, 12)
    assert many_idle(port) == (clause if is_told else None)
    assert port.state.hint == (clause.hint if is_told else "")
