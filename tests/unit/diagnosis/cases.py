"""Service ports in the order of the rules, each with its deciding rule and its clauses."""

from typing import NamedTuple

import pytest

from tests.unit.causes.samples import a_note
from userspace_proxy.causes.cause import CauseCode, When, as_read
from userspace_proxy.causes.endpoints import (
    answers_flows_late,
    answers_late,
    cuts_off,
    denies,
    fault_on_purpose,
    no_datagram,
    out_of_client_ports,
    out_of_ports,
    owes_answers,
    refuses,
    resets,
    sends_nothing,
    silent,
)
from userspace_proxy.causes.services import (
    dials_other_port,
    external_ip_of,
    external_ip_off,
    forwarding_unanswered,
    hop_limit_reached,
    no_proxy_header,
    not_listening,
    source_denied,
)
from userspace_proxy.causes.slices import about_to_vanish
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis import rules
from userspace_proxy.diagnosis.clauses import Clause, stated, stated_in_short
from userspace_proxy.diagnosis.rules import Rule
from userspace_proxy.facts import LastMinuteFacts, Level, PortState, Waits
from userspace_proxy.model import DataPath, Handling, Hold, ProxyProtocol, Taken
from userspace_proxy.policy import PathDecision

from ..status.views import make_endpoint, make_frontend, make_standby, replace
from .samples import POD, READY, UDP, failing, lately_of

OK, ATTENTION, TROUBLE = Level.OK, Level.ATTENTION, Level.TROUBLE
A, B = "10.244.1.8:8080", "10.244.1.9:8080"
REFUSES, SILENT = refuses(A).replace(count=9), silent(B).replace(count=2)
REFUSED = REFUSES.replace(when=When.PAST)
RESETS, NOTHING = resets(B).replace(count=8), sends_nothing(B).replace(count=3)
LATE = answers_late(B, 2.5).replace(count=3)
FLOWS_LATE = answers_flows_late(B).replace(count=3)
MUTE = no_datagram(B).replace(count=3)
MUTE_ONCE = MUTE.replace(before=REFUSES, when=When.PAST)
MUTE_SINCE = MUTE.replace(before=REFUSES)
DENIES = denies(POD, "10.244.0.123").replace(count=5)
DENIED = DENIES.replace(when=When.PAST)
SLOW = fault_on_purpose("10.244.1.7:8080", ("latency(latency=5) downstream",))
FAULT = fault_on_purpose(A, ("refuse",))
NOTE, NOT_LOCAL = a_note("annotation x: y is used"), "1 endpoint: 1 not on this node"
NO_NAME = as_read(CauseCode.PORT_NAME_MISSING, 'they have no port named "http"; they have "web"')
NO_READY = as_read(CauseCode.NOT_READY, "1 endpoint: not ready")
ELSEWHERE = as_read(CauseCode.NOT_READY, NOT_LOCAL)
OTHERS = dials_other_port(("10.96.7.1:81/TCP",), ("10.96.7.1:80/TCP",)).replace(count=44)
DENYING = source_denied(("198.51.100.0/24",)).replace(count=2)

EJECTED, ALSO_EJECTED = failing(REFUSES, ejected_for_s=12.0), failing(SILENT, ejected_for_s=3.0)
FAULTY = failing(FAULT, ejected_for_s=12.0)
PAST = failing(REFUSED, is_past=True)
CLOSING, RESETTING = failing(RESETS), failing(RESETS, resets=8)
HANGING, UNHEARD = failing(NOTHING, connections=3), failing(MUTE, connections=3)
LATE_TO_FLOWS = failing(FLOWS_LATE, connections=3)
UNKNOWN_CAUSE = make_endpoint(A, ejected_for_s=12.0)
ENDING, OURS = make_endpoint(B, "terminating"), make_endpoint("10.96.1.1:80", "refused: x", False)
NOT_READY = make_endpoint(B, "not ready", False)
OTHER_NODE = make_endpoint("10.244.2.9:8080", "not on this node", False)
CLUSTER_IP = make_frontend("10.96.7.1:80", "ClusterIP", "proxy port 20001")
HELD = make_frontend("192.0.2.10:30080", "NodePort", "held by another program", is_reached=False)
IN_USE, HELD_BY = "cannot listen: Address already in use", "node port 30080/TCP is held by nginx"
HOLD, ONE = Handling(hold=Hold(60)), Handling(max_connections=1)
WAITING = {"endpoints": (NOT_READY,), "cause": NO_READY, "handling": HOLD}
LIMITED = {"handling": Handling(max_connections=100)}
ADMITS = {"admits": ("198.51.100.0/24",), "turned_away": (DENYING,), "connections": 0}
IN_KERNEL = PathDecision(DataPath.KERNEL)
MUTE_PORT = {"connections": 0, "received_bytes": 0, "sent_bytes": 0}
SERVED_BY_1, WOULD_WAIT = said.served_by(1, 0), said.would_wait(60, NO_READY)
OF_KERNEL = said.led_by_kernel(1, 0, "shop/web", "TCP", "")
TOO_SLOW = failing(answers_late(POD, 4.0).replace(count=43))
PARTS = ((21, "not connected"), (7, "ended without an answer"))
WAS_REFUSED, WAS_RESET = lately_of(refuses(B)), lately_of(resets(B))
FLAPS = {"endpoints": (failing(WAS_REFUSED),), "last_minute": LastMinuteFacts(30, 12)}
LOST, NOT_ALWAYS = lately_of(resets(READY.address)), said.others_serve(1, always=False)
FAILED = LastMinuteFacts(12, unanswered=4, cause=LOST)


