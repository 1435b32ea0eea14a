"""Tests that each Service port is judged once, from all facts, for all outputs."""

import pytest

from tests.unit.causes.samples import a_note
from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import refuses, silent, silent_to_some
from userspace_proxy.causes.notes import node_port_named
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import (
    NOTES_MAX,
    external_ip_off,
    health_check_fails,
    more_notes,
    none_was_local,
    not_listening,
    object_kept,
    of_object,
    rejected,
    source_denied,
)
from userspace_proxy.causes.slices import none_local, slice_rejected, unnamed_slice_rejected
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis.clauses import sentence_of, stated
from userspace_proxy.diagnosis.judge import diagnose, judge
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.facts import (
    LAST_MINUTE_S,
    Level,
    PortState,
    RejectedFacts,
    SourceFacts,
    StateFacts,
    Waits,
)
from userspace_proxy.facts.port import ClauseFacts
from userspace_proxy.model import DataPath, Handling, Side, Taken

from ..status.views import (
    NOW,
    make_endpoint,
    make_health_check,
    make_port,
    make_two_sides,
    replace,
)
from .cases import (
    ADMITS,
    CLOSING,
    EJECTED,
    ELSEWHERE,
    ENDING,
    IN_KERNEL,
    OTHER_NODE,
    PAST,
    TOO_SLOW,
    UNHEARD,
    WAITING,
)
from .samples import READY, UDP, failing, lately_of

LINE = "m/web.yaml:13: metadata.labels: kubernetes.io/service-name is missing"
NO_SLICE = as_read(CauseCode.NO_SLICE, "no slice")
WEB = ("shop/web",)


def test_each_cause_is_listed_once_with_the_deciding_cause_first():
    in_use, note = not_listening("in use", "stop it"), a_note("a note")
    twice = {"problem": "in use", "hint": "stop it", "notes": (in_use, note)}
    state = judge(make_port(endpoints=(READY, EJECTED), **twice))
    assert state.causes == (in_use, EJECTED.cause, note)
    assert (state.code, state.hint) == (CauseCode.NOT_LISTENING, "stop it")


def test_a_port_with_a_ready_endpoint_has_no_causes():
    state = judge(make_port(endpoints=(READY,)))
    assert (state.causes, state.code, state.hint, state.is_problem) == ((), None, "", False)


def test_clauses_are_joined_and_refer_to_their_causes():
    port = make_port(endpoints=(EJECTED,), notes=("a note",))
    _, verdict = decide(port)
    sentence = sentence_of(verdict.clauses, verdict.lead)
    assert judge(port).sentence == sentence
    assert judge(port).clauses == (ClauseFacts(sentence[0].lower() + sentence[1:], (0,)),)
    beside = judge(make_port(endpoints=(READY, EJECTED)))
    assert beside.clauses[1:] == (ClauseFacts(said.others_serve(1).text),)
    assert beside.stated == [EJECTED.cause]
    quiet = judge(make_port(is_quiet=True))
    assert [clause.is_dated for clause in quiet.clauses] == [False, True]


def test_a_clause_with_a_reason_states_the_reasons_cause():
    minute = replace(
        make_port().last_minute, connections=8, refused=12, cause=lately_of(refuses("a:1"))
    )
    state = judge(make_port(endpoints=(READY,), last_minute=minute))
    assert [clause.causes for clause in state.clauses] == [(), (0,)]
    assert state.stated == [minute.cause]


def test_the_deciding_clause_provides_the_remedy():
    minute = replace(make_port().last_minute, connections=8, flaps=3)
    port = make_port(endpoints=(READY,), last_minute=minute, path=IN_KERNEL)
    _, verdict = decide(port)
    assert [bool(clause.hint) for clause in verdict.clauses] == [True, True]
    assert judge(port).hint == said.flaps(3, "shop", "web").hint
    limited = {"waits": Waits(5, 4.0), "handling": Handling(max_connections=1)}
    hint = judge(make_port(endpoints=(TOO_SLOW,), **limited)).hint
    assert hint == f"{said.at_limit(5, 4.0, 'TCP', 1, False, False).hint}. {remedy(TOO_SLOW.cause)}"


def test_clients_outside_the_source_ranges_are_reported_but_not_as_a_problem():
    denied, before = source_denied(("198.51.100.0/24",)).replace(count=3), none_was_local()
    state = judge(make_port(endpoints=(READY,), turned_away=(denied, before)))
    assert (state.level, state.causes, state.is_problem) == (Level.OK, (denied, before), False)
    assert state.stated == [denied, before]
    # If the policy drops clients now, the cause of the port already states this.
    elsewhere = none_local(1, 0, "node-b", "externalTrafficPolicy")
    both = {"is_dropping": True, "turned_away": (elsewhere.replace(count=2), denied)}
    assert judge(make_port(cause=elsewhere, **both)).causes == (elsewhere, denied)


