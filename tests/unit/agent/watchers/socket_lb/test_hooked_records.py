"""Records of connections that connect() hooks have translated."""

import logging

import pytest

from tests.port_keys import port_key
from tests.unit.agent.watchers.socket_lb.hooks import CLIENT, FRONTEND
from userspace_proxy.agent.watchers.socket_lb.hooked_records import Records
from userspace_proxy.dataplane import Tuning
from userspace_proxy.facts.connection import ConnectionFilter
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.socket_lb.hooks import SocketEvent
from userspace_proxy.steering.socket_lb.socket_maps import EventKind, Result, RingEvent

POD = SocketAddress("192.0.2.1", 8080)
WEB = port_key("shop/web")


def event(result=Result.SERVED, **more):
    fields = {"received": 500, "sent": 70, "tcp_state": 5} if result is Result.SERVED else {}
    seen = RingEvent(
        kind=EventKind.CONNECTION,
        endpoint=0,
        at_ns=0,
        client=CLIENT,
        frontend=FRONTEND,
        ns=2_000_000_000,
        waited_ns=1_000_000,
        result=result,
        **({"received": 0, "sent": 0, "tcp_state": 2} | fields | more),
    )
    return SocketEvent(WEB, POD, seen)


def observed(*events, **wanted):
    """Return the records of the events that match a filter, and how many records were lost."""
    records, filters = Records(Tuning()), [ConnectionFilter(**wanted)]
    records.observe(filters)
    for one in events:
        records.note(one)
    found = records.observe(filters)
    return found.records, [left.number for left in found.left_out]


@pytest.mark.parametrize(
    ("state", "ended_by", "cause", "is_failed"),
    [
        pytest.param(5, "client", "complete", False, id="client-first"),
        pytest.param(9, "endpoint", "complete", False, id="endpoint-first"),
        pytest.param(4, "client", "reset", False, id="reset-after-the-clients-fin"),
        pytest.param(8, "endpoint", "reset", True, id="reset-after-the-endpoints-fin"),
        pytest.param(1, "", "reset", True, id="reset"),
    ],
)
def test_the_final_tcp_state_shows_how_a_connection_ended(state, ended_by, cause, is_failed):
    (one,), _ = observed(event(tcp_state=state))
    assert (one.ended_by, one.cause, one.is_failed) == (ended_by, cause, is_failed)
    assert (one.endpoint, one.waited_s, one.duration_s) == (str(POD), 0.001, 2.0)
    assert (one.received_bytes, one.sent_bytes) == (70, 500)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        pytest.param(Result.REFUSED, "endpoint-refuses", id="refused"),
        pytest.param(Result.UNANSWERED, "endpoint-silent", id="unanswered"),
    ],
)
def test_a_refused_or_unanswered_dial_counts_as_a_failed_client(result, code):
    (one,), _ = observed(event(result), failed=True)
    assert (one.event, one.code, one.endpoint) == ("refused", code, "")
    assert [(each.endpoint, each.cause) for each in one.failed] == [(str(POD), code)]


def test_a_client_that_cancels_its_dial_does_not_count_as_a_failure():
    (one,), _ = observed(event(Result.GIVEN_UP))
    assert (one.ended_by, one.cause, one.is_failed) == ("client", "left", False)
    assert observed(event(Result.GIVEN_UP), failed=True) == ([], [])


def test_records_beyond_the_limit_are_counted_as_omitted():
    records, left_out = observed(*[event()] * 200)
    assert len(records) + sum(left_out) == 200
    assert left_out


@pytest.mark.parametrize(
    ("wanted", "left_out"),
    [
        pytest.param({}, [7], id="all"),
        pytest.param({"service": "shop/web"}, [7], id="same-service"),
        pytest.param({"service": "shop/cart"}, [], id="another-service"),
        pytest.param({"client": CLIENT.ip}, [7], id="any-client"),
        pytest.param({"failed": True}, [7], id="failures"),
    ],
)
def test_records_lost_in_bpf_programs_count_for_each_filter_that_may_match(wanted, left_out):
    records, filters = Records(Tuning()), [ConnectionFilter(**wanted)]
    records.observe(filters)
    records.leave_out(WEB.name.prefixes, 3)
    records.leave_out(WEB.name.prefixes, 4)
    assert [left.number for left in records.observe(filters).left_out] == left_out
    assert records.observe(filters).left_out == []


def test_connections_are_logged_in_the_format_of_workers(caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.connections")
    records = Records(Tuning(connection_log=1.0))
    assert records.are_logged
    records.note(event())
    (line,) = caplog.records
    assert (line.getMessage(), line.service, line.frontend) == (
        "connection ended: complete",
        "shop/web",
        str(FRONTEND),
    )
