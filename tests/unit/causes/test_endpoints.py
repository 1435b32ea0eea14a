"""Tests of which row reports which failure of a dial."""

import errno
import os

import pytest

from userspace_proxy.causes import endpoints
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import (
    DIAL_CODES,
    absent,
    dial_failed,
    end_code,
    fails,
    loses,
    no_gateway,
    no_host,
    no_route,
    not_all_to_endpoint,
    not_from_endpoint,
    not_to_client,
    not_to_endpoint,
    route_prohibits,
    route_unreachable,
)
from userspace_proxy.causes.say import remedy
from userspace_proxy.dataplane.udp_flow import REFUSALS
from userspace_proxy.model import Failure, SocketAddress
from userspace_proxy.model.failures import LOSSES, OWN_ROUTES, dial_failure
from userspace_proxy.model.node_network import NextHop

from . import words

POD = SocketAddress("10.244.1.8", 8080)
ALICE = "203.0.113.7"


def failed_with(number):
    return dial_failed(POD, dial_failure(number, POD.ip).failure, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "failure", "has_remedy"),
    [
        (errno.EPERM, Failure.NOT_PERMITTED, True),
        (errno.EINVAL, Failure.BLACKHOLE, True),
        (errno.EACCES, Failure.NO_ACCESS, True),
        (errno.ENOPROTOOPT, Failure.NO_PROTOCOL, True),
        (errno.EMFILE, Failure.EXHAUSTED, False),
        (errno.EMSGSIZE, Failure.OTHER, False),
    ],
)
def test_an_unclassified_error_keeps_its_text_and_a_known_remedy(number, failure, has_remedy):
    cause = failed_with(number)
    assert cause == fails(POD, failure, os.strerror(number))
    assert bool(remedy(cause)) is has_remedy


@pytest.mark.parametrize(
    ("failure", "row"),
    [
        (Failure.NO_HOST, no_host),
        (Failure.NO_ROUTE, no_route),
        (Failure.ROUTE_PROHIBITS, route_prohibits),
        (Failure.ROUTE_UNREACHABLE, route_unreachable),
    ],
)
def test_a_failure_determined_by_the_kernel_has_its_own_row(failure, row):
    assert dial_failed(POD, failure, "Key was rejected by service") == row(POD)
    # The errno alone must not select this row, because a router's ICMP error also sets it.
    assert failure in {Failure.NO_HOST, *OWN_ROUTES.values()}
    assert failure not in {dial_failure(number, POD.ip).failure for number in REFUSALS}


@pytest.mark.parametrize("failure", Failure)
def test_the_cause_of_a_failed_dial_has_the_code_of_its_failure(failure):
    assert dial_failed(POD, failure, "").code is DIAL_CODES[failure]
    assert DIAL_CODES[failure].traits.is_dial


@pytest.mark.parametrize(
    ("hop", "cause"),
    [
        (NextHop("eth0"), no_host(POD, "eth0")),
        (NextHop("eth0", "172.30.0.22"), no_gateway(POD, "172.30.0.22", "eth0")),
    ],
    ids=["on-its-link", "behind-a-gateway"],
)
def test_an_absent_host_is_reported_with_its_next_hop(hop, cause):
    assert absent(POD, hop) == cause


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure.CLOSED, CauseCode.ENDPOINT_RESETS),
        (Failure.RESET, CauseCode.ENDPOINT_RESETS),
        (Failure.UNANSWERED, CauseCode.ENDPOINT_SENDS_NOTHING),
        (Failure.NO_DATAGRAM, CauseCode.ENDPOINT_SENDS_NOTHING),
        *((failure, CauseCode.PACKETS_LOST) for failure in sorted(LOSSES)),
    ],
)
def test_a_connection_that_ended_without_a_byte_has_a_code(failure, code):
    assert end_code(failure) is code


@pytest.mark.parametrize(
    ("failure", "has_sent", "cause"),
    [
        pytest.param(Failure.NOT_TO_ENDPOINT, False, not_to_endpoint(POD), id="requests"),
        pytest.param(Failure.NOT_TO_ENDPOINT, True, not_all_to_endpoint(POD), id="later-requests"),
        pytest.param(Failure.FROM_ENDPOINT, True, not_from_endpoint(POD), id="answers"),
        pytest.param(Failure.NOT_TO_CLIENT, True, not_to_client(ALICE), id="client"),
    ],
)
def test_lost_packets_have_a_row_for_each_side_and_direction(failure, has_sent, cause):
    assert loses(POD, failure, ALICE, has_sent=has_sent) == cause


def test_the_recorded_page_contains_all_texts_about_endpoints():
    assert words.changed(endpoints) == []