class Expected(NamedTuple):
    """The expected verdict on the facts ``changes``; its clauses are in order."""

    rule: Rule
    level: Level
    state: PortState
    clauses: list[Clause]
    changes: dict[str, object]


AT_TIMES = (ATTENTION, PortState.PARTLY_ANSWERING)
USUAL = {
    rules.not_served: (TROUBLE, PortState.NOT_SERVED),
    rules.dropped_from_outside: (OK, PortState.DROPPED),
    rules.dropped: (ATTENTION, PortState.DROPPED),
    rules.held_without_endpoint: (ATTENTION, PortState.HOLDING),
    rules.refused: (ATTENTION, PortState.REFUSED),
    rules.fault_on_purpose: (ATTENTION, PortState.FAULT_ON_PURPOSE),
    rules.late_at_limit: (ATTENTION, PortState.AT_LIMIT),
    rules.held_while_all_fail: (ATTENTION, PortState.HOLDING),
    rules.some_are_denied: AT_TIMES,
    rules.silent_to_some: AT_TIMES,
    rules.flows_are_late: (ATTENTION, PortState.UNANSWERED),
    rules.never_answered: (ATTENTION, PortState.UNANSWERED),
    rules.failed_before: (ATTENTION, PortState.FAILED_BEFORE),
    rules.cut_off: AT_TIMES,
    rules.unanswered: (ATTENTION, PortState.UNANSWERED),
    rules.closed: (ATTENTION, PortState.NOT_ANSWERING),
    rules.all_fail: (TROUBLE, PortState.NOT_ANSWERING),
    rules.unanswered_in_kernel: (TROUBLE, PortState.NOT_ANSWERING),
    rules.lacks_ports: (TROUBLE, PortState.OUT_OF_PORTS),
    rules.clients_are_mistaken: (ATTENTION, PortState.REFUSED),
    rules.some_fail: AT_TIMES,
    rules.at_limit: (ATTENTION, PortState.AT_LIMIT),
    rules.lacks_client_ports: (ATTENTION, PortState.OUT_OF_CLIENT_PORTS),
    rules.answers_are_missed: AT_TIMES,
    rules.clients_failed: AT_TIMES,
    rules.comes_and_goes: AT_TIMES,
    rules.answers_are_late: AT_TIMES,
    rules.last_words_unanswered: AT_TIMES,
    rules.none_admitted: (ATTENTION, PortState.NONE_ADMITTED),
    rules.lacks_addresses: (ATTENTION, PortState.PARTLY_SERVED),
    rules.others_fail_inside: AT_TIMES,
    rules.has_notes: (ATTENTION, PortState.SERVED),
    rules.others_dialled: (ATTENTION, PortState.REFUSED),
    rules.about_to_lose_all: (ATTENTION, PortState.SERVED),
    rules.may_be_taken: (OK, PortState.UNKNOWN),
    rules.served: (OK, PortState.SERVED),
}
"""By rule: the usual level and state of the Service ports that it decides."""


def case(name, rule, *clauses, level=None, state=None, **changes):
    """Return a case: the facts about a Service port, its deciding rule and its clauses."""
    of_rule = USUAL[rule]
    told = Expected(rule, level or of_rule[0], state or of_rule[1], [*clauses], changes)
    return pytest.param(told, id=name)


