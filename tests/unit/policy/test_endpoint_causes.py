from dataclasses import replace

import pytest

from userspace_proxy.dataplane.udp_flow import REFUSALS
from userspace_proxy.model import CauseCode, Failure, SocketAddress
from userspace_proxy.model.failures import OWN_ROUTES, dial_failure
from userspace_proxy.model.node_network import NextHop
from userspace_proxy.policy.causes import dial_failed, resets
from userspace_proxy.policy.endpoint_causes import (
    DroppedBy,
    about_to_vanish,
    answers_flows_late,
    answers_late,
    at_times,
    cuts_off,
    denies,
    dropped_here,
    excludes,
    has_ended,
    in_the_past,
    no_datagram,
    no_host,
    outside,
    owes_answers,
    sends_nothing,
    silent_since,
    with_header,
)
from userspace_proxy.policy.loss_causes import loses

POD = SocketAddress("10.244.1.8", 8080)
REFUSES = replace(dial_failed(POD, Failure.REFUSED, ""), count=2, first_at=5.0, last_at=9.0)
UNREACHABLE = dial_failed(POD, Failure.HOST_UNREACHABLE, "")
ABSENT = replace(no_host(POD, NextHop("eth0")), count=3, last_at=7.0)


def test_an_address_that_no_host_has_is_named_with_its_interface():
    assert (ABSENT.code, ABSENT.sentence, ABSENT.object) == (
        CauseCode.ENDPOINT_NO_HOST,
        "no host answers for 10.244.1.8 on eth0",
        "10.244.1.8:8080",
    )
    assert (ABSENT.count, ABSENT.last_at) == (3, 7.0)


def test_a_chain_that_drops_packets_to_an_endpoint_is_named_while_it_does():
    cause = dropped_here(POD, DroppedBy("nftables chain ip f out drops packets to it"))
    assert (cause.code, cause.object) == (CauseCode.ENDPOINT_SILENT, "10.244.1.8:8080")
    assert cause.sentence == (
        "10.244.1.8:8080 does not answer: nftables chain ip f out drops packets to it"
    )
    assert in_the_past(cause).sentence == "10.244.1.8:8080 did not answer when it was last tried"


def test_a_gateway_that_no_host_has_is_named_with_the_address_behind_it():
    cause = no_host(POD, NextHop("eth0", "172.30.0.22"))
    assert cause.sentence == "no host answers for 172.30.0.22, the gateway to 10.244.1.8, on eth0"
    assert "`ip route get 10.244.1.8`" in cause.hint


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (REFUSES, "10.244.1.8:8080 refused connections"),
        (dial_failed(POD, Failure.SILENT, ""), "10.244.1.8:8080 did not answer"),
        (UNREACHABLE, "10.244.1.8:8080 was unreachable"),
        (ABSENT, "no host answered for 10.244.1.8 on eth0"),
        (dial_failed(POD, Failure.NOT_PERMITTED, ""), "10.244.1.8:8080 could not be dialled"),
        (resets(POD), "10.244.1.8:8080 accepted connections and ended them without answering"),
        (sends_nothing(POD), "10.244.1.8:8080 sent nothing in time"),
        (answers_late(POD, 2.5), "10.244.1.8:8080 answered after its clients had left"),
        (cuts_off(POD), "10.244.1.8:8080 reset connections while or after it answered"),
        (no_datagram(POD), "10.244.1.8:8080 sent nothing in time"),
        (loses(POD, Failure.FROM_ENDPOINT), "answers of 10.244.1.8:8080 arrived with a gap"),
        (denies(POD, "10.0.0.1"), "10.244.1.8:8080 answered this node, but not 10.0.0.1,"),
        (
            excludes(POD, "10.0.0.1"),
            "10.244.1.8:8080 ended connections of 10.0.0.1 without a byte, and answered others,",
        ),
    ],
    ids=lambda value: value.code if hasattr(value, "code") else "",
)
def test_what_was_so_a_while_ago_is_in_the_past_tense(cause, sentence):
    past = in_the_past(cause)
    assert past.sentence == f"{sentence} when it was last tried"
    assert (past.code, past.count, past.last_at) == (cause.code, cause.count, cause.last_at)


