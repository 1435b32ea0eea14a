import asyncio

import pytest

from userspace_proxy.status.fresh_views import SHARE, FreshViews

from ..dataplane.waiting import turns
from .views import make_view


class Proxy:
    """A proxy whose views take some time, which passes when it is waited for."""

    def __init__(self, view_s=0.0, refresh_s=0.0, counted_s=None):
        self.now, self.view_s, self.refresh_s = 1000.0, view_s, refresh_s
        self.counted_s = counted_s
        self.taken_at, self.pauses = [], []
        self.views = FreshViews(self.view, self.refresh, clock=lambda: self.now, pause=self.pause)

    async def refresh(self):
        self.now += self.refresh_s
        return self.counted_s

    def view(self):
        self.taken_at.append(self.now)
        self.now += self.view_s
        return make_view()

    async def pause(self, seconds):
        self.pauses.append(seconds)
        await turns(3)
        self.now += seconds


async def test_views_take_their_share_of_the_time_however_many_are_asked_for():
    proxy = Proxy(view_s=0.1, refresh_s=0.02)
    for _ in range(50):
        await proxy.views.take()
    assert 50 * 0.1 / (proxy.now - 1000.0) <= SHARE * 1.02
    assert len(proxy.pauses) == 49


async def test_what_a_refresh_took_of_the_event_loop_counts():
    proxy = Proxy(view_s=0.1, refresh_s=0.4, counted_s=0.3)
    for _ in range(20):
        await proxy.views.take()
    assert proxy.pauses == [pytest.approx(0.4 / SHARE - 0.4)] * 19


async def test_a_view_that_is_asked_for_later_is_taken_at_once():
    proxy = Proxy(view_s=0.1)
    await proxy.views.take()
    proxy.now += 0.1 / SHARE
    await proxy.views.take()
    assert proxy.pauses == []


async def test_requests_that_wait_share_a_view_that_is_taken_after_they_arrived():
    proxy = Proxy(view_s=0.1)
    first = await proxy.views.take()
    waiting = [asyncio.create_task(proxy.views.take()) for _ in range(100)]
    views = {id(view) for view in await asyncio.gather(*waiting)}
    # The first of them has begun when the others arrive.
    assert (len(views), id(first) in views, len(proxy.taken_at)) == (2, False, 3)


async def test_after_closing_there_is_none():
    proxy = Proxy()
    proxy.views.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await proxy.views.take()