CASES = [
    case("port-in-use", rules.not_served,
         said.not_served(PortState.NOT_SERVED, "", not_listening(IN_USE, "")), problem=IN_USE),
    case("node-port-held", rules.not_served,
         said.not_served(PortState.PARTLY_SERVED, "", not_listening(HELD_BY, "stop it")),
         state=PortState.PARTLY_SERVED, frontends=(CLUSTER_IP, HELD), problem=HELD_BY,
         hint="stop it"),
    case("every-frontend-held", rules.not_served,
         said.not_served(PortState.NOT_SERVED, "", not_listening(HELD_BY, "stop it")),
         frontends=(HELD,), problem=HELD_BY, hint="stop it"),
    case("other cause", rules.not_served,
         said.not_served(PortState.NOT_SERVED, "", not_listening(HELD_BY, "")),
         said.other_cause(NO_NAME), endpoints=(), problem=HELD_BY, cause=NO_NAME),
    case("outside-dropped", rules.dropped_from_outside, said.dropped_from_outside(ELSEWHERE),
         endpoints=(OTHER_NODE,), reason=NOT_LOCAL, admits=("127.0.0.0/8",),
         outside=(), usable=(OTHER_NODE.address,)),
    case("all-dropped", rules.dropped, said.dropped(ELSEWHERE), endpoints=(OTHER_NODE,),
         reason=NOT_LOCAL, admits=()),
    case("holding-none", rules.held_without_endpoint, WOULD_WAIT, level=OK, **WAITING),
    case("holding", rules.held_without_endpoint, said.holding(3, 12.0, "TCP"), stated(NO_READY),
         waits=Waits(3, 12.0), **WAITING),
    case("holding-without-effect", rules.held_without_endpoint, WOULD_WAIT, said.waited_in_vain(3),
         waits=Waits(timeouts=1, overflows=1, client_aborts=1, total=3), **WAITING),
    case("holding-and-one-was-served", rules.held_without_endpoint, WOULD_WAIT, level=OK,
         waits=Waits(timeouts=2, total=3), **WAITING),
    case("holding-after-others-timed-out", rules.held_without_endpoint, said.holding(2, 0.2, "TCP"),
         stated(NO_READY), said.connections_failed(109, 109, (), said.none_in_time()),
         waits=Waits(2, 0.2), last_minute=LastMinuteFacts(0, queued=109), **WAITING),
    case("holding-and-not-scaled", rules.held_without_endpoint, said.holding(2, 0.2, "TCP"),
         stated(NO_READY), said.not_woken("cannot scale fn/mailer"),
         waits=Waits(2, 0.2, problem="cannot scale fn/mailer"), **WAITING),
    case("refused", rules.refused,
         said.refused(as_read(CauseCode.NOT_READY, "3 endpoints: 3 not ready")),
         endpoints=(NOT_READY,) * 3, reason="3 endpoints: 3 not ready"),
    case("refused-without-a-reason", rules.refused, said.refused(None), endpoints=(NOT_READY,)),
    case("refused-again-and-again", rules.refused, said.refused(NO_NAME),
         said.flaps(3, "shop", "web"), endpoints=(), cause=NO_NAME,
         last_minute=LastMinuteFacts(8, flaps=3)),
    case("refused-as-in-a-rollout", rules.refused, said.refused(NO_NAME), endpoints=(),
         cause=NO_NAME, last_minute=LastMinuteFacts(8, flaps=2)),
    case("fault-on-purpose", rules.fault_on_purpose, stated(FAULT), endpoints=(READY, FAULTY)),
    case("fault-on-purpose-and-a-real-one", rules.fault_on_purpose, stated(FAULT), stated(SILENT),
         endpoints=(FAULTY, ALSO_EJECTED)),
    case("faults-on-purpose", rules.fault_on_purpose, stated(SLOW), said.more_faults(1),
         endpoints=(failing(SLOW), FAULTY)),
    case("late-at-their-limit", rules.late_at_limit,
         said.at_limit(5, 4.0, "TCP", 1, is_pinned=False, is_silent=False), endpoints=(TOO_SLOW,),
         waits=Waits(5, 4.0), handling=Handling(hold=Hold(60), max_connections=1)),
    case("late-without-a-limit", rules.held_while_all_fail, said.holding(5, 4.0, "TCP"),
         stated(TOO_SLOW.cause), endpoints=(TOO_SLOW,), waits=Waits(5, 4.0), handling=HOLD),
    case("holding-while-all-fail", rules.held_while_all_fail, said.holding(3, 12.0, "TCP"),
         stated(SILENT), endpoints=(ALSO_EJECTED,), handling=HOLD, waits=Waits(3, 12.0)),
    case("udp-without-an-answer", rules.never_answered, said.no_datagram_in(3, 3),
         said.failed_otherwise_before(REFUSES), endpoints=(failing(MUTE_SINCE, connections=3),),
         sent_bytes=0, **UDP),
    case("flows-are-late", rules.flows_are_late, said.no_byte_in_time(6, 6, "UDP"),
         stated(FLOWS_LATE), endpoints=(LATE_TO_FLOWS, LATE_TO_FLOWS), **UDP),
    case("flows-were-late", rules.flows_are_late, said.no_byte_in_time(3, 3, "UDP"),
         stated(FLOWS_LATE.replace(when=When.PAST)), level=OK, state=PortState.UNKNOWN, **UDP,
         endpoints=(failing(FLOWS_LATE.replace(when=When.PAST), connections=3, is_past=True),)),
    case("not-tried-since", rules.failed_before, said.failed_before(), stated(REFUSED),
         endpoints=(PAST,)),
    case("none-tried-since", rules.failed_before, said.failed_before(),
         said.none_answers(2, is_past=True), stated(REFUSED), endpoints=(PAST, PAST)),
    case("silent-when-last-tried", rules.failed_before, said.got_no_answer(3, 3, "TCP"),
         stated(NOTHING), state=PortState.UNANSWERED, endpoints=(replace(HANGING, is_past=True),)),
    case("cuts-off", rules.cut_off, said.were_reset(3, 100),
         endpoints=(failing(cuts_off(B).replace(count=3), connections=100),)),
    case("sends-nothing", rules.unanswered, said.get_no_answer(), said.no_byte_in_time(3, 3),
         stated(NOTHING), endpoints=(HANGING,)),
    case("answers-late", rules.unanswered, said.get_no_answer(), said.no_byte_in_time(3, 900),
         stated(LATE), endpoints=(failing(LATE, connections=900),)),
    case("udp-without-an-answer-now", rules.unanswered, said.get_no_answer(),
         said.no_datagram_in(3, 3), endpoints=(UNHEARD,), **UDP),
    case("fin", rules.closed, said.get_no_answer(), stated(RESETS), endpoints=(CLOSING,)),
    case("one", rules.all_fail, said.fail(), stated(REFUSES), endpoints=(EJECTED,)),
    case("rst", rules.all_fail, said.fail(), stated(RESETS), endpoints=(RESETTING,)),
    case("ejection-just-over-and-others-unused", rules.all_fail, said.fail(),
         stated(REFUSES), said.others_unused(2, ((2, "refused: x"),), has_more=False),
         endpoints=(replace(EJECTED, ejected_for_s=0.0), OURS, OURS)),
    case("all-ejected-and-no-cause-reported-yet", rules.all_fail, said.fail(),
         said.none_answers(2, is_past=False), endpoints=(UNKNOWN_CAUSE, UNKNOWN_CAUSE)),
    case("only-endpoint-ejected-without-a-cause", rules.all_fail, said.fail(),
         said.only_one_fails(), endpoints=(UNKNOWN_CAUSE,)),
    case("one-fails-and-the-others-failed-a-while-ago", rules.all_fail, said.fail(),
         said.some_answer_not(1, 2, 3, are_all=True), stated(SILENT),
         endpoints=(PAST, ALSO_EJECTED, PAST)),
    case("refuses-and-clients-left", rules.all_fail, said.fail(), stated(REFUSES),
         endpoints=(EJECTED,), last_minute=LastMinuteFacts(30, client_aborts=9)),
    case("fails-in-two-ways", rules.all_fail, said.fail(), stated(RESETS),
         said.connections_failed(28, 28, PARTS, said.because(WAS_REFUSED)), endpoints=(RESETTING,),
         last_minute=LastMinuteFacts(7, 21, 7, cause=WAS_REFUSED)),
    case("failed-in-the-same-way-before", rules.all_fail, said.fail(), stated(RESETS),
         endpoints=(RESETTING,), last_minute=LastMinuteFacts(7, 21, 7, cause=WAS_RESET)),
    case("unanswered-in-kernel", rules.unanswered_in_kernel, stated(forwarding_unanswered()),
         unanswered=forwarding_unanswered(), path=IN_KERNEL),
    case("one-silent-in-kernel", rules.unanswered_in_kernel, stated(SILENT), level=ATTENTION,
         state=PortState.PARTLY_ANSWERING, endpoints=(READY, READY, READY), unanswered=SILENT,
         silent_endpoints=1, path=IN_KERNEL),
    case("some-silent-in-kernel", rules.unanswered_in_kernel, said.some_answer_not(2, 0, 3),
         stated(SILENT), level=ATTENTION, state=PortState.PARTLY_ANSWERING,
         endpoints=(READY, READY, READY), unanswered=SILENT, silent_endpoints=2, path=IN_KERNEL),
    case("out-of-ports", rules.lacks_ports, said.may_fail(out_of_ports()),
         is_out_of_ports=True),
    case("one-refuses", rules.some_fail, stated(REFUSES), said.others_serve(1),
         endpoints=(READY, EJECTED)),
    case("one-ejected-without-a-cause", rules.some_fail, said.one_fails(),
         said.others_serve(1), endpoints=(READY, UNKNOWN_CAUSE)),
    case("some-fail", rules.some_fail, said.some_answer_not(2, 0, 4), said.others_serve(2),
         stated(REFUSES), stated_in_short(SILENT), endpoints=(READY, READY, EJECTED, ALSO_EJECTED)),
    case("one-fails-and-one-failed-a-while-ago", rules.some_fail, said.some_answer_not(1, 1, 3),
         said.others_serve(1), stated(NOTHING), endpoints=(READY, PAST, HANGING)),
    case("some-failed-a-while-ago", rules.some_fail, said.some_answer_not(0, 2, 3),
         said.others_serve(1), stated(REFUSED), state=PortState.FAILED_BEFORE,
         endpoints=(READY, PAST, PAST)),
    case("one-sends-nothing", rules.some_fail, stated(NOTHING), said.others_serve(1),
         endpoints=(READY, HANGING)),
    case("one-keeps-its-clients", rules.some_fail, stated(NOTHING),
         said.others_serve(1, is_pinned=True), endpoints=(READY, HANGING), affinity_timeout_s=9),
    case("at-their-limit", rules.at_limit,
         said.at_limit(1, 1.0, "TCP", 100, is_pinned=False, is_silent=False), waits=Waits(1, 1.0),
         **LIMITED),
    case("flows-at-their-limit", rules.at_limit,
         said.at_limit(3, 2.0, "UDP", 1, is_pinned=False, is_silent=False), waits=Waits(3, 2.0),
         handling=ONE, **UDP),
    case("a-client-that-keeps-to-one-endpoint", rules.at_limit,
         said.at_limit(3, 2.0, "TCP", 1, is_pinned=True, is_silent=False), waits=Waits(3, 2.0),
         handling=ONE, affinity_timeout_s=60),
    case("all-connections-of-a-hung-program", rules.at_limit,
         said.at_limit(3, 2.0, "TCP", 1, is_pinned=False, is_silent=True),
         said.nothing_back("TCP", 5, True, False), waits=Waits(3, 2.0), handling=ONE, connections=5,
         sent_bytes=0),
    case("at-their-limit-before-a-connection", rules.at_limit,
         said.at_limit(3, 2.0, "TCP", 1, is_pinned=False, is_silent=False), waits=Waits(3, 2.0),
         handling=ONE, connections=0, sent_bytes=0),
    case("out-of-client-ports", rules.lacks_client_ports, stated(out_of_client_ports()),
         is_out_of_client_ports=True),
    case("clients-failed", rules.clients_failed, said.served_by(1, 0, is_now=True),
         said.connections_failed(3, 4, ()), last_minute=LastMinuteFacts(1, 3)),
    case("none-was-answered", rules.clients_failed, said.connections_failed(3, 3, ()),
         last_minute=LastMinuteFacts(3, unanswered=3), is_quiet=True),
    case("flaps", rules.comes_and_goes, SERVED_BY_1, said.flaps(3, "shop", "web"),
         last_minute=LastMinuteFacts(8, flaps=3)),
    case("saved-late", rules.answers_are_late, said.served_by(1, 0, is_now=True),
         said.saved_late(4, 28), last_minute=LastMinuteFacts(28, late=4)),
    case("idle", rules.answers_are_late, said.served_by(1, 0, is_now=True), said.ended_idle(3, 12),
         last_minute=LastMinuteFacts(12, idle=3)),
    case("owed-seldom", rules.last_words_unanswered, said.served_by(1, 0, is_now=True),
         said.ended_unanswered(4, 12, said.because(owes_answers(A))),
         last_minute=LastMinuteFacts(12, unanswered_requests=4, cause=owes_answers(A),
                                 is_unusual=True)),
    case("owed-by-habit", rules.last_words_unanswered, said.ended_unanswered(4, 12),
         state=PortState.UNKNOWN, level=OK, last_minute=LastMinuteFacts(12, unanswered_requests=4)),
    case("all-clients-denied", rules.none_admitted, said.none_admitted(DENYING), **ADMITS),
    case("external-ip-off", rules.lacks_addresses,
         said.partly_served(external_ip_off("203.0.113.7", "external IPs are off")),
         notes=(external_ip_off("203.0.113.7", "external IPs are off"),)),
    case("address-taken", rules.lacks_addresses,
         said.partly_served(external_ip_of("203.0.113.7", "shop/cart")),
         notes=(external_ip_of("203.0.113.7", "shop/cart"),)),
    case("one-of-another-node", rules.others_fail_inside, said.served_by(1, 0), stated(REFUSES),
         endpoints=(READY, replace(EJECTED, is_usable=False, code=CauseCode.NOT_LOCAL))),
    case("a-note", rules.has_notes, SERVED_BY_1, stated(NOTE), notes=(NOTE,)),
    case("other-ports", rules.others_dialled, said.ready(1, 0), said.no_client_yet(),
         stated(OTHERS), other_ports=OTHERS, **MUTE_PORT),
    case("terminating", rules.about_to_lose_all, SERVED_BY_1, stated(about_to_vanish("shop", 1)),
         endpoints=(ENDING,)),
    case("all-terminating", rules.about_to_lose_all, said.served_by(2, 0),
         stated(about_to_vanish("shop", 2)), endpoints=(ENDING, ENDING)),
    case("terminating-and-idle", rules.about_to_lose_all, said.ready(1, 0, are_leaving=True),
         said.no_client_yet(), stated(about_to_vanish("shop", 1)), state=PortState.UNKNOWN,
         endpoints=(ENDING,), **MUTE_PORT),
    case("perhaps-dropped", rules.may_be_taken, SERVED_BY_1,
         stated(not_listening("x may drop it", "", "ip x")),
         perhaps_taken=Taken("x may drop it", "", "ip x", is_certain=False)),
    case("served", rules.served, SERVED_BY_1),
    case("other-ports-dialled", rules.served, SERVED_BY_1, stated(OTHERS), other_ports=OTHERS),
    case("standby", rules.served, said.served_by(1, 1), endpoints=(READY, make_standby(B))),
    case("waiting-for-a-moment", rules.served, SERVED_BY_1, waits=Waits(1, 0.9), **LIMITED),
    case("quiet", rules.served, said.ready(1, 0), said.none_answered_lately(), is_quiet=True),
    case("quiet-beside-the-kernel", rules.served, said.ready(1, 0),
         said.none_answered_lately(has_kernel_path=True), is_quiet=True, kernel_connections=3),
    case("some-clients-denied", rules.served, SERVED_BY_1, stated(DENYING),
         **{**ADMITS, "connections": 1}),
    case("all-clients-denied-as-far-as-is-counted", rules.served, OF_KERNEL, stated(DENYING),
         state=PortState.UNKNOWN, path=IN_KERNEL, **ADMITS),
    case("denied-before-the-ranges-changed", rules.served, SERVED_BY_1, stated(DENYING),
         **{**ADMITS, "admits": ("192.0.2.0/24",)}),
]  # fmt: skip
"""Cases in the order of the rules."""


