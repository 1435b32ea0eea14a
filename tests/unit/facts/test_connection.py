import math

import msgspec
import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    FailedDialFacts,
    ending,
    failed_dials,
    port_fields,
    read_connection,
)
from userspace_proxy.model import IPFamily, PortKey, ServicePortName, Side, SocketAddress
from userspace_proxy.model.connection_ends import EndedBy

EXTERNAL_V6 = PortKey(ServicePortName("shop", "web", "http"), IPFamily.IPV6, Side.EXTERNAL)
DEAD = FailedDialFacts("10.244.0.9:80", CauseCode.ENDPOINT_REFUSES)


def served(**changes):
    """Return a connection that was served and closed normally."""
    fields = {
        **port_fields(port_key("shop/web:http")),
        "client": "10.244.0.7:41234",
        "endpoint": "10.244.0.3:80",
        "waited_s": 0.001,
        "first_byte_s": 0.002,
        "received_bytes": 78,
        "sent_bytes": 1240,
        "duration_s": 3.0,
        "ended_by": EndedBy.CLIENT,
        "cause": "complete",
    }
    return ConnectionFacts(**fields | changes)


def flow(**changes):
    """Return a flow whose endpoint answered and later refused a datagram."""
    return served(**{"kind": "flow", "cause": "refused", "ended_by": EndedBy.ENDPOINT} | changes)


@pytest.mark.parametrize(
    ("one", "is_failed"),
    [
        pytest.param(served(), False, id="complete"),
        pytest.param(served(event=ConnectionEvent.REFUSED, cause="unanswered"), True, id="refused"),
        pytest.param(served(event=ConnectionEvent.DROPPED), True, id="dropped"),
        pytest.param(served(event=ConnectionEvent.SAVED, sent_bytes=0), False, id="saved"),
        pytest.param(served(event=ConnectionEvent.HELD, sent_bytes=0), False, id="held"),
        pytest.param(served(cause="reset"), False, id="reset-by-the-client"),
        pytest.param(served(cause="reset", ended_by=EndedBy.ENDPOINT), True, id="endpoint-reset"),
        pytest.param(served(cause="evicted", ended_by=EndedBy.PROXY), True, id="evicted"),
        pytest.param(served(cause="idle", ended_by=EndedBy.PROXY), False, id="idle"),
        pytest.param(
            served(endpoint="", failed=(DEAD,), cause="reset", received_bytes=0, sent_bytes=0),
            True,
            id="left-after-a-failed-dial",
        ),
        pytest.param(served(code=CauseCode.ENDPOINT_ANSWERS_LATE), True, id="answered-too-late"),
        pytest.param(served(sent_bytes=0), False, id="one-way"),
        pytest.param(
            served(sent_bytes=0, ended_by=EndedBy.ENDPOINT), True, id="closed-without-an-answer"
        ),
        pytest.param(served(sent_bytes=0, cause="reset"), True, id="left-without-an-answer"),
        pytest.param(
            served(sent_bytes=0, cause="idle", ended_by=EndedBy.PROXY), True, id="never-closed"
        ),
        pytest.param(served(sent_bytes=0, received_bytes=0), False, id="never-asked"),
        pytest.param(
            served(sent_bytes=0, received_bytes=0, code=CauseCode.ENDPOINT_RESETS),
            True,
            id="closed-at-once",
        ),
        pytest.param(served(sent_bytes=0, kind="flow"), False, id="one-way-datagrams"),
    ],
)
def test_the_event_bytes_cause_and_end_of_a_connection_determine_whether_it_failed(one, is_failed):
    assert one.is_failed is is_failed


def test_a_flow_is_saved_once_its_endpoint_has_answered():
    flow = served(kind="flow", failed=(DEAD,))
    assert flow.is_saved
    flow.first_byte_s = None
    assert not flow.is_saved


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        pytest.param(served(), 0.003, id="first-byte"),
        pytest.param(served(first_byte_s=None, sent_bytes=0), 3.0, id="unanswered-request"),
        pytest.param(served(first_byte_s=None, received_bytes=0), 0.001, id="never-asked"),
        pytest.param(served(first_byte_s=None, endpoint="", received_bytes=0), 3.0, id="refused"),
    ],
)
def test_time_to_first_byte_includes_the_connect_time(one, seconds):
    assert one.until_first_byte_s == seconds


@pytest.mark.parametrize(
    ("service", "taken"),
    [
        ("", True),
        ("shop", True),
        ("shop/web", True),
        ("shop/web:http", True),
        ("shop/web:https", False),
        ("shop/we", False),
        ("sho", False),
        ("default/web", False),
    ],
)
def test_a_filter_selects_a_service_by_namespace_name_or_port(service, taken):
    wanted = ConnectionFilter(service=service)
    assert wanted.takes(served()) is taken
    assert wanted.takes(served(**port_fields(EXTERNAL_V6))) is taken
    assert wanted.takes_service(EXTERNAL_V6.name.prefixes) is taken


@pytest.mark.parametrize(
    ("client", "ip"),
    [("10.244.0.7:41234", "10.244.0.7"), ("[fd00::7]:41234", "fd00::7")],
)
def test_a_filter_selects_a_client_by_its_ip_without_the_port(client, ip):
    one = served(client=client)
    assert one.client_ip == ip
    assert ConnectionFilter(client=ip).takes(one)
    assert not ConnectionFilter(client="10.244.0.8").takes(one)


