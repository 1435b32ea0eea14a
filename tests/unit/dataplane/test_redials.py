import asyncio
from collections import Counter

import pytest

from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.dataplane.redials import REDIALS, TURN_S, Redials

from .rig import Clock
from .waiting import until

WEB, CART = "shop/web:http", "shop/cart:http"


class Dials:
    """Redials that record their loop turn, and take some time."""

    def __init__(self):
        self.clock = Clock()
        self.reactor = Reactor(asyncio.get_running_loop(), clock=self.clock)
        self.redials = Redials(self.reactor)
        self.made = []
        self.took_s = 0.0

    def add(self, port, name):
        self.redials.add(port, lambda: self.dial(name))

    def dial(self, name):
        self.clock.now += self.took_s
        self.made.append((name, self.reactor.turn))

    async def names(self, count):
        await until(lambda: len(self.made) == count)
        return [name for name, _ in self.made]

    def per_turn(self):
        return sorted(Counter(turn for _, turn in self.made).values())


@pytest.fixture
async def dials():
    dials = Dials()
    yield dials
    dials.reactor.close()


async def test_a_bounded_number_of_clients_is_redialled_per_turn_in_order(dials):
    for number in range(2 * REDIALS + 1):
        dials.add(WEB, number)
    assert await dials.names(2 * REDIALS + 1) == list(range(2 * REDIALS + 1))
    assert dials.per_turn() == [1, REDIALS, REDIALS]


async def test_a_turn_ends_when_its_dials_have_used_up_its_time(dials):
    dials.took_s = TURN_S / 3.5
    for number in range(9):
        dials.add(WEB, number)
    await dials.names(9)
    assert dials.per_turn() == [1, 4, 4]


async def test_service_ports_take_turns_and_share_the_limit(dials):
    for number in range(REDIALS):
        dials.add(WEB, ("web", number))
    for number in range(2):
        dials.add(CART, ("cart", number))
    names = await dials.names(REDIALS + 2)
    assert names[:4] == [("web", 0), ("cart", 0), ("web", 1), ("cart", 1)]
    assert dials.per_turn() == [2, REDIALS]


async def test_a_client_that_fails_again_moves_to_the_end_of_the_queue(dials):
    def fail():
        dials.dial("fails")
        if len(dials.made) < 2:
            dials.redials.add(WEB, fail)

    dials.redials.add(WEB, fail)
    dials.add(WEB, "answered")
    assert await dials.names(3) == ["fails", "answered", "fails"]