def test_an_alert_ends_once_the_failures_of_an_endpoint_are_past():
    due = replace(EJECTED, ejected_for_s=0.0)
    states = [judge(make_port(endpoints=(one,))) for one in (EJECTED, due, PAST, CLOSING)]
    assert [state.is_problem for state in states] == [True, True, False, True]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"endpoints": (UNHEARD,), "sent_bytes": 0, **UDP}, id="unanswered"),
        pytest.param(ADMITS, id="none-admitted"),
        pytest.param({"endpoints": (ENDING,)}, id="about-to-vanish"),
    ],
)
def test_unanswered_or_denied_clients_and_leaving_endpoints_need_attention_but_no_alert(changes):
    port = make_port(**{"endpoints": (READY,), **changes})
    assert (port.mark, port.state.is_problem) == (Level.ATTENTION, False)
    assert port.state.code is port.state.causes[0].code
    assert port.state.hint == remedy(port.state.causes[0]) != ""


DROPPING = {"endpoints": (OTHER_NODE,), "cause": ELSEWHERE, "is_dropping": True}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({**DROPPING, "admits": ("198.51.100.0/24",)}, id="dropped-by-design"),
        pytest.param(WAITING, id="would-wait"),
        pytest.param({"path": IN_KERNEL}, id="kernel"),
    ],
)
def test_a_port_without_a_problem_whose_clients_may_be_unserved_has_no_success_mark(changes):
    port = make_port(**changes)
    assert (port.state.level, port.mark) == (Level.OK, None)


def empty():
    return make_port(endpoints=(), cause=NO_SLICE)


def rejected_as(kind, namespace, name, services=()):
    return RejectedFacts(LINE, f"{kind} {namespace}/{name}", kind, namespace, name, services)


def given(*ports, rejected=(), health_checks=()):
    return diagnose(ports, SourceFacts(rejected=rejected), health_checks)


def test_a_rejected_slice_is_the_cause_of_a_port_without_slices():
    before = empty()
    (port,) = given(before, rejected=[rejected_as("EndpointSlice", "shop", "web-1", WEB)])
    cause = slice_rejected("EndpointSlice shop/web-1", LINE)
    assert (port.cause, port.notes, port.plan) == (cause, (), before.plan)
    assert (port.state.level, port.state.causes) == (Level.ATTENTION, (cause,))
    assert port.state.sentence == sentence_of([said.refused(cause)])
    assert before.cause is NO_SLICE, "the shown port was changed"


@pytest.mark.parametrize("name", ["web-1", "web", "web-1-x"])
def test_a_rejected_slice_without_a_service_label_is_assigned_by_its_name(name):
    (port,) = given(empty(), rejected=[rejected_as("EndpointSlice", "shop", name)])
    cause = unnamed_slice_rejected(f"EndpointSlice shop/{name}", LINE, "web")
    assert port.state.causes == (cause,)


def test_a_slice_with_a_service_label_takes_precedence():
    unnamed = rejected_as("EndpointSlice", "shop", "web-1")
    named = rejected_as("EndpointSlice", "shop", "abc", WEB)
    (port,) = given(empty(), rejected=[unnamed, named])
    assert port.cause == slice_rejected("EndpointSlice shop/abc", LINE)


@pytest.mark.parametrize(
    ("item", "is_empty"),
    [
        pytest.param(("EndpointSlice", "shop", "web-1"), False, id="port-with-slices"),
        pytest.param(("EndpointSlice", "shop", "webcam-1"), True, id="another-name"),
        pytest.param(("EndpointSlice", "test", "web-1"), True, id="another-namespace"),
        pytest.param(("Service", "shop", "web-1"), True, id="another-kind"),
    ],
)
def test_a_rejected_object_does_not_affect_a_port_with_slices_or_of_another_service(item, is_empty):
    port = empty() if is_empty else make_port()
    (same,) = given(port, rejected=[rejected_as(*item)])
    assert same is port