def test_a_filter_can_be_copied_for_another_service():
    wanted = ConnectionFilter(service="shop/web:80", failed=True)
    assert wanted.of("shop/web:http") == ConnectionFilter(service="shop/web:http", failed=True)


def test_a_filter_with_several_kinds_selects_connections_of_any_of_these_kinds():
    either = ConnectionFilter(failed=True, saved=True)
    saved, failed = served(failed=(DEAD,)), served(cause="reset", sent_bytes=0)
    assert [either.takes(one) for one in (saved, failed, served())] == [True, True, False]
    assert not ConnectionFilter(failed=True, service="other").takes(failed)


def test_the_filter_slow_selects_connections_that_waited_at_least_its_value():
    slow = ConnectionFilter(slow_s=0.003)
    assert slow.takes(served())
    assert not slow.takes(served(first_byte_s=0.0015))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"slow_s": 1e12}, id="too-long"),
        pytest.param({"slow_s": -1}, id="negative"),
        pytest.param({"slow_s": math.nan}, id="no-number"),
        pytest.param({"slow_s": "x"}, id="text"),
        pytest.param({"failed": "yes"}, id="text-for-a-condition"),
        pytest.param({"service": "s" * 513}, id="too-many-characters"),
    ],
)
def test_an_invalid_filter_is_rejected(fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f"{name}: Expected"):
        ConnectionFilter(**fields)


def test_a_client_that_leaves_is_not_counted_as_refused():
    assert ending(EndedBy.CLIENT, is_served=False) is ConnectionEvent.ENDED
    assert ending(EndedBy.PROXY, is_served=False) is ConnectionEvent.REFUSED
    assert ending(EndedBy.PROXY, is_served=True) is ConnectionEvent.ENDED


def test_failed_dials_have_causes_and_exclude_the_endpoint_that_finally_answered():
    assert failed_dials(None) == ()
    tried = {SocketAddress("10.244.0.9", 80): CauseCode.ENDPOINT_REFUSES}
    assert failed_dials(tried) == (DEAD,)
    assert failed_dials(tried, next(iter(tried))) == ()
    assert str(DEAD) == "10.244.0.9:80 endpoint-refuses"


def test_a_connections_log_fields_are_strings_and_rounded_seconds():
    fields = served(failed=(DEAD,), waited_s=0.0000004, first_byte_s=None).log_fields()
    assert (fields["failed"], fields["waited_s"]) == ("10.244.0.9:80 endpoint-refuses", 0.0)
    assert fields["first_byte_s"] is None
    assert "at" not in fields


@pytest.mark.parametrize("line", [b"", b"[]", b'{"sent_bytes":-1}', b'{"event":"other"}'])
def test_an_invalid_connection_record_raises_a_decode_error(line):
    with pytest.raises(msgspec.DecodeError):
        read_connection(line)


@pytest.mark.parametrize(
    ("one", "is_unanswered"),
    [
        pytest.param(served(), False, id="bytes"),
        pytest.param(served(code=CauseCode.ENDPOINT_ANSWERS_LATE), True, id="too-late"),
        pytest.param(served(sent_bytes=0, received_bytes=0), False, id="not-asked"),
        pytest.param(served(sent_bytes=0), True, id="not-passed-on"),
        pytest.param(flow(sent_bytes=0), False, id="an-empty-datagram"),
        pytest.param(flow(first_byte_s=8.0), True, id="a-late-datagram"),
        pytest.param(flow(sent_bytes=0, first_byte_s=None), True, id="no-datagram"),
    ],
)
def test_a_response_counts_only_if_it_reached_the_client_in_time(one, is_unanswered):
    assert one.is_unanswered is is_unanswered


@pytest.mark.parametrize(
    ("one", "code"),
    [
        pytest.param(served(), None, id="answered"),
        pytest.param(served(failed=(DEAD,)), None, id="saved"),
        pytest.param(
            served(event=ConnectionEvent.REFUSED, endpoint="", failed=(DEAD,), first_byte_s=None),
            CauseCode.ENDPOINT_REFUSES,
            id="refused",
        ),
        pytest.param(
            flow(endpoint="10.244.0.9:80", failed=(DEAD,), sent_bytes=0, first_byte_s=None),
            CauseCode.ENDPOINT_REFUSES,
            id="refused-by-its-endpoint",
        ),
        pytest.param(
            flow(endpoint="10.244.0.9:80", failed=(DEAD,)), None, id="answered-and-then-refused"
        ),
        pytest.param(
            flow(sent_bytes=0, first_byte_s=None, cause="idle"),
            CauseCode.ENDPOINT_SENDS_NOTHING,
            id="flow-without-an-answer",
        ),
        pytest.param(flow(sent_bytes=0, cause="idle"), None, id="answered-by-an-empty-datagram"),
        pytest.param(
            served(code=CauseCode.ENDPOINT_RESETS, sent_bytes=0),
            CauseCode.ENDPOINT_RESETS,
            id="reset",
        ),
    ],
)
def test_an_unanswered_client_has_a_cause_code(one, code):
    assert one.code == code
    assert read_connection(msgspec.json.encode(one)).code == code
