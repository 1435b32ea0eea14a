import pytest

from userspace_proxy.facts import LatelyFacts, Level, PortState, Waits
from userspace_proxy.model import Handling, Hold, Protocol
from userspace_proxy.status.waits import (
    MORE_ROOM,
    held_at_limit,
    judge_at_limit,
    judge_held,
    judge_holding,
)

from .views import make_port

WHY = "its only endpoint is not ready"
HOLD = Handling(hold=Hold(60))


def holding(**changes):
    return make_port(endpoints=(), reason=WHY, handling=HOLD, **changes)


@pytest.mark.parametrize(
    ("waits", "level", "sentence"),
    [
        pytest.param(
            Waits(), Level.OK, "Clients would wait for an endpoint for 1 min: ", id="nobody"
        ),
        pytest.param(
            Waits(2, 3.0), Level.ATTENTION, "Holding 2 connections, the longest for 3 s: ", id="now"
        ),
        pytest.param(
            Waits(total=9, timeouts=2, overflows=3, left=4),
            Level.ATTENTION,
            "Clients would wait for an endpoint for 1 min: ",
            id="none-was-served",
        ),
        pytest.param(
            Waits(total=9, timeouts=2, overflows=3, left=3),
            Level.OK,
            "Clients would wait for an endpoint for 1 min: ",
            id="one-was-served",
        ),
    ],
)
def test_a_service_that_holds_says_who_waits(waits, level, sentence):
    found, word, said, causes = judge_holding(holding(waits=waits))
    assert (found, word, causes) == (level, "holding", ())
    assert said.startswith(f"{sentence}{WHY}")
    assert said.endswith("; 9 clients waited, and none was served") == (waits.left == 4)


def test_those_that_got_no_endpoint_stand_behind_those_that_wait():
    lost = holding(waits=Waits(2, 0.2), lately=LatelyFacts(0, waited=109))
    assert judge_held(lost, WHY)[2] == (
        f"Holding 2 connections, the longest for 200 ms: {WHY}; 109 of 109 connections failed in "
        "the last minute: no endpoint took them in time"
    )


def test_a_workload_that_could_not_be_scaled_is_named():
    short = holding(waits=Waits(2, 0.2, problem="cannot scale fn/mailer: forbidden"))
    assert judge_held(short, WHY)[2].endswith(f"{WHY}; cannot scale fn/mailer: forbidden")


def test_clients_of_endpoints_at_their_limit_wait_for_room():
    port = make_port(handling=Handling(max_connections=1), waits=Waits(3, 2.0))
    sentence = (
        "Holding 3 connections, the longest for 2 s: endpoints have 1 connection each, which is "
        "their limit on this node"
    )
    assert judge_at_limit(port) == (Level.ATTENTION, PortState.AT_LIMIT, sentence, ())
    assert (port.state.word, port.state.way_out) == (PortState.AT_LIMIT, MORE_ROOM)


def test_clients_that_hold_all_places_of_a_program_that_hangs_are_explained_by_it():
    handling, waits = Handling(max_connections=1), Waits(3, 2.0)
    mute = {"handling": handling, "waits": waits, "sent_bytes": 0}
    hung = make_port(connections=5, **mute)
    assert held_at_limit(hung).endswith(" on this node; no byte has come back")
    assert hung.state.way_out.startswith("Read the log of the program")
    assert held_at_limit(make_port(connections=0, **mute)).endswith(" on this node")


def test_flows_are_called_flows():
    port = make_port(
        handling=Handling(max_connections=2), waits=Waits(3, 2.0), protocol=Protocol.UDP
    )
    assert held_at_limit(port).startswith(
        "holding 3 flows, the longest for 2 s: endpoints have 2 flows each"
    )


def test_of_a_client_that_keeps_to_one_endpoint_others_may_have_room():
    port = make_port(
        handling=Handling(max_connections=1), affinity_timeout_s=60, waits=Waits(3, 2.0)
    )
    assert held_at_limit(port).endswith(
        "the endpoint that a client keeps to (sessionAffinity) has 1 connection, its limit on this "
        "node"
    )