def test_an_endpoint_that_answers_late_has_the_time_and_a_remedy_wherever_it_is():
    late = answers_late(POD, 2.5)
    assert late.sentence == (
        "10.244.1.8:8080 answers after its clients have left: its first byte took 2.5 s"
    )
    assert "time-out is most likely shorter than the answer takes" in late.hint
    assert outside(late, POD.ip, "db.example.com") == late
    assert "PROXY header" in with_header(late).hint


def test_an_endpoint_that_answers_the_end_of_its_input_may_not_be_slow():
    late = answers_late(POD, 2.5, is_at_end=True)
    assert late.sentence == (
        "10.244.1.8:8080 answers right after its clients have left, and not before: "
        "its first byte took 2.5 s"
    )
    assert late.hint.index("waits for the end of its input") < late.hint.index("time-out")


def test_an_endpoint_that_answers_flows_late_has_the_time_that_clients_wait():
    cause = answers_flows_late(SocketAddress("10.244.0.9", 53))
    assert cause.sentence == "10.244.0.9:53 answered late"
    assert (cause.code, cause.object) == (CauseCode.ENDPOINT_ANSWERS_LATE, "10.244.0.9:53")
    assert cause.hint.startswith("Clients that wait for 2 s or less get nothing; most resolvers")


def test_an_endpoint_that_has_answered_since_is_not_said_to_fail():
    since = at_times(REFUSES)
    assert since.sentence == "10.244.1.8:8080 refused connections"
    assert (since.code, since.count, since.last_at) == (REFUSES.code, 2, 9.0)
    assert "kubectl logs --previous POD" in since.hint
    again = f"If it fails again: {ABSENT.hint[:1].lower()}{ABSENT.hint[1:]}"
    assert at_times(ABSENT).hint == again
    of_host = at_times(REFUSES, "db.example.com").hint
    assert "its program on db.example.com may end again and again" in of_host
    assert "kubectl" not in of_host


def test_an_endpoint_that_answers_others_is_to_be_read_about_in_its_log():
    pod, host = (at_times(resets(POD), name).hint for name in ("", "db.example.com"))
    assert pod.startswith("It has answered other connections: kubectl logs POD shows why not these")
    assert "the log of the program on db.example.com shows why not these" in host
    assert "kubectl" not in host


def test_a_client_that_alone_is_turned_away_has_a_remedy_in_the_program():
    excluded = excludes(POD, "10.0.0.1")
    assert "access rule of the program" in excluded.hint
    assert "access rule of its program" in outside(excluded, POD.ip, "db.example.com").hint
    since = at_times(excluded)
    assert since.sentence == (
        "10.244.1.8:8080 ended connections of 10.0.0.1 without a byte, and answered others"
    )
    assert since.hint == excluded.hint


def test_an_endpoint_that_is_silent_after_an_error_has_both_and_the_way_to_the_route():
    since = [silent_since(no_datagram(POD), failed) for failed in (UNREACHABLE, REFUSES)]
    assert [cause.sentence for cause in since] == [
        "10.244.1.8:8080 sends no datagram back; before, 10.244.1.8:8080 was unreachable",
        "10.244.1.8:8080 sends no datagram back; before, 10.244.1.8:8080 refused connections",
    ]
    assert "ip route get" in since[0].hint
    assert since[1].hint == no_datagram(POD).hint


def test_the_remedy_for_a_denied_client_has_both_reasons_for_silence():
    """A policy drops the dial, or the pod replies to the client's address past this node."""
    hint = denies(POD, "10.0.0.1").hint
    assert "NetworkPolicy" in hint
    assert hint.endswith(
        "annotate the Service with userspace-proxy.io/preserve-client-address: never"
    )


def test_an_endpoint_that_answered_before_has_ended_and_its_target_port_is_right():
    ended = has_ended(REFUSES)
    assert ended.sentence == REFUSES.sentence
    assert "kubectl logs --previous" in ended.hint
    assert "Compare targetPort" in REFUSES.hint
    assert has_ended(UNREACHABLE) is UNREACHABLE


def test_a_dial_of_an_address_without_a_host_is_named_so():
    cause = replace(
        dial_failed(POD, Failure.NO_HOST, "No such device or address"), count=2, last_at=7.0
    )
    assert cause.code is CauseCode.ENDPOINT_NO_HOST
    assert cause.sentence == "no host answers for 10.244.1.8, or for the gateway to it"
    assert (cause.object, cause.count, cause.last_at) == ("10.244.1.8:8080", 2, 7.0)


