import asyncio
import threading
from math import isnan

import pytest

from userspace_proxy.status.history import Figures
from userspace_proxy.status.sampling import SHARE, FreshViews, Sampler

from ..dataplane.waiting import turns
from .views import make_port, make_view


class Proxy:
    """A proxy whose samples take time, and whose clock advances during pauses."""

    def __init__(self, cost_s=0.0):
        self.now = 1000.0
        self.taken_at = []
        self._cost_s = cost_s
        self.sampler = Sampler(self.take, clock=lambda: self.now, pause=self.pause)

    async def take(self):
        self.taken_at.append(self.now)
        self.now += self._cost_s
        return make_view(make_port("web", connections=len(self.taken_at)))

    async def pause(self, seconds):
        before = self.now
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)
        # Another stream may have advanced the clock in the meantime.
        self.now = max(self.now, before + seconds)


async def test_concurrent_requests_share_a_sample_and_later_requests_get_a_new_sample():
    proxy = Proxy(cost_s=0.25)
    samples = await asyncio.gather(*(proxy.sampler.look() for _ in range(10)))
    assert {sample.view.ports[0].connections for sample in samples} == {1}
    proxy.now += 0.5
    assert (await proxy.sampler.look()).view.ports[0].connections == 2


async def test_a_sample_for_a_request_does_not_wake_streams_early():
    proxy = Proxy()
    count, _ = await proxy.sampler.after(0)
    proxy.now += 0.5
    await proxy.sampler.look()
    count, _ = await proxy.sampler.after(count)
    assert (count, proxy.now) == (3, 1001.0)
    assert proxy.taken_at == [1000.0, 1000.5, 1001.0]


async def test_streams_reuse_the_sample_of_a_request_if_a_sample_is_due():
    proxy = Proxy()
    count, _ = await proxy.sampler.after(0)
    proxy.now += 1.5
    sample = await proxy.sampler.look()
    assert await proxy.sampler.after(count) == (2, sample)
    await proxy.sampler.after(2)
    assert proxy.taken_at == [1000.0, 1001.5, 1002.5]


async def test_a_stream_gets_a_sample_immediately_and_then_each_second():
    proxy, count = Proxy(), 0
    for _ in range(4):
        count, sample = await proxy.sampler.after(count)
    assert proxy.taken_at == [1000.0, 1001.0, 1002.0, 1003.0]
    assert sample.history.has_rates


async def test_streams_share_their_samples():
    proxy = Proxy()
    count, _ = await proxy.sampler.after(0)
    taken = await asyncio.gather(*(proxy.sampler.after(count) for _ in range(10)))
    assert {number for number, _ in taken} == {count + 1}
    assert len(proxy.taken_at) == 2


async def test_expensive_samples_are_taken_less_often():
    proxy = Proxy(cost_s=0.5)
    count, _ = await proxy.sampler.after(0)
    await proxy.sampler.after(count)
    assert proxy.taken_at == [1000.0, 1002.0]


async def test_a_cancelled_stream_does_not_stop_the_samples_of_other_streams():
    proxy = Proxy()
    count, _ = await proxy.sampler.after(0)
    first = asyncio.ensure_future(proxy.sampler.after(count))
    second = asyncio.ensure_future(proxy.sampler.after(count))
    await asyncio.wait([first], timeout=0)
    first.cancel()
    assert (await second)[0] == count + 1


async def test_work_runs_in_a_thread_one_call_at_a_time():
    sampler, running, most = Proxy().sampler, [], []

    def work():
        running.append(threading.current_thread())
        most.append(len(running))
        running.remove(threading.current_thread())
        return threading.current_thread()

    threads = await asyncio.gather(*(sampler.work(work) for _ in range(20)))
    assert threading.main_thread() not in threads
    assert max(most) == 1