def test_a_mistake_in_a_served_service_gets_a_note_on_its_first_port():
    line = "m/b.yaml:1: Service shop/web is already defined in m/a.yaml:1"
    ports = make_port(), make_port(port="metrics"), make_port("cart")
    first, *others = given(*ports, rejected=[RejectedFacts(line, services=WEB)])
    assert (first.state.level, first.state.word) == (Level.ATTENTION, PortState.SERVED)
    note = of_object(line)
    assert first.state.causes == (note,)
    assert first.state.sentence == sentence_of([said.served_by(2, 0), stated(note)])
    assert all(one is port for one, port in zip(others, ports[1:], strict=True))


def test_mistakes_precede_the_plans_notes_and_are_bounded():
    items = [
        RejectedFacts(f"m/web.yaml:{i}: no", "Service shop/web", services=WEB) for i in range(99)
    ]
    (port,) = given(make_port(notes=("a is unknown",)), rejected=items)
    lines = [f"m/web.yaml:{i}: no" for i in range(NOTES_MAX)]
    listed = [rejected("Service shop/web", line) for line in lines]
    assert port.notes == (*listed, more_notes(), a_note("a is unknown"))


def test_a_sources_note_with_a_line_replaces_the_plans_note():
    taken = node_port_named("spec.healthCheckNodePort", "30202/TCP", "shop/cart")
    item = RejectedFacts.at("m/web.yaml:3", say(taken), services=WEB, note=taken)
    (port,) = given(make_port(notes=(taken, "a is unknown")), rejected=[item])
    assert port.notes == (taken.replace(within="m/web.yaml:3"), a_note("a is unknown"))
    assert say(port.notes[0]) == item.line


def test_an_object_kept_despite_mistakes_has_a_note_with_the_first_mistake():
    items = [RejectedFacts.at(f"m/web.yaml:{i}", "no") for i in (3, 7)]
    items = [replace(item, keeps=WEB) for item in items]
    (port,) = given(make_port(), rejected=items)
    assert port.notes == (object_kept("m/web.yaml:3"),)
    off = external_ip_off("203.0.113.7", "external IPs are off")
    (partly,) = given(replace(make_port(), notes=(off,)), rejected=items)
    assert partly.notes == (object_kept("m/web.yaml:3"), off)
    assert partly.state.word == PortState.PARTLY_SERVED


def test_an_unserved_health_check_gets_a_note_on_its_service():
    taken = "its port is in use"
    checks = (
        make_health_check("shop/web", 30201, 1, taken),
        make_health_check("shop/cart", 30202, 1),
    )
    cart = make_port("cart")
    web, same = given(make_port(), cart, health_checks=checks)
    assert web.state.causes == (health_check_fails(taken),)
    assert same is cart


def test_an_unserved_health_check_gets_a_note_on_the_side_that_load_balancers_use():
    inside, outside = make_two_sides()
    checks = (make_health_check("shop/front", 30201, 1, "its port is in use"),)
    inside, outside = given(inside, outside, health_checks=checks)
    assert [len(side.notes) for side in (inside, outside)] == [0, 1]


def test_a_given_judge_determines_the_state_of_a_port():
    planned = StateFacts(Level.OK, PortState.SERVED)
    source = SourceFacts(rejected=[rejected_as("Service", "shop", "web", WEB)])
    (port,) = diagnose([make_port()], source, judge=lambda port: planned)
    assert port.state is planned


def test_adding_a_note_keeps_the_path_and_the_plan():
    kernel = replace(make_port(), path=PathView(DataPath.KERNEL, kernel_connections=7))
    kernel.taken_by = "ip evil pre"
    (port,) = given(kernel, rejected=[rejected_as("Service", "shop", "web", WEB)])
    assert (port.path, port.kernel_connections) == (DataPath.KERNEL, 7)
    assert (port.plan, port.taken_by) == (kernel.plan, "ip evil pre")


POD = "10.244.1.191:8080"
TIMED_OUT = silent(POD).replace(count=46, first_at=NOW - 90, last_at=NOW)


def two_sides(cause=TIMED_OUT, *, seconds_ago=1.0, inside=None, **changes):
    """Return both sides of a Service port, of which only the inside has answered clients."""
    answers = make_endpoint(POD, answered_at=NOW - seconds_ago, cause=inside)
    fails = failing(cause, **changes)
    return (
        make_port("web", endpoints=(answers,)),
        make_port("web", side=Side.EXTERNAL, endpoints=(fails, make_endpoint("10.244.1.9:8080"))),
    )


