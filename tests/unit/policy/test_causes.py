"""The words of causes; test_no_endpoints and test_orphans decide which one applies."""

import errno
import os
from dataclasses import replace

import pytest

from userspace_proxy.model import (
    CauseCode,
    Doubt,
    Failure,
    IPFamily,
    ServicePort,
    SocketAddress,
)
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.policy.causes import (
    DIAL_CODES,
    NOTES_MAX,
    address_taken,
    dial_failed,
    end_code,
    external_ip_off,
    fault_on_purpose,
    first_notes,
    may_not_listen,
    no_slice,
    none_local,
    none_ready,
    none_usable,
    not_followed,
    not_ours,
    out_of_client_ports,
    out_of_ports,
    own_address,
    port_missing,
    resets,
    slice_empty,
    some_lack_port,
)

from ..model.samples import ALICE, HTTP, service, slice_of

POD = SocketAddress("10.244.0.3", 8080)
NOT_MIRRORED = "Endpoints shop/cart has the label skip, so no slice is made of it"
WITHOUT_SELECTOR = service()
SELECTING = service(selector=(("app", "web"), ("tier", "front")))


def failed_with(number, endpoint=POD):
    failed = dial_failure(number, endpoint.ip)
    return dial_failed(endpoint, failed.failure, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        pytest.param(
            errno.ECONNREFUSED,
            CauseCode.ENDPOINT_REFUSES,
            "10.244.0.3:8080 refuses connections: nothing listens on port 8080 there, or a "
            "firewall rejects them",
            id="refused",
        ),
        pytest.param(
            errno.ETIMEDOUT,
            CauseCode.ENDPOINT_SILENT,
            "10.244.0.3:8080 does not answer: packets are dropped, its program hangs, or its host "
            "is gone",
            id="silent",
        ),
        pytest.param(
            errno.EHOSTUNREACH,
            CauseCode.ENDPOINT_UNREACHABLE,
            "10.244.0.3:8080 is unreachable: a router on the way has no route to it, no host has "
            "that address, its node is down, or a firewall rejects packets to it",
            id="no-such-host",
        ),
        pytest.param(
            errno.ENETUNREACH,
            CauseCode.ENDPOINT_UNREACHABLE,
            "10.244.0.3:8080 is unreachable: a router on the way has no route to it, no host has "
            "that address, its node is down, or a firewall rejects packets to it",
            id="no-route",
        ),
        pytest.param(
            errno.EPERM,
            CauseCode.ENDPOINT_FAILS,
            "10.244.0.3:8080 can't be dialled: Operation not permitted, as by rules of this node "
            "that drop packets",
            id="forbidden",
        ),
        pytest.param(
            errno.EINVAL,
            CauseCode.ENDPOINT_FAILS,
            "10.244.0.3:8080 can't be dialled: Invalid argument, the error of a route of type "
            "blackhole",
            id="blackhole",
        ),
        pytest.param(
            errno.EACCES,
            CauseCode.ENDPOINT_FAILS,
            "10.244.0.3:8080 can't be dialled: Permission denied, as by a routing rule of this "
            "node for some packets",
            id="prohibited-for-some",
        ),
        pytest.param(
            errno.ECONNRESET,
            CauseCode.ENDPOINT_RESETS,
            "10.244.0.3:8080 accepts connections and ends them without answering",
            id="reset-with-the-handshake",
        ),
    ],
)
def test_a_failed_dial_is_worded_by_its_errno(number, code, sentence):
    cause = replace(failed_with(number), count=9, first_at=3.0, last_at=5.0)
    assert (cause.code, str(cause), cause.object) == (code, sentence, "10.244.0.3:8080")
    assert (cause.count, cause.first_at, cause.last_at) == (9, 3.0, 5.0)


def test_a_failed_dial_has_the_code_of_the_table():
    for failure in Failure:
        assert dial_failed(POD, failure, "").code is DIAL_CODES[failure]


def test_a_dial_that_something_forbids_has_a_hint_to_firewalls():
    numbers = errno.EPERM, errno.ENOPROTOOPT, errno.EACCES, errno.EINVAL
    hints = [failed_with(number).hint for number in numbers]
    assert ["firewall" in hint for hint in hints] == [True, True, False, False]