async def test_work_of_a_cancelled_caller_finishes_before_the_next_work_starts():
    sampler, began, release, steps = Proxy().sampler, asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def work():
        steps.append("begins")
        loop.call_soon_threadsafe(began.set)
        assert release.wait(60)
        steps.append("ends")

    first = asyncio.ensure_future(sampler.work(work))
    await began.wait()
    second = asyncio.ensure_future(sampler.work(lambda: steps.append("next")))
    for _ in range(2):
        first.cancel()
        await asyncio.wait([first], timeout=0)
    await loop.run_in_executor(None, steps.append, "another thread")
    release.set()
    await second
    assert first.cancelled()
    assert steps == ["begins", "another thread", "ends", "next"]


def counted(connections):
    return [(make_port("web").plan.key, Figures(connections))]


async def record(proxy, *samples):
    """Record these samples at intervals of five seconds."""
    left = list(samples)

    async def counters():
        return left.pop(0)

    with pytest.raises(IndexError):
        await proxy.sampler.record(counters)


async def test_counters_are_recorded_without_watchers():
    proxy = Proxy()
    await record(proxy, counted(0), counted(10), None, None, None, counted(50), counted(60))
    history = (await proxy.sampler.look()).history
    minute = history.minute(make_port("web").plan.key).connections
    assert ["gap" if isnan(one) else one for one in minute[-35:-5]] == (
        [2.0] * 5 + ["gap"] * 20 + [2.0] * 5
    )


async def test_counters_are_not_recorded_while_views_are_taken():
    proxy = Proxy()

    async def pause(seconds):
        await proxy.pause(seconds)
        if proxy.now < 1030:
            await sampler.look()

    async def counters():
        raise LookupError(proxy.now)

    sampler = Sampler(proxy.take, clock=lambda: proxy.now, pause=pause)
    with pytest.raises(LookupError, match="1030"):
        await sampler.record(counters)
    assert proxy.taken_at == [1005.0, 1010.0, 1015.0, 1020.0, 1025.0]


async def test_samples_count_as_followed_if_requested_less_than_a_minute_apart():
    proxy = Proxy()
    assert not (await proxy.sampler.look()).is_followed
    proxy.now += 59
    assert (await proxy.sampler.look()).is_followed
    proxy.now += 60
    assert not (await proxy.sampler.look()).is_followed


class ProxyOfRequests:
    """A proxy whose views take time, and whose clock advances while a request waits."""

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


async def test_taking_views_uses_a_limited_share_of_the_time():
    proxy = ProxyOfRequests(view_s=0.1, refresh_s=0.02)
    for _ in range(50):
        await proxy.views.take()
    assert 50 * 0.1 / (proxy.now - 1000.0) <= SHARE * 1.02
    assert len(proxy.pauses) == 49


async def test_refresh_time_on_the_event_loop_counts_towards_the_share():
    proxy = ProxyOfRequests(view_s=0.1, refresh_s=0.4, counted_s=0.3)
    for _ in range(20):
        await proxy.views.take()
    assert proxy.pauses == [pytest.approx(0.4 / SHARE - 0.4)] * 19


async def test_a_request_after_the_pause_gets_a_view_immediately():
    proxy = ProxyOfRequests(view_s=0.1)
    await proxy.views.take()
    proxy.now += 0.1 / SHARE
    await proxy.views.take()
    assert proxy.pauses == []


async def test_a_hundred_waiting_requests_share_two_views_taken_after_their_arrival():
    proxy = ProxyOfRequests(view_s=0.1)
    first = await proxy.views.take()
    waiting = [asyncio.create_task(proxy.views.take()) for _ in range(100)]
    views = {id(view) for view in await asyncio.gather(*waiting)}
    # The first waiting request starts a view before the other 99 arrive.
    assert (len(views), id(first) in views, len(proxy.taken_at)) == (2, False, 3)


async def test_taking_a_view_after_close_raises_an_error():
    proxy = ProxyOfRequests()
    proxy.views.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await proxy.views.take()