def closes(count, **facts):
    return failing(resets(B).replace(count=count), **facts)


CLOSES = [
    case("collector", rules.never_answered, said.closed(7), stated(closes(7).cause),
         state=PortState.NOT_ANSWERING, endpoints=(closes(7),), sent_bytes=0),
    case("a-while-ago", rules.never_answered, said.closed(1), stated(closes(1).cause),
         endpoints=(closes(1, is_past=True),), sent_bytes=0),
    case("two", rules.never_answered, said.closed(9), said.none_answers(2, is_past=False),
         stated(closes(7).cause), state=PortState.NOT_ANSWERING, endpoints=(closes(7), closes(2)),
         sent_bytes=0),
    case("answered-before", rules.closed, said.get_no_answer(), stated(closes(7).cause),
         endpoints=(closes(7),), sent_bytes=1),
    case("closes-and-resets", rules.never_answered, said.closed(9), stated(closes(9).cause),
         state=PortState.NOT_ANSWERING, endpoints=(closes(9, resets=6, empty=3),), sent_bytes=0),
    case("resets-most", rules.all_fail, said.fail(), stated(closes(9).cause),
         endpoints=(closes(9, resets=7, empty=3),), sent_bytes=0),
    case("resets", rules.all_fail, said.fail(), stated(closes(7).cause),
         endpoints=(closes(7, resets=1),), sent_bytes=0),
]  # fmt: skip
OTHER = make_endpoint("192.0.2.2:80", answered_at=1.0)
DENYING_POD = failing(DENIES)
DENIALS = [
    case("all", rules.some_are_denied, said.get_no_answer(False), stated(DENIES),
         state=PortState.NOT_ANSWERING, endpoints=(DENYING_POD,), connections=3,
         last_minute=LastMinuteFacts(refused=55)),
    case("some", rules.some_are_denied, said.get_no_answer(True), stated(DENIES),
         endpoints=(DENYING_POD,), connections=3),
    case("others-refuse", rules.some_are_denied, said.get_no_answer(True), stated(DENIES),
         stated_in_short(refuses(POD)), endpoints=(failing(refuses(POD)), DENYING_POD),
         connections=3),
    case("one", rules.some_fail, stated(DENIES), said.others_serve(1),
         endpoints=(OTHER, DENYING_POD), connections=3),
]  # fmt: skip
BESIDE_ONE = [
    case("many", rules.some_fail, stated(REFUSES), NOT_ALWAYS,
         said.connections_failed(4, 12, (), said.because(LOST)), endpoints=(READY, EJECTED),
         last_minute=FAILED),
    case("udp", rules.some_fail, stated(REFUSES), NOT_ALWAYS,
         said.flows_unanswered(4, 12, said.because(LOST)), endpoints=(READY, EJECTED),
         last_minute=FAILED, **UDP),
    case("few", rules.some_fail, stated(REFUSES), said.others_serve(1), endpoints=(READY, EJECTED),
         last_minute=LastMinuteFacts(12, unanswered=1, cause=LOST)),
    case("at-its-limit", rules.some_fail, stated(REFUSES), NOT_ALWAYS,
         said.at_limit(3, 2.0, "TCP", 1, is_pinned=False, is_silent=False),
         endpoints=(READY, EJECTED), last_minute=LastMinuteFacts(12, cause=LOST),
          waits=Waits(3, 2.0),
         handling=ONE),
    case("all-connections-of-a-hung-program", rules.some_fail, stated(REFUSES), NOT_ALWAYS,
         said.at_limit(3, 2.0, "TCP", 1, is_pinned=False, is_silent=True),
         said.nothing_back("TCP", 9, False, False), endpoints=(READY, EJECTED),
         last_minute=LastMinuteFacts(12, cause=LOST), waits=Waits(3, 2.0), handling=ONE,
         **{**MUTE_PORT, "connections": 9}),
    case("quiet", rules.some_fail, stated(REFUSES), said.others_answered(1),
         endpoints=(READY, EJECTED), last_minute=FAILED, is_quiet=True),
    case("same", rules.some_fail, stated(REFUSES), said.others_serve(1), endpoints=(READY, EJECTED),
         last_minute=LastMinuteFacts(8, 12, cause=lately_of(REFUSES))),
]  # fmt: skip


