import pytest

from userspace_proxy.facts import FrontendFacts, Level
from userspace_proxy.model import (
    CauseCode,
    DataPath,
    Failure,
    FrontendKind,
    Handling,
    Protocol,
    ProxyProtocol,
    SocketAddress,
)
from userspace_proxy.policy.causes import dial_failed, resets
from userspace_proxy.policy.endpoint_causes import (
    DroppedBy,
    dropped_here,
    no_datagram,
    sends_nothing,
    silent_since,
)
from userspace_proxy.status.no_byte import (
    last_in_words,
    no_byte_in_words,
    remedy_for_no_byte,
    with_age,
    without_silence,
)
from userspace_proxy.status.path_words import PathView

from .views import NOW, make_endpoint, make_port, replace

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
        pytest.param(
            {**UNANSWERED, "protocol": Protocol.UDP},
            "No datagram has come back (50 flows)",
            "endpoints that only receive (statsd, syslog) send nothing",
            id="flows-without-an-answer",
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


POD, OTHER = SocketAddress("10.244.1.9", 8125), SocketAddress("10.244.1.10", 8125)
MUTE = replace(no_datagram(POD), count=3)
REFUSES = dial_failed(OTHER, Failure.REFUSED, "Connection refused")


def causes_of(*causes, **facts):
    """Return the causes that are left of those of UDP endpoints of which none has ever answered."""
    endpoints = tuple(make_endpoint(str(POD), cause=cause, is_past=True) for cause in causes)
    facts = {"protocol": Protocol.UDP, "sent_bytes": 0, **facts}
    return [e.cause for e in without_silence(make_port(endpoints=endpoints, **facts))]


def test_udp_endpoints_of_which_none_has_ever_answered_may_only_receive():
    assert causes_of(MUTE, None) == [None, None]
    (endpoint,) = without_silence(
        make_port(
            endpoints=(make_endpoint(str(POD), cause=MUTE, is_past=True),),
            protocol=Protocol.UDP,
            sent_bytes=0,
        )
    )
    assert (endpoint.is_past, endpoint.level) == (False, Level.OK)


@pytest.mark.parametrize(
    ("causes", "facts"),
    [
        pytest.param([MUTE], {"sent_bytes": 1}, id="one-has-answered"),
        pytest.param([MUTE, REFUSES], {}, id="another-fails"),
        pytest.param([silent_since(MUTE, REFUSES)], {}, id="it-failed-before"),
        pytest.param([sends_nothing(POD)], {"protocol": Protocol.TCP}, id="tcp"),
        pytest.param([None], {}, id="none"),
    ],
)
def test_causes_that_show_more_than_silence_are_kept(causes, facts):
    assert causes_of(*causes, **facts) == causes


def closes(count, **facts):
    cause = replace(resets(SocketAddress("10.244.1.9", 8080)), count=count)
    return make_endpoint("10.244.1.9:8080", cause=cause, **facts)


def test_a_rule_of_this_node_is_named_in_full_also_as_the_second_cause():
    rule = DroppedBy("nftables chain ip f out of another program (output, priority 0) drops it")
    dropped = dropped_here(SocketAddress("10.244.1.8", 8080), rule)
    port = make_port(endpoints=(closes(7), make_endpoint("10.244.1.8:8080", cause=dropped)))
    assert port.state.sentence == (
        f"Clients fail: none of its 2 endpoints answers; {closes(7).cause}; {dropped.sentence}"
    )


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


QUIET = {"is_quiet": True, "sent_at": NOW - 28 * 60}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({}, "Ready: 2 endpoints; {}", id="userspace"),
        pytest.param(
            {"kernel_connections": 3},
            "Ready: 2 endpoints; on the userspace path {}",
            id="others-in-the-kernel",
        ),
    ],
)
def test_clients_that_were_answered_a_while_ago_are_so_in_the_past_with_the_age(changes, sentence):
    port = make_port(**QUIET, **changes)
    said = sentence.format("no client has been answered in the last minute")
    assert (port.mark, port.state.word, port.state.sentence) == (Level.OK, "served", said)
    assert with_age(said, port, NOW) == f"{said} (last answer 28 min ago)"
    assert last_in_words(port, NOW) == "last answer 28 min ago"


def test_an_answer_of_a_moment_ago_has_no_age():
    port = make_port(sent_at=NOW - 2)
    assert with_age(port.state.sentence, port, NOW) == "Served by 2 endpoints"
    assert last_in_words(port, NOW) == ""


def test_a_clock_that_was_set_back_makes_no_age_negative():
    assert last_in_words(make_port(is_quiet=True, sent_at=NOW + 5), NOW) == "last answer 0 ms ago"


@pytest.mark.parametrize(
    ("ips", "where"),
    [
        (["127.0.0.1", "192.0.2.1"], "; node port at 192.0.2.1:30080"),
        (["192.0.2.1", "198.51.100.1"], "; node port at 192.0.2.1:30080 and 198.51.100.1:30080"),
        (["192.0.2.1", "198.51.100.1", "203.0.113.1"], ""),
        (["127.0.0.1"], ""),
    ],
)
def test_a_service_without_clients_says_where_its_node_port_is(ips, where):
    port = make_port(connections=0)
    ports = [FrontendFacts(f"{ip}:30080", FrontendKind.NODE_PORT) for ip in ips]
    port.frontends = (*port.frontends, *ports)
    assert no_byte_in_words(port, "1 endpoint") == (
        f"Ready: 1 endpoint; no client has connected yet{where}"
    )
