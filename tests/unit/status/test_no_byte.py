import pytest

from userspace_proxy.model import DataPath, Protocol
from userspace_proxy.status.no_byte import no_byte_in_words, remedy_for_no_byte
from userspace_proxy.status.path_words import PathView

from .views import make_port, replace

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


def test_a_port_that_has_been_answered_has_no_remedy():
    state = make_port(connections=50, sent_bytes=1).state
    assert (state.word, state.way_out) == ("served", "")


def test_connections_before_the_kernel_path_have_no_remedy_there():
    port = replace(make_port(**BOTH_WAIT), path=PathView(DataPath.KERNEL))
    assert port.state.word == "unknown"
    assert port.state.way_out != make_port(**BOTH_WAIT).state.way_out
