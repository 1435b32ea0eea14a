import pytest

from tests.unit.status.views import make_port, make_two_sides
from userspace_proxy.explain.clients import say_client
from userspace_proxy.facts import Level

from .subjects import make_subject

EVERYONE = make_subject().ports[0]
RANGES = make_subject(make_port(admits=("192.0.2.0/24",))).ports[0]
INSIDE, OUTSIDE = make_subject(*make_two_sides(), service="shop/front").ports


@pytest.mark.parametrize(
    ("port", "client", "level", "said"),
    [
        pytest.param(
            EVERYONE, "10.0.0.1", Level.OK, "10.0.0.1 is admitted: every client is", id="all"
        ),
        pytest.param(
            RANGES, "192.0.2.9", Level.OK, "192.0.2.9 is admitted: its network is", id="in-range"
        ),
        pytest.param(
            RANGES,
            "10.0.0.1",
            Level.ATTENTION,
            "Packets from 10.0.0.1 are dropped: only 192.0.2.0/24 is admitted",
            id="out-of-range",
        ),
        pytest.param(
            OUTSIDE,
            "10.244.0.9",
            Level.OK,
            "10.244.0.9 is admitted: its network is; from outside: only this node's endpoints",
            id="inside",
        ),
    ],
)
def test_a_client_is_admitted_by_its_network(port, client, level, said):
    assert say_client(port, client) == (level, said)


def test_a_client_that_a_policy_drops_gets_the_reason():
    level, said = say_client(OUTSIDE, "198.51.100.1")
    assert level is Level.ATTENTION
    assert said.startswith(
        "Packets from 198.51.100.1 are dropped: Clients from outside are dropped"
    )