@pytest.mark.parametrize(
    "cause",
    [
        *(
            dial_failed(POD, failure, "")
            for failure in (
                Failure.REFUSED,
                Failure.SILENT,
                Failure.HOST_UNREACHABLE,
                Failure.BLACKHOLE,
            )
        ),
        ABSENT,
        resets(POD),
        sends_nothing(POD),
        cuts_off(POD),
        denies(POD, "203.0.113.9"),
    ],
    ids=lambda cause: str(cause.code),
)
def test_a_remedy_for_an_endpoint_outside_the_cluster_names_no_pod(cause):
    hint = outside(cause, POD.ip, "db.example.com").hint
    # The remedy for the error of a blackhole route is about this node.
    assert ("db.example.com" in hint) is (cause.code is not CauseCode.ENDPOINT_FAILS)
    assert not [word for word in ("pod", "Pod", "targetPort", "NetworkPolicy") if word in hint]


@pytest.mark.parametrize(
    "cause", [resets(POD), sends_nothing(POD), cuts_off(POD)], ids=lambda cause: str(cause.code)
)
def test_what_may_happen_behind_the_handshake_on_the_way_is_named(cause):
    for hint in (cause.hint, outside(cause, POD.ip, "db.example.com").hint):
        assert "; a firewall on the way that drops or resets data, or a smaller MTU there," in hint


def test_a_routers_error_is_not_taken_for_a_look_into_the_neighbour_table():
    cause = dial_failed(POD, Failure.HOST_DOWN, "Host is down")
    assert cause.code is CauseCode.ENDPOINT_UNREACHABLE
    read = {dial_failure(number, POD.ip).failure for number in REFUSALS}
    assert read.isdisjoint({Failure.NO_HOST, *OWN_ROUTES.values()})


@pytest.mark.parametrize(
    ("cause", "is_likely"),
    [
        (resets(POD), True),
        (sends_nothing(POD), True),
        (cuts_off(POD), True),
        (REFUSES, False),
        (ABSENT, False),
    ],
    ids=lambda value: str(getattr(value, "code", "")),
)
def test_a_header_that_an_endpoint_gets_is_the_likely_reason_once_it_has_accepted(cause, is_likely):
    shown = with_header(cause)
    hint = shown.hint
    assert shown.sentence.endswith("(this proxy sends a PROXY header first)") is is_likely
    said = (
        "This proxy sends a PROXY header before the client's bytes (annotation userspace-proxy.io"
    )
    assert hint.startswith(said) is is_likely
    assert hint.endswith(cause.hint)


@pytest.mark.parametrize(("count", "are"), [(1, "it is"), (2, "all are")])
def test_endpoints_that_all_terminate_are_about_to_vanish(count, are):
    cause = about_to_vanish("shop", count)
    assert cause.code is CauseCode.NOT_READY
    assert cause.sentence == f"{are} terminating and about to vanish, and no ready one is used here"
    assert cause.hint == "kubectl get pods -n shop"


def test_the_remedy_for_a_route_of_this_node_is_the_same_for_an_endpoint_outside():
    cause = dial_failed(POD, Failure.ROUTE_PROHIBITS, "Key was rejected by service")
    assert outside(cause, POD.ip, "db.example.com") is cause


@pytest.mark.parametrize("failure", [Failure.SILENT, Failure.REFUSED, Failure.HOST_UNREACHABLE])
def test_a_firewall_may_be_this_nodes_own(failure):
    cause = dial_failed(POD, failure, "")
    assert "packets to it, also on this node: `nft list ruleset`" in cause.hint


def test_a_firewall_of_this_node_may_drop_packets_to_a_host_outside():
    silent = dial_failed(POD, Failure.SILENT, "")
    assert "this node (`nft list ruleset`)" in outside(silent, POD.ip, "db.example.com").hint


def test_an_endpoint_that_owes_answers_has_answered_before():
    cause = owes_answers(SocketAddress("10.244.0.3", 8443))
    assert cause.code is CauseCode.ENDPOINT_SENDS_NOTHING
    assert cause.sentence == "10.244.0.3:8443 answered before, and then no more"
    assert "clients have the last word" in cause.hint