def test_an_endpoint_answering_the_other_side_does_not_count_as_hung():
    inside, outside = two_sides()
    outside = replace(outside, endpoints=outside.endpoints[:1])
    outside.taken_by = "ip evil pre"
    served, failed = given(inside, outside)
    assert served is inside
    seen = {"count": 46, "first_at": NOW - 90, "last_at": NOW}
    cause = silent_to_some(POD).replace(**seen)
    assert (failed.state.causes, failed.endpoints[0].cause) == ((cause,), cause)
    assert failed.state.sentence == sentence_of([stated(cause)], said.fail())
    assert failed.state.hint == remedy(cause)
    assert (failed.plan, failed.taken_by) == (outside.plan, "ip evil pre")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cause": refuses(POD).replace(last_at=NOW)}, id="another-failure"),
        pytest.param({"is_past": True}, id="a-while-ago"),
        pytest.param({"seconds_ago": LAST_MINUTE_S}, id="others-answered-a-while-ago"),
        pytest.param(
            {"cause": TIMED_OUT.replace(first_at=NOW - 0.5)}, id="others-answered-before-it-failed"
        ),
        pytest.param({"inside": TIMED_OUT}, id="others-fail-too"),
    ],
)
def test_an_endpoint_counts_as_answering_other_clients_only_with_evidence(changes):
    ports = two_sides(**changes)
    assert all(a is b for a, b in zip(given(*ports), ports, strict=True))


def test_only_two_sides_of_the_same_port_and_family_are_judged_together():
    inside, outside = two_sides()
    changes = {"service": "other"}, {"namespace": "other"}, {"family": "IPv6"}
    ports = (inside, *(replace(outside, **one) for one in changes))
    assert all(a is b for a, b in zip(given(*ports), ports, strict=True))
    assert given(inside)[0] is inside


def test_endpoints_without_a_failure_are_not_copied():
    inside, outside = two_sides()
    changed = given(inside, outside)[1]
    assert changed.endpoints[1] == outside.endpoints[1]
    assert changed.endpoints[0] != outside.endpoints[0]
    assert outside.endpoints[0].cause is TIMED_OUT, "the shown port was changed"


class Counting:
    """A judge that records the Service ports that it judges."""

    def __init__(self):
        self.judged = []

    def __call__(self, port):
        self.judged.append((port.name, port.side))
        return judge(port)


def mistake(number):
    return SourceFacts(
        rejected=[RejectedFacts(f"m.yaml:{number}: no", "Service shop/web", services=WEB)]
    )


def test_each_service_port_is_evaluated_once_until_it_changes():
    counting, cart, (inside, outside) = Counting(), make_port("cart"), two_sides()
    ports = [cart, inside, outside]

    def shown(source):
        counting.judged.clear()
        return diagnose(ports, source, judge=counting)

    first = shown(mistake(1))
    assert counting.judged == [(port.name, port.side) for port in ports]
    assert [one is port for one, port in zip(first, ports, strict=True)] == [True, False, False]
    again = shown(mistake(1))
    assert counting.judged == []
    assert all(a is b for a, b in zip(again, first, strict=True))
    # Another mistake in the Service only adds a note to its first port.
    other = shown(mistake(2))
    assert counting.judged == [(inside.name, inside.side)]
    assert [a is b for a, b in zip(other, first, strict=True)] == [True, False, True]
    # Only a port with new facts is judged again.
    ports[0] = make_port("cart")
    assert shown(mistake(2))[0] is ports[0]
    assert counting.judged == [(cart.name, cart.side)]
    # Without the mistake, only the facts of the port determine its state.
    assert shown(SourceFacts())[1] is inside
    assert counting.judged == [(inside.name, inside.side)]
    assert inside.state.causes == ()


def test_a_chain_that_may_drop_packets_makes_userspace_ports_of_its_family_unknown():
    dropped = {"IPv4/TCP": Taken("x drops packets to Services", "", "ip x", is_certain=False)}
    ports = [make_port(), make_port(family="IPv6"), make_port(path=IN_KERNEL)]
    judged = diagnose(ports, SourceFacts(), dropped=dropped)
    assert [bool(port.doubt) for port in judged] == [True, False, False]
    assert [port.mark for port in judged] == [None, Level.OK, None]
    assert diagnose(ports, SourceFacts())[0].mark is Level.OK


def test_a_judged_copy_of_a_port_does_not_keep_earlier_copies():
    port = make_port()
    copies = [diagnose([port], mistake(number))[0] for number in range(9)]
    assert [len(copy.notes) for copy in copies] == [1] * 9, "a copy has earlier mistakes"
    _, kept = port.judged
    assert (kept is copies[-1], kept.judged, port.notes) == (True, None, ())
    assert port.state is kept.state, "the port lacks its judged state"