LEFT = [
    case("last", rules.clients_failed, said.served_by(1, 0, is_now=True), said.clients_left(4, 30),
         last_minute=LastMinuteFacts(30, client_aborts=4)),
    case("flaps", rules.silent_to_some, stated(WAS_REFUSED),
         said.connections_failed(12, 42, (), None), **FLAPS),
    case("not-last", rules.silent_to_some, said.clients_left(4, 30), endpoints=(HANGING,),
         last_minute=LastMinuteFacts(30, client_aborts=4)),
    case("none-since", rules.unanswered, said.get_no_answer(), said.no_byte_in_time(3, 3),
         stated(NOTHING), endpoints=(HANGING,), last_minute=LastMinuteFacts(30, client_aborts=3)),
    case("too-few", rules.served, SERVED_BY_1, last_minute=LastMinuteFacts(30, client_aborts=2)),
    case("few-of-many", rules.served, SERVED_BY_1,
         last_minute=LastMinuteFacts(41, client_aborts=4)),
]  # fmt: skip
FLOWS = [
    case("answered-last", rules.answers_are_missed, said.flows_unanswered(9, 12),
         last_minute=LastMinuteFacts(12, unanswered=9), **UDP),
    case("not-last", rules.silent_to_some, said.flows_unanswered(9, 12), endpoints=(UNHEARD,),
         last_minute=LastMinuteFacts(12, unanswered=9), **UDP),
    case("none-since", rules.unanswered, said.get_no_answer(), said.no_datagram_in(3, 3),
         endpoints=(UNHEARD,), last_minute=LastMinuteFacts(12, unanswered=3), **UDP),
    case("none-since-though-most-were-answered", rules.unanswered, said.get_no_answer(),
         said.no_datagram_in(3, 13), endpoints=(replace(UNHEARD, connections=13),), level=TROUBLE,
         last_minute=LastMinuteFacts(12, unanswered=3), **UDP),
    case("long-ago", rules.never_answered, said.no_datagram_in(3, 3),
         endpoints=(failing(MUTE_ONCE, connections=3, is_past=True),),
         **{**UDP, **MUTE_PORT, "connections": 3}),
    case("too-few", rules.served, SERVED_BY_1,
         last_minute=LastMinuteFacts(12, unanswered=2), **UDP),
    case("few-of-many", rules.served, SERVED_BY_1, last_minute=LastMinuteFacts(100, unanswered=9),
         **UDP),
    case("few-refused-and-slow", rules.served, SERVED_BY_1,
         last_minute=LastMinuteFacts(250, 3, 12), **UDP),
    case("none-ever-answered", rules.served, said.never_answered("UDP", 36_407, True, False),
         state=PortState.UNKNOWN, last_minute=LastMinuteFacts(12, unanswered=9),
         sent_bytes=0, **UDP),
    case("some-refused-and-none-ever-answered", rules.served,
         said.never_answered("UDP", 36_407, True, False), state=PortState.UNKNOWN,
         last_minute=LastMinuteFacts(203, 3, 200), sent_bytes=0, **UDP),
]  # fmt: skip


