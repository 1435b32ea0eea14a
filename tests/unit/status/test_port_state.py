"""How one Service port is served, in words."""

import pytest

from userspace_proxy.facts import Level, PortState, Waits
from userspace_proxy.model import CauseCode, DataPath, Handling, Hold, Protocol, SocketAddress
from userspace_proxy.model.failures import Failure
from userspace_proxy.policy import PathDecision
from userspace_proxy.policy.causes import (
    dial_failed,
    external_ip_off,
    fault_on_purpose,
    none_local,
    resets,
)
from userspace_proxy.policy.client_causes import none_was_local, source_denied
from userspace_proxy.policy.endpoint_causes import (
    BEFORE,
    answers_late,
    in_the_past,
    no_datagram,
    sends_nothing,
    silent_since,
)
from userspace_proxy.status.port_state import judge

from .views import make_endpoint, make_frontend, make_port, make_standby, replace

READY = make_endpoint("10.244.1.7:8080", "ready", True, answered_at=1.0)
REFUSES = replace(dial_failed(SocketAddress("10.244.1.8", 8080), Failure.REFUSED, ""), count=9)
SILENT = replace(
    dial_failed(SocketAddress("10.244.1.9", 8080), Failure.SILENT, "Connection timed out"), count=2
)
RESETS = replace(resets(SocketAddress("10.244.1.9", 8080)), count=8)
EJECTED = make_endpoint("10.244.1.8:8080", "ready", True, ejected_for_s=12.0, cause=REFUSES)
ALSO_EJECTED = make_endpoint("10.244.1.9:8080", "ready", True, ejected_for_s=3.0, cause=SILENT)
RESETTING = make_endpoint("10.244.1.9:8080", "ready", True, cause=RESETS, resets=8)
CLOSING = make_endpoint("10.244.1.9:8080", "ready", True, cause=RESETS)
DUE = make_endpoint("10.244.1.8:8080", "ready", True, ejected_for_s=0.0, cause=REFUSES)
REFUSED = in_the_past(REFUSES)
PAST = make_endpoint("10.244.1.8:8080", "ready", True, cause=REFUSED, is_past=True)
NOTHING = replace(sends_nothing(SocketAddress("10.244.1.9", 8080)), count=3)
HANGING = make_endpoint("10.244.1.9:8080", "ready", True, cause=NOTHING, connections=3)
LATE = replace(answers_late(SocketAddress("10.244.1.9", 8080), 2.5), count=3)
ENDING = make_endpoint("10.244.1.9:8080", "terminating", True)
MUTE = silent_since(replace(no_datagram(SocketAddress("10.244.1.9", 53)), count=3), REFUSES)
UNHEARD_OF = make_endpoint("10.244.1.9:53", "ready", True, cause=MUTE, connections=3)
UNHEARD = {"protocol": Protocol.UDP, "endpoints": (UNHEARD_OF,), "sent_bytes": 0}
RANGES = ("198.51.100.0/24",)
DENYING = {"admits": RANGES, "turned_away": (source_denied(RANGES, count=2),)}
IN_KERNEL = PathDecision(DataPath.KERNEL)
EJECTED_ELSEWHERE = make_endpoint("10.244.1.8:8080", "ready", True, ejected_for_s=12.0)
OURS = make_endpoint("10.96.1.1:80", "refused: x", False)
NOT_READY = make_endpoint("10.244.1.9:8080", "not ready", False)
ELSEWHERE = make_endpoint("10.244.2.9:8080", "not on this node", False)
CLUSTER_IP = make_frontend("10.96.7.1:80", "ClusterIP", "proxy port 20001")
HELD = make_frontend("192.0.2.10:30080", "NodePort", "held by another program", is_reached=False)
ENDS = "terminating and about to vanish, and no ready one is used here"
LIMITED = {"endpoints": (READY,), "handling": Handling(max_connections=100)}
HOLD = Handling(hold=Hold(60))
HELD_BY = "node port 30080/TCP is held by nginx (pid 812)"
SLOW = make_endpoint(
    "10.244.1.7:8080",
    cause=fault_on_purpose(SocketAddress("10.244.1.7", 8080), ["latency(latency=5) downstream"]),
)
FAULTY = make_endpoint(
    "10.244.1.8:8080",
    "ready",
    True,
    ejected_for_s=12.0,
    cause=fault_on_purpose(SocketAddress("10.244.1.8", 8080), ["refuse"]),
)


