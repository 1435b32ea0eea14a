import pytest

from userspace_proxy.facts import Level
from userspace_proxy.model import (
    CauseCode,
    DataPath,
    Handling,
    Protocol,
    ProxyProtocol,
    SocketAddress,
)
from userspace_proxy.policy.causes import resets
from userspace_proxy.status.no_byte import no_byte_in_words, remedy_for_no_byte
from userspace_proxy.status.path_words import PathView

from .views import make_endpoint, make_port, replace

BOTH_WAIT = {"connections": 24, "received_bytes": 0, "sent_bytes": 0}
UNANSWERED = {"connections": 50, "received_bytes": 25_000, "sent_bytes": 0}


@pytest.mark.parametrize(
    ("figures", "sentence", "remedy"),
    [
        pytest.param(
            BOTH_WAIT,
            "No byte has passed in either direction (24 connections)",
            "Client and server may each wait for the other to begin: compare the protocol, and the "
            "port, that both speak",
            id="both-sides-wait",
        ),
        pytest.param(
            UNANSWERED,
            "No byte has come back (50 connections)",
            "programs that only receive (syslog, graphite) send nothing",
            id="requests-without-an-answer",
        ),
    ],
)
def test_connections_without_an_answer_are_an_observation_with_a_remedy(figures, sentence, remedy):
    port = make_port(**figures)
    said, way_out = no_byte_in_words(port, ""), remedy_for_no_byte(port)
    assert said == sentence
    assert remedy in way_out
    assert (port.mark, port.state.word) == (None, "unknown")
    assert (port.state.sentence, port.state.way_out) == (said, way_out)


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        pytest.param({}, "Ready: 2 endpoints; no client has connected yet", id="no-client"),
        pytest.param(
            {"refused": 3}, "Ready: 2 endpoints; no client has been served yet", id="none-served"
        ),
        pytest.param({"connections": 2}, "No byte has come back yet (2 connections)", id="few"),
        pytest.param(
            {"connections": 2, "protocol": Protocol.UDP},
            "No datagram has come back yet (2 flows)",
            id="flows",
        ),
    ],
)
def test_without_many_connections_there_is_no_remedy(figures, sentence):
    port = make_port(**{"connections": 0, "received_bytes": 0, "sent_bytes": 0, **figures})
    assert (port.mark, port.state.sentence, port.state.way_out) == (None, sentence, "")


def test_a_header_that_this_proxy_sends_may_be_why_nothing_comes_back():
    for figures in (UNANSWERED, BOTH_WAIT):
        port = make_port(**figures, handling=Handling(proxy_protocol=ProxyProtocol.V1))
        assert port.state.way_out.startswith("This proxy sends a PROXY header before")
        assert remedy_for_no_byte(make_port(**figures)) in port.state.way_out


def test_a_port_that_has_been_answered_has_no_remedy():
    state = make_port(connections=50, sent_bytes=1).state
    assert (state.word, state.way_out) == ("served", "")


def test_connections_before_the_kernel_path_have_no_remedy_there():
    port = replace(make_port(**BOTH_WAIT), path=PathView(DataPath.KERNEL))
    assert port.state.word == "unknown"
    assert port.state.way_out != make_port(**BOTH_WAIT).state.way_out


def closes(count, **facts):
    cause = replace(resets(SocketAddress("10.244.1.9", 8080)), count=count)
    return make_endpoint("10.244.1.9:8080", cause=cause, **facts)


@pytest.mark.parametrize(
    ("endpoints", "sent_bytes", "sentence"),
    [
        pytest.param(
            [closes(7)],
            0,
            f"No byte has come back in 7 connections: {closes(7).cause}",
            id="collector",
        ),
        pytest.param(
            [closes(1, is_past=True)],
            0,
            f"No byte has come back in 1 connection: {closes(1).cause}",
            id="a-while-ago",
        ),
        pytest.param(
            [closes(7), closes(2)],
            0,
            "No byte has come back in 9 connections: none of its 2 endpoints answers; "
            f"{closes(7).cause}",
            id="two",
        ),
        pytest.param(
            [closes(7)], 1, f"Clients get no answer: {closes(7).cause}", id="answered-before"
        ),
        pytest.param(
            [closes(9, resets=6, empty=3)],
            0,
            f"No byte has come back in 9 connections: {closes(9).cause}",
            id="closes-and-resets",
        ),
        pytest.param(
            [closes(9, resets=7, empty=3)], 0, f"Clients fail: {closes(9).cause}", id="resets-most"
        ),
        pytest.param([closes(7, resets=1)], 0, f"Clients fail: {closes(7).cause}", id="resets"),
    ],
)
def test_of_what_only_closes_is_said_what_was_seen(endpoints, sent_bytes, sentence):
    state = make_port(endpoints=tuple(endpoints), sent_bytes=sent_bytes).state
    assert (state.sentence, state.code) == (sentence, CauseCode.ENDPOINT_RESETS)
    assert "syslog, graphite" in state.way_out
    assert (state.level is Level.TROUBLE) == sentence.startswith("Clients fail")
    is_tried = not all(endpoint.is_past for endpoint in endpoints)
    assert state.is_problem == is_tried, "an alert ends when no client has tried since"
