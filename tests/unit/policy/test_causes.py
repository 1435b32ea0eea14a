"""The words of causes; those about endpoints that aren't usable are in test_no_endpoints."""

import errno
import os

import pytest

from userspace_proxy.model import CauseCode, SocketAddress
from userspace_proxy.policy.causes import (
    dial_failed,
    external_ip_off,
    not_listening,
    out_of_client_ports,
    out_of_ports,
    resets,
    source_denied,
)

POD = SocketAddress("10.244.0.3", 8080)


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        pytest.param(
            errno.ECONNREFUSED,
            CauseCode.ENDPOINT_REFUSES,
            "10.244.0.3:8080 refuses connections: nothing listens on port 8080 there",
            id="refused",
        ),
        pytest.param(
            errno.ETIMEDOUT,
            CauseCode.ENDPOINT_SILENT,
            "10.244.0.3:8080 does not answer: packets are dropped, or the pod hangs",
            id="silent",
        ),
        pytest.param(
            errno.EHOSTUNREACH,
            CauseCode.ENDPOINT_UNREACHABLE,
            "no route to 10.244.0.3: that address does not exist, or its node is down",
            id="no-such-host",
        ),
        pytest.param(
            errno.ENETUNREACH,
            CauseCode.ENDPOINT_UNREACHABLE,
            "no route to 10.244.0.3: that address does not exist, or its node is down",
            id="no-route",
        ),
        pytest.param(
            errno.EPERM,
            CauseCode.ENDPOINT_FAILS,
            "10.244.0.3:8080 can't be dialled: Operation not permitted",
            id="forbidden",
        ),
        pytest.param(
            errno.EINVAL,
            CauseCode.ENDPOINT_FAILS,
            "10.244.0.3:8080 can't be dialled: Invalid argument",
            id="another-error",
        ),
    ],
)
def test_a_failed_dial_is_worded_by_its_errno(number, code, sentence):
    cause = dial_failed(POD, number, os.strerror(number), count=9, first_at=3.0, last_at=5.0)
    assert (cause.code, str(cause), cause.object) == (code, sentence, "10.244.0.3:8080")
    assert (cause.count, cause.first_at, cause.last_at) == (9, 3.0, 5.0)


def test_a_dial_that_this_node_forbids_has_a_hint_to_its_firewall():
    hints = [dial_failed(POD, n, "").hint for n in (errno.EPERM, errno.EACCES, errno.EINVAL)]
    assert ["firewall" in hint for hint in hints] == [True, True, False]


def test_an_endpoint_that_ends_connections_without_an_answer():
    cause = resets(POD, count=8, last_at=5.0)
    assert (cause.code, cause.count) == (CauseCode.ENDPOINT_RESETS, 8)
    assert str(cause) == "10.244.0.3:8080 accepts connections and ends them without answering"


def test_an_external_ip_that_is_not_served_names_the_flag():
    cause = external_ip_off("203.0.113.7", "external IPs are off")
    assert str(cause) == "external IP 203.0.113.7 is not served: external IPs are off"
    assert (cause.object, "--allow-external-ips" in cause.hint) == ("203.0.113.7", True)


def test_causes_of_this_node_have_a_remedy():
    causes = [not_listening("in use", "stop it"), out_of_ports(), out_of_client_ports()]
    assert [cause.code for cause in causes] == [
        CauseCode.NOT_LISTENING,
        CauseCode.OUT_OF_PORTS,
        CauseCode.OUT_OF_CLIENT_PORTS,
    ]
    assert all(cause.hint for cause in causes)


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        pytest.param((), "all clients are dropped", id="none"),
        pytest.param(("198.51.100.0/24",), "clients outside 198.51.100.0/24 are dropped", id="one"),
        pytest.param(
            [f"10.{n}.0.0/16" for n in range(6)],
            "clients outside 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, … "
            "are dropped",
            id="many",
        ),
    ],
)
def test_clients_that_are_not_admitted_are_outside_some_networks(networks, sentence):
    cause = source_denied(networks, count=3, first_at=1.0, last_at=2.0)
    assert (cause.code, cause.sentence) == (CauseCode.SOURCE_DENIED, sentence)
    assert (cause.count, cause.first_at, cause.last_at) == (3, 1.0, 2.0)