@pytest.mark.parametrize(
    ("changes", "level", "sentence"),
    [
        pytest.param(
            {"endpoints": (READY, FAULTY)},
            Level.ATTENTION,
            "10.244.1.8:8080 has a fault on purpose: refuse",
            id="fault-on-purpose",
        ),
        pytest.param(
            {"endpoints": (FAULTY, ALSO_EJECTED)},
            Level.ATTENTION,
            "10.244.1.8:8080 has a fault on purpose: refuse; 10.244.1.9:8080 does not answer: "
            "packets are dropped, its program hangs, or its host is gone",
            id="fault-on-purpose-and-a-real-one",
        ),
        pytest.param(
            {"endpoints": (SLOW, FAULTY)},
            Level.ATTENTION,
            "10.244.1.7:8080 has a fault on purpose: latency(latency=5) downstream; "
            "1 more endpoint with faults on purpose",
            id="faults-on-purpose",
        ),
        pytest.param({"endpoints": (READY,)}, Level.OK, "Served by 1 endpoint", id="served"),
        pytest.param(
            {"endpoints": (READY, make_standby("10.244.1.9:8080"))},
            Level.OK,
            "Served by 1 endpoint, 1 on standby",
            id="standby",
        ),
        pytest.param(
            {"endpoints": (NOT_READY,) * 3, "reason": "3 endpoints: 3 not ready"},
            Level.ATTENTION,
            "Clients are refused: 3 endpoints: 3 not ready",
            id="refused",
        ),
        pytest.param(
            {"endpoints": (NOT_READY,)},
            Level.ATTENTION,
            "Clients are refused: no endpoint is usable",
            id="refused-without-a-reason",
        ),
        pytest.param(
            {"endpoints": (NOT_READY,), "reason": "1 endpoint: not ready", "handling": HOLD},
            Level.OK,
            "Clients would wait for an endpoint for 1 min: 1 endpoint: not ready",
            id="holding-none",
        ),
        pytest.param(
            {
                "endpoints": (NOT_READY,),
                "reason": "1 endpoint: not ready",
                "handling": HOLD,
                "waits": Waits(3, 12.0),
            },
            Level.ATTENTION,
            "Holding 3 connections, the longest for 12 s: 1 endpoint: not ready",
            id="holding",
        ),
        pytest.param(
            {"endpoints": (ALSO_EJECTED,), "handling": HOLD, "waits": Waits(3, 12.0)},
            Level.ATTENTION,
            "Holding 3 connections, the longest for 12 s: 10.244.1.9:8080 does not answer: "
            "packets are dropped, its program hangs, or its host is gone",
            id="holding-while-all-fail",
        ),
        pytest.param(
            {**LIMITED, "waits": Waits(1, 1.0)},
            Level.ATTENTION,
            "Holding 1 connection, the longest for 1 s: endpoints have 100 connections each, "
            "which is their limit on this node",
            id="at-their-limit",
        ),
        pytest.param(
            {**LIMITED, "waits": Waits(1, 0.9)},
            Level.OK,
            "Served by 1 endpoint",
            id="waiting-for-a-moment",
        ),
        pytest.param(
            {"endpoints": (READY,), "problem": "cannot listen: Address already in use"},
            Level.TROUBLE,
            "Not served: cannot listen: Address already in use",
            id="port-in-use",
        ),
        pytest.param(
            {"endpoints": (READY,), "frontends": (CLUSTER_IP, HELD), "problem": HELD_BY},
            Level.TROUBLE,
            f"Partly served: {HELD_BY}",
            id="node-port-held",
        ),
        pytest.param(
            {"endpoints": (READY,), "frontends": (HELD,), "problem": HELD_BY},
            Level.TROUBLE,
            f"Not served: {HELD_BY}",
            id="every-frontend-held",
        ),
        pytest.param(
            {
                "endpoints": (ELSEWHERE,),
                "reason": "1 endpoint: 1 not on this node",
                "admits": (),
            },
            Level.ATTENTION,
            "Clients are dropped: 1 endpoint: 1 not on this node",
            id="all-dropped",
        ),
        pytest.param(
            {
                "endpoints": (ELSEWHERE,),
                "reason": "1 endpoint: 1 not on this node",
                "admits": ("127.0.0.0/8",),
                "outside": (),
                "usable": (ELSEWHERE.address,),
            },
            Level.OK,
            "Clients from outside are dropped here: 1 endpoint: 1 not on this node",
            id="outside-dropped",
        ),
        pytest.param(
            {"endpoints": (READY,), "is_out_of_ports": True},
            Level.TROUBLE,
            "Clients may be reset: no source port was left for connections to an endpoint",
            id="out-of-ports",
        ),
        pytest.param(
            {"endpoints": (READY,), "is_out_of_client_ports": True},
            Level.ATTENTION,
            "All ports 61000-65535 of a client's address towards an endpoint are in use: the "
            "endpoint sees this node's address, or the client is refused if the endpoint has not "
            "answered it",
            id="out-of-client-ports",
        ),
        pytest.param(
            {"endpoints": (READY, EJECTED)},
            Level.ATTENTION,
            f"{REFUSES}; the other one serves",
            id="one-refuses",
        ),
        pytest.param(
            {"endpoints": (READY, EJECTED_ELSEWHERE)},
            Level.ATTENTION,
            "1 endpoint doesn't answer; the other one serves",
            id="one-ejected-and-the-cause-not-reported-yet",
        ),
        pytest.param(
            {"endpoints": (READY, READY, EJECTED, ALSO_EJECTED)},
            Level.ATTENTION,
            f"2 of 4 endpoints don't answer; the other 2 serve; {REFUSES}; "
            "10.244.1.9:8080 does not answer",
            id="some-fail",
        ),
        pytest.param(
            {"endpoints": (READY, PAST, HANGING)},
            Level.ATTENTION,
            "1 of 3 endpoints doesn't answer, and 1 didn't when last tried; the other one serves; "
            f"{NOTHING}",
            id="one-fails-and-one-failed-a-while-ago",
        ),
        pytest.param(
            {"endpoints": (READY, PAST, PAST)},
            Level.ATTENTION,
            "2 of 3 endpoints didn't answer when last tried; the other one serves; "
            "10.244.1.8:8080 refused connections when it was last tried",
            id="some-failed-a-while-ago",
        ),
        pytest.param(
            {"endpoints": (EJECTED_ELSEWHERE, EJECTED_ELSEWHERE)},
            Level.TROUBLE,
            "Clients fail: none of its 2 endpoints answers",
            id="all-ejected-and-no-cause-reported-yet",
        ),
        pytest.param(
            {"endpoints": (EJECTED,)}, Level.TROUBLE, f"Clients fail: {REFUSES}", id="one"
        ),
        pytest.param(
            {"endpoints": (EJECTED_ELSEWHERE,)},
            Level.TROUBLE,
            "Clients fail: its only usable endpoint doesn't answer",
            id="the-only-one-ejected-and-the-cause-not-reported-yet",
        ),
        pytest.param(
            {"endpoints": (RESETTING,)}, Level.TROUBLE, f"Clients fail: {RESETS}", id="rst"
        ),
        pytest.param(
            {"endpoints": (CLOSING,)}, Level.ATTENTION, f"Clients get no answer: {RESETS}", id="fin"
        ),
        pytest.param(
            {"endpoints": (DUE, OURS, OURS)},
            Level.TROUBLE,
            f"Clients fail: {REFUSES}; the other 2 aren't used: refused: x",
            id="due-for-a-client-a-moment-ago-and-others-never-dialled",
        ),
        pytest.param(
            {"endpoints": (PAST,)},
            Level.ATTENTION,
            "Clients failed before: 10.244.1.8:8080 refused connections when it was last tried",
            id="not-tried-since",
        ),
        pytest.param(
            {"endpoints": (PAST, PAST)},
            Level.ATTENTION,
            f"Clients failed before: none of its 2 endpoints answered when last tried; {REFUSED}",
            id="none-tried-since",
        ),
        pytest.param(
            {"endpoints": (PAST, ALSO_EJECTED, PAST)},
            Level.TROUBLE,
            f"Clients fail: 1 of its 3 endpoints doesn't answer, and 2 didn't when last tried; "
            f"{ALSO_EJECTED.cause}",
            id="one-fails-and-the-others-failed-a-while-ago",
        ),
        pytest.param(
            {"endpoints": (HANGING,)},
            Level.ATTENTION,
            "Clients get no answer: 3 of 3 connections got no byte in time; 10.244.1.9:8080 "
            "accepts connections and sends nothing",
            id="sends-nothing",
        ),
        pytest.param(
            {"endpoints": (replace(HANGING, connections=900, cause=LATE),)},
            Level.ATTENTION,
            f"Clients get no answer: the last 3 connections got no byte in time; {LATE}",
            id="answers-late",
        ),
        pytest.param(
            {"endpoints": (READY, HANGING)},
            Level.ATTENTION,
            f"{NOTHING}; the other one serves",
            id="one-sends-nothing",
        ),
        pytest.param(
            {"endpoints": (ENDING,)},
            Level.ATTENTION,
            f"Served by 1 endpoint; it is {ENDS}",
            id="terminating",
        ),
        pytest.param(
            {"endpoints": (ENDING, ENDING)},
            Level.ATTENTION,
            f"Served by 2 endpoints; all are {ENDS}",
            id="all-terminating",
        ),
        pytest.param(
            UNHEARD,
            Level.ATTENTION,
            f"No datagram has come back in 3 of 3 flows{BEFORE}10.244.1.8:8080 refused connections",
            id="udp-without-an-answer",
        ),
        pytest.param(
            {"endpoints": (READY,), "connections": 0, **DENYING},
            Level.ATTENTION,
            "No client has been admitted: clients outside 198.51.100.0/24 are dropped",
            id="all-clients-denied",
        ),
        pytest.param(
            {"endpoints": (READY,), "connections": 1, **DENYING},
            Level.OK,
            "Served by 1 endpoint; clients outside 198.51.100.0/24 are dropped",
            id="some-clients-denied",
        ),
        pytest.param(
            {"endpoints": (READY,), "connections": 0, **DENYING, "path": IN_KERNEL},
            Level.OK,
            "Clients go through the kernel to 1 endpoint; whether they are answered isn't known on "
            "this path; clients outside 198.51.100.0/24 are dropped",
            id="all-clients-denied-as-far-as-is-counted",
        ),
        pytest.param(
            {"endpoints": (READY,), "connections": 0, **DENYING, "admits": ("192.0.2.0/24",)},
            Level.OK,
            "Served by 1 endpoint; clients outside 198.51.100.0/24 are dropped",
            id="denied-before-the-ranges-changed",
        ),
        pytest.param(
            {
                "endpoints": (NOT_READY,),
                "reason": "1 endpoint: not ready",
                "handling": HOLD,
                "waits": Waits(timeouts=2, left=1, total=3),
            },
            Level.ATTENTION,
            "Clients would wait for an endpoint for 1 min: 1 endpoint: not ready; 3 clients "
            "waited, and none was served",
            id="holding-in-vain",
        ),
        pytest.param(
            {
                "endpoints": (NOT_READY,),
                "reason": "1 endpoint: not ready",
                "handling": HOLD,
                "waits": Waits(timeouts=2, total=3),
            },
            Level.OK,
            "Clients would wait for an endpoint for 1 min: 1 endpoint: not ready",
            id="holding-and-one-was-served",
        ),
        pytest.param(
            {"endpoints": (READY,), "notes": ("annotation x: y is used",)},
            Level.ATTENTION,
            "Served by 1 endpoint; annotation x: y is used",
            id="a-note",
        ),
    ],
)
def test_how_a_service_port_is_served(changes, level, sentence):
    state = judge(make_port(**changes))
    assert (state.level, state.sentence) == (level, sentence)
    assert state.word in tuple(PortState)