def test_only_over_ipv6_a_dial_is_not_permitted_by_a_firewall():
    """The ICMP errors of IPv4 for that are EHOSTUNREACH and ENETUNREACH."""
    cause = failed_with(errno.EACCES, SocketAddress("fd00::3", 8080))
    assert cause.code is CauseCode.ENDPOINT_UNREACHABLE
    why = "a firewall or router rejects packets to it (administratively prohibited)"
    assert str(cause) == f"[fd00::3]:8080 is unreachable: {why}"
    assert "`nft list ruleset`" in cause.hint
    assert "`ip rule`" in failed_with(errno.EACCES).hint


def test_a_dial_that_found_no_route_has_the_command_that_shows_it():
    for number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
        assert "`ip route get 10.244.0.3`" in failed_with(number).hint


def test_an_endpoint_that_ends_connections_without_an_answer():
    cause = replace(resets(POD), count=8, last_at=5.0)
    assert (cause.code, cause.count) == (CauseCode.ENDPOINT_RESETS, 8)
    assert str(cause) == "10.244.0.3:8080 accepts connections and ends them without answering"


def test_an_external_ip_that_is_not_served_names_the_flag():
    cause = external_ip_off("203.0.113.7", "external IPs are off")
    assert str(cause) == "external IP 203.0.113.7 is not served: external IPs are off"
    assert (cause.object, "--allow-external-ips" in cause.hint) == ("203.0.113.7", True)


def test_reasons_that_a_service_itself_gives_keep_their_words():
    taken = address_taken("10.96.0.7:80/TCP is already held by shop/web", "10.96.0.7:80/TCP")
    causes = [not_followed("no effect", "annotation x"), not_ours("served by DNS alone"), taken]
    assert [(cause.code, cause.sentence, cause.object) for cause in causes] == [
        (CauseCode.NOT_FOLLOWED, "no effect", "annotation x"),
        (CauseCode.NOT_OURS, "served by DNS alone", ""),
        (CauseCode.ADDRESS_TAKEN, taken.sentence, "10.96.0.7:80/TCP"),
    ]
    assert taken.hint


def test_causes_of_this_node_have_a_remedy():
    causes = [may_not_listen(Doubt("in use", "stop it")), out_of_ports(), out_of_client_ports()]
    assert [cause.code for cause in causes] == [
        CauseCode.NOT_LISTENING,
        CauseCode.OUT_OF_PORTS,
        CauseCode.OUT_OF_CLIENT_PORTS,
    ]
    assert all(cause.hint for cause in causes)


@pytest.mark.parametrize(
    ("cause", "sentence", "hint"),
    [
        pytest.param(
            no_slice(WITHOUT_SELECTOR, IPFamily.IPV6, [slice_of(ALICE)]),
            "no EndpointSlice of IPv6 belongs to shop/cart, only of IPv4",
            "Its pods have no IPv6 address, or its slices were written for IPv4 alone",
            id="other-family",
        ),
        pytest.param(
            no_slice(service(notes=(NOT_MIRRORED,)), IPFamily.IPV4, []),
            NOT_MIRRORED,
            "Remove that, or create an EndpointSlice with the label "
            "kubernetes.io/service-name: cart",
            id="not-mirrored",
        ),
        pytest.param(
            no_slice(SELECTING, IPFamily.IPV4, []),
            "no EndpointSlice belongs to shop/cart",
            "The EndpointSlice controller creates one from the selector app=web,tier=front; "
            "manifests must contain one, or Endpoints, as selectors aren't evaluated there",
            id="none",
        ),
        pytest.param(
            no_slice(WITHOUT_SELECTOR, IPFamily.IPV4, []),
            "no EndpointSlice belongs to shop/cart, and it has no selector",
            "Create an EndpointSlice with the label kubernetes.io/service-name: cart",
            id="none-without-a-selector",
        ),
        pytest.param(
            slice_empty(SELECTING, 1),
            "its EndpointSlice is empty: no pod with an address was found for selector "
            "app=web,tier=front",
            "kubectl get pods -n shop -l app=web,tier=front",
            id="empty",
        ),
        pytest.param(
            slice_empty(WITHOUT_SELECTOR, 2),
            "its 2 EndpointSlices are empty",
            "It has no selector: what created the slice must add endpoints",
            id="empty-without-a-selector",
        ),
    ],
)
def test_a_service_without_endpoints_is_explained_by_its_slices(cause, sentence, hint):
    assert (cause.sentence, cause.object, cause.hint) == (sentence, "shop/cart", hint)


