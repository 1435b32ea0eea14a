import time

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.facts import Level
from userspace_proxy.facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    FailedDialFacts,
)
from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts
from userspace_proxy.model.connection_ends import EndedBy
from userspace_proxy.status.connection_words import (
    cells_of,
    edge_cells,
    level_of,
    line_of,
)

AT = time.mktime((2026, 11, 20, 9, 18, 3, 0, 0, -1)) + 0.9996
DEAD = FailedDialFacts("10.244.0.9:8080", CauseCode.ENDPOINT_REFUSES)


def one(event=ConnectionEvent.ENDED, **changes):
    fields = {
        "event": event,
        "at": AT,
        "service": "shop/web:http",
        "client": "10.244.0.7:41234",
        "endpoint": "10.244.0.3:8080",
        "received_bytes": 78,
        "sent_bytes": 1240,
        "waited_s": 0.0004,
        "first_byte_s": 0.0008,
        "duration_s": 3.14,
        "ended_by": EndedBy.CLIENT,
        "cause": "complete",
    }
    return ConnectionFacts(**fields | changes)


NOT_ENDED = {"ended_by": EndedBy.NONE, "cause": ""}
WAY = "10.244.0.7:41234 → shop/web:http"


@pytest.mark.parametrize(
    ("record", "line"),
    [
        pytest.param(
            one(),
            f"  ✓ 09:18:03.999 {WAY} → 10.244.0.3:8080: 78 B in, 1.2 kB out, first byte after "
            "1.2 ms; complete, by the client, after 3.1 s",
            id="ended",
        ),
        pytest.param(
            one(client_pod="shop/cart-1", failed=(DEAD,), waited_s=1.004),
            "  ! 09:18:03.999 shop/cart-1 → shop/web:http → 10.244.0.3:8080: 10.244.0.9:8080 failed"
            " (endpoint-refuses), 78 B in, 1.2 kB out, answered after 1.0 s, first byte after "
            "1.0 s; complete, by the client, after 3.1 s",
            id="ended-after-it-was-saved",
        ),
        pytest.param(
            one(ConnectionEvent.SAVED, failed=(DEAD,), **NOT_ENDED),
            f"  ! 09:18:03.999 {WAY} → 10.244.0.3:8080: 10.244.0.9:8080 failed (endpoint-refuses), "
            "answered after 0.4 ms",
            id="saved",
        ),
        pytest.param(
            one(frontend="[fd00::21]:30050", in_range=True, cause="reset"),
            "  ✓ 09:18:03.999 10.244.0.7:41234 → shop/web:http port 30050 → 10.244.0.3:8080: 78 B "
            "in, 1.2 kB out, first byte after 1.2 ms; reset, by the client, after 3.1 s",
            id="in-a-range",
        ),
        pytest.param(
            one(ConnectionEvent.HELD, in_range=True, endpoint="", **NOT_ENDED),
            f"  ! 09:18:03.999 {WAY}: waits for an endpoint",
            id="held",
        ),
        pytest.param(
            one(
                ConnectionEvent.REFUSED,
                endpoint="",
                failed=(DEAD,),
                cause="unanswered",
                ended_by=EndedBy.PROXY,
            ),
            f"  ✕ 09:18:03.999 {WAY}: 10.244.0.9:8080 failed (endpoint-refuses); refused: "
            "unanswered, by the proxy, after 3.1 s",
            id="refused",
        ),
        pytest.param(
            ConnectionFacts(
                event=ConnectionEvent.DROPPED,
                at=AT,
                service="shop/dns",
                count=1200,
                cause="packets",
            ),
            "  ✕ 09:18:03.999 shop/dns: packets were dropped: 1,200",
            id="dropped",
        ),
        pytest.param(
            ConnectionFacts(event=ConnectionEvent.LEFT_OUT, at=AT, count=1, cause="too many"),
            "  · 09:18:03.999 1 connection left out: too many",
            id="left-out",
        ),
        pytest.param(
            ConnectionFacts(
                event=ConnectionEvent.UNSEEN, at=AT, service="shop/dns", cause="kernel path"
            ),
            "  · 09:18:03.999 shop/dns: its connections can't be seen: kernel path",
            id="unseen",
        ),
        pytest.param(
            ConnectionFacts(event=ConnectionEvent.UNSEEN, at=AT, cause="others", count=3),
            "  · 09:18:03.999 3 more Service ports can't be seen: others",
            id="more-unseen",
        ),
    ],
)
def test_the_line_of_a_connection_describes_its_events(record, line):
    assert line_of(record) == line