@pytest.mark.parametrize("code", [CauseCode.EXTERNAL_IP_OFF, CauseCode.ADDRESS_TAKEN])
def test_an_external_ip_that_is_not_served_is_a_problem_of_its_port(code):
    note = replace(external_ip_off("203.0.113.7", "external IPs are off"), code=code)
    state = judge(make_port(endpoints=(READY,), notes=(note,)))
    assert (state.level, state.word) == (Level.ATTENTION, "partly served")
    assert state.sentence == f"Partly served: {note}"
    assert (state.code, state.way_out, state.is_problem) == (note.code, note.hint, True)


def test_clients_outside_the_source_ranges_are_a_cause_and_no_problem():
    denied = source_denied(("198.51.100.0/24",), count=3)
    before = none_was_local()
    state = judge(make_port(endpoints=(READY,), turned_away=(denied, before)))
    assert (state.level, state.causes, state.is_problem) == (Level.OK, (denied, before), False)
    assert state.sentence == f"Served by 1 endpoint; {denied}; {before}"
    # What the policy drops now has the cause of the port.
    elsewhere = none_local(["node-b"], "externalTrafficPolicy")
    both = {"is_dropping": True, "turned_away": (replace(elsewhere, count=2), denied)}
    assert judge(make_port(cause=elsewhere, **both)).causes == (elsewhere, denied)