@pytest.mark.parametrize(
    ("port", "others", "names", "sentence"),
    [
        pytest.param(
            ServicePort("dns", 53, "UDP"),
            ["TCP"],
            ["dns"],
            'its endpoints have a port named "dns" only for TCP, not UDP',
            id="another-protocol",
        ),
        pytest.param(
            ServicePort("", 53, "TCP"),
            ["UDP"],
            [""],
            "its endpoints have an unnamed port only for UDP, not TCP",
            id="another-protocol-unnamed",
        ),
        pytest.param(
            HTTP,
            [],
            ["", "web"],
            'its endpoints have no port named "http"; they have "web", an unnamed one',
            id="other-names",
        ),
        pytest.param(
            ServicePort("", 80, "TCP"),
            [],
            [],
            "its endpoints have no unnamed port, nor any other",
            id="no-port",
        ),
    ],
)
def test_a_missing_port_is_compared_with_those_of_the_endpoints(port, others, names, sentence):
    cause = port_missing(port, others, names)
    assert (cause.code, cause.sentence) == (CauseCode.PORT_NAME_MISSING, sentence)
    assert cause.object == port.name


def test_a_port_that_no_pod_has_is_a_name_of_a_target_port():
    cause = port_missing(HTTP, [], [], has_selector=True)
    assert cause.sentence == (
        'its endpoints have no port named "http", nor any other: targetPort is a name that no '
        "container port of its pods has"
    )
    assert cause.hint == "Name a container port so, or set targetPort to its name or number"


@pytest.mark.parametrize(
    ("port", "have", "total", "sentence"),
    [
        pytest.param(HTTP, 2, 3, '1 of its 3 endpoints has no port named "http"', id="one"),
        pytest.param(
            ServicePort("", 80, "TCP"), 1, 3, "2 of its 3 endpoints have no unnamed port", id="two"
        ),
    ],
)
def test_endpoints_without_a_port_that_others_have_are_counted(port, have, total, sentence):
    cause = some_lack_port(port, have, total)
    assert (cause.code, cause.sentence, cause.object) == (
        CauseCode.PORT_NAME_MISSING,
        sentence,
        port.name,
    )


def test_endpoints_that_may_not_be_used_have_a_remedy():
    refused = none_usable(CauseCode.ENDPOINT_NOT_ALLOWED, [(1, "refused")], 1)
    assert refused.hint == (
        "Endpoints must be addresses of pods or of other hosts, not of Services, and no node "
        "ports: correct the EndpointSlice"
    )


def test_a_cluster_ip_of_this_node_is_the_object_of_its_cause():
    cause = own_address("10.96.0.9")
    assert (cause.code, cause.object) == (CauseCode.ADDRESS_TAKEN, "10.96.0.9")
    assert cause.sentence == "its clusterIP 10.96.0.9 is an address of this node"


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        pytest.param(
            none_ready(SELECTING, 1), "its only endpoint is not ready", id="one-not-ready"
        ),
        pytest.param(none_ready(SELECTING, 3), "none of its 3 endpoints is ready", id="none-ready"),
        pytest.param(
            none_ready(SELECTING, 1, 1),
            "its only endpoint is terminating and doesn't serve any more",
            id="one-ended",
        ),
        pytest.param(
            none_ready(SELECTING, 3, 1),
            "none of its 3 endpoints is ready, and 1 of them is terminating",
            id="one-of-several-ended",
        ),
        pytest.param(
            none_ready(SELECTING, 3, 3),
            "none of its 3 endpoints is ready, and all are terminating",
            id="all-ended",
        ),
        pytest.param(
            none_local(["node-2"], "internalTrafficPolicy"),
            "its only endpoint is on node node-2, and the traffic policy is Local",
            id="on-another-node",
        ),
        pytest.param(
            none_local([""], "internalTrafficPolicy"),
            "its only endpoint has no nodeName, and the traffic policy is Local",
            id="on-an-unnamed-node",
        ),
        pytest.param(
            none_local(["", ""], "internalTrafficPolicy"),
            "none of its 2 endpoints has a nodeName, and the traffic policy is Local",
            id="on-unnamed-nodes",
        ),
        pytest.param(
            none_local(["node-2", ""], "internalTrafficPolicy"),
            "its 2 endpoints are on other nodes or have no nodeName, and the traffic policy is "
            "Local",
            id="on-another-node-and-on-an-unnamed-one",
        ),
        pytest.param(
            none_local(["node-2", "node-3"], "internalTrafficPolicy"),
            "its 2 endpoints are on other nodes, and the traffic policy is Local",
            id="on-other-nodes",
        ),
        pytest.param(
            none_usable(CauseCode.NOT_READY, [(1, "not ready")], 1),
            "its only endpoint is not ready",
            id="one-not-usable",
        ),
        pytest.param(
            none_usable(CauseCode.NOT_LOCAL, [(1, "not on this node"), (2, "not ready")], 3),
            "none of its 3 endpoints is usable: 1 not on this node, 2 not ready",
            id="none-usable",
        ),
    ],
)
def test_endpoints_that_are_not_usable_are_counted(cause, sentence):
    assert cause.sentence == sentence