def stalled(name, counts, open_, clause, rule=rules.answers_are_missed, **changes):
    """Return a case with these numbers of stalled connections per endpoint."""
    endpoints = [
        make_endpoint(f"10.244.1.{n}:80", stalled=count) for n, count in enumerate(counts, 7)
    ]
    counted = {
        "stalled": sum(counts),
        "active": open_,
        "connections": 99,
        "sent_bytes": 5,
        **changes,
    }
    return case(name, rule, clause, endpoints=endpoints, **counted)


FIRST, FORMER = "10.244.1.7:80", {"stalled": 3}
STALLED = [
    stalled("half", (2, 0), 4, said.stalled(2, 4, "UDP", FIRST, 1, has_former=False), **UDP),
    stalled("of-two", (1, 1), 4, said.stalled(2, 4, "UDP", "", 2, has_former=False), **UDP),
    stalled("only-flow", (1, 0), 1, said.stalled(1, 1, "UDP", FIRST, 1, has_former=False),
            **UDP),
    stalled("few", (1, 0), 9, said.served_by(2, 0), rules.served, **UDP),
    stalled("tcp", (2,), 2, said.stalled(2, 2, "TCP", FIRST, 1, has_former=False)),
    stalled("one-and-former-pods", (2, 0), 4, said.stalled(3, 4, "TCP", FIRST, 1, has_former=True),
            **FORMER),
    stalled("two-and-former-pods", (1, 1), 4, said.stalled(3, 4, "TCP", "", 2, has_former=True),
            **FORMER),
    stalled("former-pods", (0, 0), 4, said.stalled(3, 4, "TCP", "", 0, has_former=True), **FORMER),
]  # fmt: skip
HEADER, HOPS = no_proxy_header("203.0.113.11"), hop_limit_reached("203.0.113.11")
MISTAKES = [
    case("header", rules.clients_are_mistaken, said.none_served(HEADER), client_mistakes=(HEADER,),
         connections=0),
    case("hop-limit", rules.clients_are_mistaken, said.none_served(HOPS), state=PortState.DROPPED,
         client_mistakes=(HOPS,), connections=0),
    case("some", rules.clients_are_mistaken, said.not_all_served(HEADER),
         state=PortState.PARTLY_SERVED, client_mistakes=(HEADER,), connections=9),
]  # fmt: skip
SILENT_PORTS = [
    case("both-sides-wait", rules.served, said.never_answered("TCP", 24, False, False),
         state=PortState.UNKNOWN, connections=24, received_bytes=0, sent_bytes=0),
    case("requests-without-an-answer", rules.served, said.never_answered("TCP", 50, True, False),
         state=PortState.UNKNOWN, connections=50, sent_bytes=0),
    case("flows-without-an-answer", rules.served, said.never_answered("UDP", 50, True, False),
         state=PortState.UNKNOWN, connections=50, sent_bytes=0, **UDP),
    case("header", rules.served, said.never_answered("TCP", 50, True, True),
         state=PortState.UNKNOWN, connections=50, sent_bytes=0,
         handling=Handling(proxy_protocol=ProxyProtocol.V1)),
]  # fmt: skip
NEW_PORTS = [
    case("no-client", rules.served, said.ready(1, 0), said.no_client_yet(), state=PortState.UNKNOWN,
         **MUTE_PORT),
    case("none-served", rules.served, said.ready(1, 0), said.no_client_yet(has_failed=True),
         state=PortState.UNKNOWN, refused=3, **MUTE_PORT),
    case("few", rules.served, said.never_answered("TCP", 2, False, False), state=PortState.UNKNOWN,
         **{**MUTE_PORT, "connections": 2}),
    case("flows", rules.served, said.never_answered("UDP", 2, False, False),
         state=PortState.UNKNOWN, **{**MUTE_PORT, "connections": 2, **UDP}),
]  # fmt: skip