def test_all_causes_are_listed_once_and_the_deciding_one_first():
    twice = {"problem": "in use (stop it)", "notes": ("in use", "a note")}
    port = make_port(endpoints=(READY, EJECTED), way_out="stop it", **twice)
    state = judge(port)
    assert [str(cause) for cause in state.causes] == ["in use", str(REFUSES), "a note"]
    assert state.way_out == "stop it"


def test_a_port_that_is_served_has_no_cause():
    state = judge(make_port(endpoints=(READY,)))
    assert (state.causes, state.code, state.way_out, state.is_problem) == ((), None, "", False)


def test_an_alert_ends_when_no_client_has_tried_since_the_ejection():
    words = [judge(make_port(endpoints=(e,))).is_problem for e in (EJECTED, DUE, PAST, CLOSING)]
    assert words == [True, True, False, True]


def test_endpoints_that_are_about_to_vanish_have_a_remedy_and_are_no_problem():
    state = make_port("web", endpoints=(ENDING,)).state
    assert (state.code, state.way_out) == (CauseCode.NOT_READY, "kubectl get pods -n shop")
    assert not state.is_problem


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(UNHEARD, id="unanswered"),
        pytest.param({"connections": 0, **DENYING}, id="none-admitted"),
    ],
)
def test_clients_without_an_answer_are_seen_and_are_no_problem(changes):
    port = make_port("web", **{"endpoints": (READY,), **changes})
    assert (port.mark, port.state.is_problem) == (Level.ATTENTION, False)
    assert port.state.code is not None
    assert port.state.way_out


def test_clients_from_outside_that_are_dropped_by_design_have_no_mark_of_success():
    port = make_port(
        "web", endpoints=(ELSEWHERE,), reason="elsewhere", is_dropping=True, admits=RANGES
    )
    assert (port.state.level, port.mark) == (Level.OK, None)