def test_the_hint_of_a_policy_names_its_field():
    assert none_local(["node-2"], "externalTrafficPolicy").hint == (
        "externalTrafficPolicy: Cluster uses endpoints of all nodes"
    )


def test_endpoints_without_a_node_have_a_remedy():
    hint = none_local([""], "internalTrafficPolicy").hint
    assert hint.endswith("; nodeName in the EndpointSlice states where an endpoint is")


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        pytest.param(
            none_ready(SELECTING, 2),
            "kubectl describe pods -n shop -l app=web,tier=front",
            id="not-ready",
        ),
        pytest.param(
            none_ready(SELECTING, 2, 1),
            "kubectl get pods -n shop -l app=web,tier=front",
            id="ended",
        ),
        pytest.param(
            none_ready(WITHOUT_SELECTOR, 2),
            "It has no selector: what writes its EndpointSlice sets the conditions of endpoints",
            id="no-pods",
        ),
        pytest.param(
            slice_empty(service(selector=(("app", "w" * 200),)), 1),
            "kubectl get pods -n shop",
            id="a-selector-that-is-too-long",
        ),
    ],
)
def test_a_command_can_be_pasted(cause, hint):
    assert cause.hint == hint


def test_an_external_ip_that_is_allowed_and_taken_has_another_remedy():
    cause = external_ip_off("203.0.113.7", "it is an address of this node", is_allowed=True)
    assert cause.hint == "Give the Service an external IP that no machine of the cluster has"


def test_a_fault_on_purpose_names_the_endpoint_and_how_to_end_it():
    cause = fault_on_purpose(SocketAddress("10.244.0.7", 8080), ["refuse", "silent"])
    assert (cause.code, cause.object) == (CauseCode.FAULT_ON_PURPOSE, "10.244.0.7:8080")
    assert str(cause) == "10.244.0.7:8080 has a fault on purpose: refuse, silent"
    assert cause.hint == "To end it, have the program or toxiproxy client that set it remove it"


def test_of_many_notes_the_first_are_listed():
    some = [not_followed(f"field {number}") for number in range(NOTES_MAX)]
    assert first_notes(some) == tuple(some)
    *first, last = first_notes([*some, not_followed("one more")])
    assert first == some
    assert str(last) == "there are further notes: the first 10 are listed"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure.CLOSED, CauseCode.ENDPOINT_RESETS),
        (Failure.RESET, CauseCode.ENDPOINT_RESETS),
        (Failure.UNANSWERED, CauseCode.ENDPOINT_SENDS_NOTHING),
        (Failure.NOT_TO_ENDPOINT, CauseCode.PACKETS_LOST),
    ],
)
def test_an_end_without_a_byte_has_a_code(failure, code):
    assert end_code(failure) is code


def test_an_error_of_which_nothing_is_known_has_no_remedy():
    assert failed_with(errno.EMFILE).hint == ""


def test_endpoints_that_are_drained_name_the_slices_and_the_annotation():
    key = service().key
    drained = none_usable(CauseCode.NOT_READY, [(1, "drained")], 1, drained_of=key)
    assert drained.object == "EndpointSlices of shop/cart"
    assert "remove the annotation" in drained.hint