def test_a_line_wraps_below_its_own_text_on_80_columns():
    lines = line_of(one(client_pod="shop/cart-7d9f8b6c5d-x2x9z", failed=(DEAD,)), 80).splitlines()
    assert lines == [
        "  ! 09:18:03.999 shop/cart-7d9f8b6c5d-x2x9z → shop/web:http → 10.244.0.3:8080:",
        "                 10.244.0.9:8080 failed (endpoint-refuses), 78 B in, 1.2 kB out,",
        "                 first byte after 1.2 ms; complete, by the client, after 3.1 s",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        pytest.param({"waited_s": 0.7, "first_byte_s": 0.7}, "first byte after 1.4 s", id="both"),
        pytest.param({"first_byte_s": None}, "1.2 kB out; complete", id="unknown-time"),
        pytest.param({"first_byte_s": None, "sent_bytes": 0}, "no byte in 3.1 s", id="no-byte"),
    ],
)
def test_the_line_of_a_slow_connection_shows_which_duration_was_long(fields, shown):
    slow = one(**fields)
    assert ConnectionFilter(slow_s=1.0).takes(slow)
    assert shown in line_of(slow)


def test_the_line_of_a_connection_can_contain_the_node_name():
    line, of_node = line_of(one()), line_of(one(), node="node-7")
    assert "999 node-7 " in of_node
    assert of_node.replace("node-7 ", "") == line
    lines = line_of(one(), 60, "node-7").splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 60


def test_a_line_that_fits_the_terminal_is_not_wrapped():
    held = one(ConnectionEvent.HELD, endpoint="", **NOT_ENDED)
    assert line_of(held, 80) == line_of(held)


def test_control_characters_are_escaped():
    assert "\x1b" not in line_of(one(service="shop/\x1b[2J"))


def test_the_level_of_a_connection_follows_from_its_outcome():
    reset, saved = one(cause="reset", sent_bytes=0), one(failed=(DEAD,))
    assert [level_of(record) for record in (one(), reset, saved)] == [
        Level.OK,
        Level.TROUBLE,
        Level.ATTENTION,
    ]
    assert level_of(one(ConnectionEvent.LEFT_OUT)) is None


def test_a_client_that_left_and_an_unanswered_flow_have_level_attention():
    left = one(endpoint="", cause="left", received_bytes=0, sent_bytes=0, first_byte_s=None)
    assert level_of(left) is Level.ATTENTION
    flow = one(kind="flow", failed=(DEAD,), sent_bytes=0, first_byte_s=None, cause="idle")
    assert level_of(flow) is Level.ATTENTION


def test_a_connection_answered_after_its_client_left_has_level_trouble():
    assert level_of(one(code=CauseCode.ENDPOINT_ANSWERS_LATE)) is Level.TROUBLE


def test_a_connection_with_bytes_in_only_one_direction_has_level_attention():
    # The endpoint may have no answer to send (syslog), or may hang.
    assert level_of(one(sent_bytes=0, first_byte_s=None)) is Level.ATTENTION
    assert level_of(one(kind="flow", sent_bytes=0, first_byte_s=None)) is Level.ATTENTION


def test_the_line_of_an_unanswered_connection_contains_its_cause_code():
    reset = one(sent_bytes=0, cause="reset", code=CauseCode.ENDPOINT_RESETS, ended_by="endpoint")
    assert "; reset (endpoint-resets), by the endpoint, after" in line_of(reset)


def test_the_cells_of_a_row_are_the_parts_of_its_line():
    assert cells_of(one())[:4] == [
        "09:18:03.999",
        "10.244.0.7:41234",
        "shop/web:http",
        "10.244.0.3:8080",
    ]
    assert cells_of(one())[4].startswith("78 B in, 1.2 kB out")


def test_the_client_table_lists_the_busiest_clients_and_sums_the_other_clients():
    rows = tuple(
        EdgeFacts(client=f"10.0.0.{n}", service="shop/web", connections=9 - n) for n in range(3)
    )
    named = EdgeFacts(
        client="10.0.0.9", client_pod="shop/cart-1", service="a/b", connections=2000, failed=3
    )
    edges = EdgesFacts(edges=(named, *rows), others=5)
    assert edge_cells(edges, 2) == [
        ["shop/cart-1", "a/b", "2,000", "3"],
        ["10.0.0.0", "shop/web", "9", "0"],
        ["others", "any Service", "20", ""],
    ]
    assert edge_cells(EdgesFacts(edges=(named,)), 2) == [["shop/cart-1", "a/b", "2,000", "3"]]
