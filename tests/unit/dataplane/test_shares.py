from dataclasses import dataclass

import pytest

from userspace_proxy.dataplane.shares import Choice, choose_holder, choose_victims

WEB, CART, DB = "web", "cart", "db"
ALICE, BOB = "10.0.0.1", "10.0.0.2"


@dataclass(frozen=True)
class Connection:
    client_ip: str
    group: str
    idle: float = 0.0

    def idle_since(self, now):
        return now - self.idle


def held(count, client_ip, group):
    """Return the connections of one client, the later the less idle."""
    return [Connection(client_ip, group, count - n) for n in range(count)]


def crowd(count, group, *, each=1):
    """Return the connections of many clients with a few each."""
    return [
        c for n in range(count // each) for c in held(each, f"10.1.{n // 250}.{n % 250}", group)
    ]


@pytest.mark.parametrize(
    ("connections", "newcomers", "expected"),
    [
        pytest.param(
            held(400, ALICE, WEB), CART, Choice(ALICE, WEB, 400, 50), id="one-client-of-one-service"
        ),
        pytest.param(
            held(400, ALICE, WEB), WEB, Choice(ALICE, WEB, 400, 50), id="also-in-its-own-service"
        ),
        pytest.param(
            [c for n in range(100) for c in held(4, ALICE, f"service {n}")],
            CART,
            Choice(ALICE, None, 400, 50),
            id="one-client-of-all-services",
        ),
        pytest.param(
            crowd(400, WEB), CART, Choice("", WEB, 400, 200), id="many-clients-of-one-service"
        ),
        pytest.param(crowd(400, WEB), WEB, None, id="of-which-the-next-one-waits"),
        pytest.param(
            crowd(300, WEB) + held(100, ALICE, DB),
            CART,
            Choice("", WEB, 300, 200),
            id="a-flooded-service-goes-before-another-services-pool",
        ),
        pytest.param(
            crowd(200, WEB) + crowd(200, DB), CART, None, id="many-equal-clients-of-two-services"
        ),
        pytest.param(
            held(200, ALICE, WEB) + held(201, BOB, DB),
            CART,
            Choice(BOB, DB, 201, 50),
            id="the-larger-of-two",
        ),
        pytest.param(held(16, ALICE, WEB), CART, None, id="a-few-are-no-more-than-a-share"),
        pytest.param([], CART, None, id="none"),
    ],
)
def test_who_gives_way(connections, newcomers, expected):
    assert choose_holder(connections, newcomers) == expected


def test_the_longest_idle_of_the_holder_go_first():
    mine, others = held(100, ALICE, WEB), held(30, BOB, DB)
    victims = choose_victims(mine + others, Choice(ALICE, None, 100, 16), now=1000.0)
    assert victims == mine[:8]


def test_a_holder_keeps_its_share():
    mine = held(18, ALICE, WEB)
    assert choose_victims(mine, Choice(ALICE, WEB, 18, 16), now=1000.0) == mine[:2]


def test_of_very_many_a_64th_goes_at_a_time():
    mine = held(6400, ALICE, WEB)
    assert len(choose_victims(mine, Choice(ALICE, WEB, 6400, 800), now=1e6)) == 100
