"""Shops, which leave no socket, timer or process behind."""

import pytest

from ..house import open_sockets
from .shop import Shop


@pytest.fixture
async def make():
    before, shops = open_sockets(), []

    async def make(count=2, **kwargs):
        shops.append(Shop(count, **kwargs))
        await shops[-1].open()
        return shops[-1]

    yield make
    for shop in shops:
        shop.close()
        assert shop.bugs == []
        assert shop.timers.waiting == 0
    assert open_sockets() == before, "a socket was left open"


@pytest.fixture
async def shop(make):
    return await make()
