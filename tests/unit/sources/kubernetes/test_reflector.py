"""Listing and watching one kind of object: the requests, and the contents of the cache."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest

from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.reflector import NO_LINE_S, Timing

from ...dataplane.waiting import turns
from .balancer import Balancer
from .objects import service
from .reflecting import reflecting

LIST = "GET /api/v1/services?limit=500&resourceVersion={}"
RELIST = LIST + "&resourceVersionMatch=NotOlderThan"
WATCH = (
    "GET /api/v1/services?watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds=300"
)
NEWEST = "GET /api/v1/services?limit=500"
ASKED = (
    "GET /api/v1/namespaces/default/services?fieldSelector=metadata.name%3Dkubernetes&limit=1"
    "&resourceVersion={}&resourceVersionMatch=NotOlderThan"
)


async def test_expired_pages_are_followed_by_an_unpaginated_list(api):
    api.has_watch_cache = False
    for n in range(600):
        api.put(service(f"web-{n:04}"))
    async with reflecting(api) as reflection:
        await api.until(lambda a: len(a.requests) == 1)
        # The deleted Service is on the first page, which has been read.
        api.delete("Service", "web-0000")
        api.forget()
        await reflection.watching(requests=4)
        assert api.requests == [
            LIST.format(0),
            "GET /api/v1/services?limit=500&continue=100-more-at-1600",
            "GET /api/v1/services",
            WATCH.format(1602),
        ]
        assert len(reflection.names) == 599
        assert "web-0000" not in reflection.names
        assert reflection.waits == []


@pytest.mark.parametrize(
    ("code", "message", "problem"),
    [
        (
            403,
            "services is forbidden",
            "the API server at URL refuses to list services: services is forbidden "
            "(allow this user to get, list and watch services, endpointslices and nodes)",
        ),
        (500, "etcd is gone", "the API server at URL can't list services: etcd is gone"),
    ],
)
async def test_a_rejected_list_is_reported_and_retried(api, code, message, problem):
    api.refuse("services", code, message=message, times=3)
    async with reflecting(api) as reflection:
        await reflection.watching(requests=5)
        assert reflection.problems == [problem, ""]
        assert reflection.waits == [0.8, 1.6, 3.2]
        assert not reflection.reflector.is_forbidden
        # Without a pending retry, wake() does nothing.
        reflection.reflector.wake()


@pytest.mark.parametrize(("requested_s", "waits_s"), [(7, 7), (86400, 32)])
async def test_a_retry_waits_as_long_as_the_server_requests_up_to_a_limit(
    api, requested_s, waits_s
):
    api.refuse("services", 429, message="busy", retry_after_s=requested_s)
    async with reflecting(api) as reflection:
        await reflection.watching(requests=3)
        assert reflection.waits == [waits_s]


async def test_waking_does_not_shorten_a_delay_that_the_server_requested(api):
    api.refuse("services", 429, message="busy", retry_after_s=7)
    async with reflecting(api) as reflection:
        reflection.hold()
        await reflection.until(lambda: reflection.waits == [7])
        reflection.reflector.wake()
        await turns(100)
        assert len(api.requests) == 1
        reflection.release()
        await reflection.watching(requests=3)


async def test_an_unreachable_server_is_reported_until_reachable(api):
    await api.stop()
    async with reflecting(api) as reflection:
        await reflection.until(lambda: len(reflection.waits) >= 2)
        await api.start()
        await reflection.watching()
        assert reflection.problems == ["cannot reach the API server at URL: Connection refused", ""]


async def test_a_slow_list_is_reported_and_times_out(api, monkeypatch):
    is_slow = True
    real = ApiClient.stream

    @asynccontextmanager
    async def stream(self, path, query):
        async with real(self, path, query) as stream:
            if is_slow:
                # The response has begun, but nothing follows.
                stream.read = Stalled().read
            yield stream

    monkeypatch.setattr(ApiClient, "stream", stream)
    timing = Timing(list_long_s=0.01, list_s=0.03)
    async with reflecting(api, timing) as reflection:
        await reflection.until(lambda: len(reflection.problems) >= 2)
        is_slow = False
        await reflection.until(lambda: reflection.problems[-1] == "")
    assert reflection.problems[:2] == [
        "the API server at URL has been sending the list of services for 0.01 s, and it isn't "
        "complete",
        "cannot reach the API server at URL: a list isn't complete after 0.03 s",
    ]


async def test_a_list_that_was_read_in_time_is_not_reported_later(api):
    async with reflecting(api, Timing(list_long_s=0.2)) as reflection:
        await reflection.watching()
        loop = asyncio.get_running_loop()
        passed = loop.create_future()
        loop.call_later(0.2, passed.set_result, None)
        await passed
        # On a slow machine, the list may be late, and is reported until it is complete.
        assert not reflection.reflector.problem


class Stalled:
    def __init__(self):
        self._parts = [b'{"items":[']

    async def read(self, *, silence_s: float) -> bytes:
        if self._parts:
            return self._parts.pop()
        await asyncio.Event().wait()
        return b""


async def test_watch_events_are_applied_and_the_next_watch_continues_after_them(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.put(service("web"))
        api.put(service("cart"))
        api.delete("Service", "web")
        await reflection.until(lambda: reflection.names == ["cart"])
        reflection.now_s = 60
        api.end_watches()
        await reflection.watching(requests=3)
        assert reflection.requests[-1] == WATCH.format(1003)
        assert reflection.reflector.restarts == 0


async def test_watches_that_end_immediately_are_retried_with_backoff(api):
    async with reflecting(api) as reflection:
        for count in range(2, 6):
            await reflection.watching(requests=count)
            api.end_watches()
        await reflection.watching(requests=6)
        assert reflection.waits == [0.8, 1.6, 3.2, 5.0]
        assert reflection.problems == []
        reflection.now_s = 60
        for count in (7, 8):
            api.end_watches()
            await reflection.watching(requests=count)
        assert reflection.waits[4:] == [0.8]


async def test_a_waiting_reflector_retries_when_woken(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        reflection.hold()
        api.end_watches()
        await reflection.until(lambda: reflection.waits == [0.8])
        reflection.reflector.wake()
        await reflection.watching(requests=3)
        api.end_watches()
        await reflection.until(lambda: len(reflection.waits) == 2)
        assert reflection.waits == [0.8, 0.8]


async def test_recovery_is_reported_once_when_a_list_succeeds_after_a_problem(api):
    recovered = []
    async with reflecting(api, recovered=lambda: recovered.append(True)) as reflection:
        await reflection.watching()
        assert recovered == []
        api.refuse("services", code=500, reason="InternalError", message="etcd is away")
        api.end_watches()
        await reflection.until(lambda: reflection.problems[-1:] == [""])
        assert recovered == [True]


async def test_an_unreadable_watch_wakes_no_other_reflector(api):
    recovered = []
    async with reflecting(api, recovered=lambda: recovered.append(True)) as reflection:
        await reflection.watching()
        for number in range(1, 4):
            reflection.hold()
            api.send("services", b"garbage\n")
            await reflection.until(lambda number=number: len(reflection.waits) == number)
            reflection.reflector.wake()
            assert len(api.requests) == 2 * number
            reflection.release()
            await reflection.watching(requests=2 * number + 2)
        assert reflection.waits == [0.8, 1.6, 3.2]
    assert recovered == []


async def test_repeatedly_ending_watches_are_logged_once_a_minute(api, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    async with reflecting(api) as reflection:
        await reflection.watching()
        # Each time, the watch fails and is followed by a list and the next watch.
        for now_s, requests in ((0, 5), (30, 8), (61, 11)):
            reflection.now_s = now_s
            api.forget()
            api.end_watches()
            await reflection.watching(requests=requests)
    assert [r.message.partition(" ended: ")[0] for r in caplog.records] == ["watch of services"] * 2


async def test_an_early_end_of_a_watch_that_made_progress_does_not_increase_the_delay(api):
    async with reflecting(api) as reflection:
        for count in range(2, 5):
            await reflection.watching(requests=count)
            api.bookmark()
            api.end_watches()
        await reflection.watching(requests=5)
        assert reflection.waits == [0.8, 0.8, 0.8]


async def test_an_expired_watch_is_followed_by_a_list_applied_as_a_difference(api):
    api.put(service("web"))
    api.put(service("cart"))
    async with reflecting(api) as reflection:
        await reflection.watching()
        before = reflection.store.snapshot()
        api.be_silent()
        api.delete("Service", "cart")
        api.forget()
        api.end_watches()
        await reflection.watching(requests=5)
        assert reflection.requests[1:] == [
            WATCH.format(1002),
            WATCH.format(1002),
            RELIST.format(1002),
            WATCH.format(1004),
        ]
        after = reflection.store.snapshot()
        assert reflection.names == ["web"]
        assert all(after.services[key] is before.services[key] for key in after.services)
        assert reflection.reflector.restarts == 1
        assert reflection.problems == []


async def test_a_watch_rejected_with_410_is_followed_by_a_list(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.refuse("services", 410, reason="Expired", message="too old")
        api.end_watches()
        await reflection.watching(requests=5)
        assert reflection.requests[3:] == [RELIST.format(1000), WATCH.format(1000)]


async def test_a_server_restored_from_a_backup_is_listed_again(api):
    bookmark = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9999"}}}\n'
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.send("services", bookmark)
        # Unless the reflector lists again, a watch from 9999 is silent until the history is there.
        api.end_watches()
        await reflection.watching(requests=5)
        assert api.requests[2:] == [
            WATCH.format(9999),
            ASKED.format(9999),
            NEWEST,
            WATCH.format(1000),
        ]
        assert reflection.problems == []


async def test_a_server_restored_after_an_outage_is_listed_without_another_delay(api):
    bookmark = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9999"}}}\n'
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.send("services", bookmark)
        api.refuse("services", 503, message="shutting down", times=3)
        api.end_watches()
        await reflection.until(lambda: reflection.problems[-1:] == [""])
        assert api.requests[-2:] == [ASKED.format(9999), NEWEST]
        assert reflection.waits == [0.8, 1.6, 3.2, 5.0]


async def test_a_server_that_contradicts_its_list_is_listed_again_after_a_delay(api):
    api.refuse("services", 410, reason="Expired", message="too old", after=2)
    async with reflecting(api) as reflection:

        def take_long() -> None:
            reflection.now_s += 2.5
            reflection.client.on_stream = lambda: None

        reflection.client.on_stream = take_long
        await reflection.watching(requests=4)
        assert api.requests[2:4] == [ASKED.format(1000), NEWEST]
        assert reflection.waits == [0.8]


async def test_a_slowly_opened_watch_is_followed_by_a_revision_check(api):
    async with reflecting(api) as reflection:

        def take_long() -> None:
            reflection.now_s += 2.5
            reflection.client.on_stream = lambda: None

        await reflection.watching()
        reflection.client.on_stream = take_long
        reflection.now_s = 300
        api.end_watches()
        await reflection.watching(requests=3)
        await api.until(lambda a: a.requests[-1] == ASKED.format(1000))
        assert reflection.problems == []


async def test_a_revision_check_rejected_with_401_is_repeated_after_the_watch(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        reflection.now_s = 60
        api.refuse("services", 401, message="not yet", after=1)
        api.end_watches()
        for count, now_s in ((3, 360), (4, 660), (5, 960)):
            await reflection.watching(requests=count)
            reflection.now_s = now_s
            api.end_watches()
        await reflection.watching(requests=6)
        asked = [WATCH.format(1000), ASKED.format(1000)]
        assert api.requests[2:] == [*asked, *asked, WATCH.format(1000), WATCH.format(1000)]


async def test_only_a_watch_that_ends_on_schedule_is_followed_without_a_revision_check(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        reflection.now_s = 300
        api.end_watches()
        await reflection.watching(requests=3)
        assert api.requests == reflection.requests
        # One watch ends early, one late.
        for now_s, count in ((598, 4), (900, 5)):
            reflection.now_s = now_s
            api.end_watches()
            await reflection.watching(requests=count)
            await api.until(lambda a: a.requests[-1] == ASKED.format(1000))
        assert [r for r in api.requests if r not in reflection.requests] == [ASKED.format(1000)] * 2


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        pytest.param(429, [0.8], id="busy"),
        pytest.param(500, [0.8], id="broken"),
        pytest.param(403, [], id="forbidden"),
    ],
)
async def test_a_revision_check_is_repeated_soon_only_after_a_429_or_500(api, code, waits):
    async with reflecting(api) as reflection:
        await reflection.watching()
        reflection.now_s = 60
        api.refuse("services", code, message="no", after=1)
        api.end_watches()
        times = 1 + len(waits)
        asked = [WATCH.format(1000), ASKED.format(1000)] * times
        await api.until(lambda a: a.requests[2:] == asked)
        await reflection.watching(requests=2 + times)
        assert reflection.waits == waits


@pytest.mark.parametrize("kind", ["BOOKMARK", "ADDED"])
async def test_a_server_with_an_older_history_is_listed_at_its_newest_state(api, caplog, kind):
    caplog.set_level(logging.INFO)
    api.put(service("web"))
    api.put(service("gone"))
    async with reflecting(api) as reflection:
        await reflection.watching()
        assert reflection.names == ["gone", "web"]
        # The watches miss this change, because they follow a history that the server no longer has.
        api.be_silent()
        api.delete("Service", "gone")
        api.be_silent(is_silent=False)
        web = service("web") | {"metadata": {"name": "web", "resourceVersion": "510"}}
        older = json.dumps({"type": kind, "object": web})
        api.send("services", f"{older}\n".encode())
        await reflection.watching(requests=4)
        assert api.requests[2] == "GET /api/v1/services?limit=500"
        assert reflection.names == ["web"]
        assert reflection.problems == []
    (line,) = [r for r in caplog.records if r.message.startswith("watch of")]
    assert line.cause == "its history went back, as after a restore of etcd; listing again"


@pytest.mark.parametrize("kind", ["ADDED", "DELETED"])
async def test_an_event_revealing_an_older_history_is_not_applied(api, kind):
    api.put(service("web"))
    async with reflecting(api) as reflection:
        await reflection.watching()
        # The list fails, so the current contents aren't known yet.
        api.refuse("services", 503, message="busy")
        name = "gone" if kind == "ADDED" else "web"
        old = service(name)
        old["metadata"] = {"namespace": "default", **old["metadata"], "resourceVersion": "510"}
        api.send("services", json.dumps({"type": kind, "object": old}).encode() + b"\n")
        await api.until(lambda a: len(a.requests) > 2)
        assert api.requests[2] == "GET /api/v1/services?limit=500"
        assert reflection.names == ["web"]


async def test_a_rejected_watch_is_reported_and_continues_from_its_version(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.refuse("services", 503, message="shutting down", times=2)
        reflection.now_s = 60

        def take_a_second() -> None:
            reflection.now_s += 1

        reflection.client.on_stream = take_a_second
        api.end_watches()
        await reflection.until(lambda: reflection.problems[-1:] == [""])
        assert reflection.problems == [
            "the API server at URL can't watch services: shutting down",
            "",
        ]
        assert api.requests[2:] == [WATCH.format(1000)] * 3 + [ASKED.format(1000)]
        assert reflection.waits == [0.8, 1.6]
        assert reflection.reflector.problem_since == 61


async def test_a_broken_watch_is_not_reported_if_the_next_watch_succeeds(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        reflection.now_s = 60
        api.break_watches()
        await reflection.watching(requests=3)
        assert reflection.problems == []
        assert reflection.waits == []


async def test_a_watch_cut_by_a_load_balancer_while_idle_misses_no_changes(api):
    async with Balancer(api, limit_s=20) as balancer, reflecting(api, url=balancer.url) as it:
        await it.watching()
        it.now_s = 20
        balancer.pass_time(20)
        # The watch that was just cut doesn't deliver this change.
        api.put(service("web"))
        await it.until(lambda: it.names == ["web"])
        assert it.requests == [LIST.format(0), WATCH.format(1000), WATCH.format(1000)]
        assert it.problems == []
        assert it.waits == []


async def test_watches_cut_within_their_first_event_are_reported_until_one_delivers_an_event(api):
    async with reflecting(api) as reflection:
        for count in (2, 3):
            await reflection.watching(requests=count)
            api.send("services", b'{"type": "ADDED", "obj')
            api.break_watches()
        await reflection.watching(requests=4)
        api.put(service("web"))
        await reflection.until(lambda: reflection.names == ["web"])
        api.break_watches()
        await reflection.watching(requests=5)
        problem, *later = reflection.problems
        assert problem.startswith("watches of services from URL break off at once: ")
        assert later == [""]
        assert reflection.waits == [0.8, 1.6, 0.8]


async def test_cut_watches_separated_by_an_orderly_end_or_an_event_are_not_a_problem(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.break_watches()
        await reflection.watching(requests=3)
        api.end_watches()
        await reflection.watching(requests=4)
        api.break_watches()
        await reflection.watching(requests=5)
        api.put(service())
        await reflection.until(lambda: reflection.names == ["web"])
        for count in (6, 7):
            api.break_watches()
            await reflection.watching(requests=count)
        assert reflection.problems == []


async def test_an_error_event_is_reported_until_the_next_watch_succeeds(api):
    error = b'{"type": "ERROR", "object": {"code": 500, "message": "etcd\\nis gone"}}\n'
    async with reflecting(api) as reflection:
        for count in (2, 3):
            await reflection.watching(requests=count)
            api.bookmark()
            api.send("services", error)
        await reflection.watching(requests=4)
        assert reflection.problems == ["the API server at URL ended a watch: etcd is gone", ""] * 2
        assert reflection.waits == [0.8, 1.6]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b"<html>\n", "not JSON: ", id="html"),
        pytest.param(b'{"type": 7}\n', "type: expected str, got int", id="type"),
        pytest.param(
            b'{"type": "MOVED"}\n', "type: 'MOVED' is not a known event type", id="unknown"
        ),
    ],
)
async def test_an_invalid_watch_line_is_reported_and_followed_by_a_list(api, line, problem):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.send("services", line)
        await reflection.watching(requests=4)
        reported, resolved = reflection.problems
        assert reported.startswith(f"invalid response from URL for services: in a watch, {problem}")
        assert resolved == ""
        assert api.requests[2:] == [RELIST.format(1000), WATCH.format(1000)]


async def test_an_invalid_object_is_skipped_and_the_watch_continues(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.put(service("bad", ports=[{"port": 0}]))
        api.put(service("web"))
        await reflection.until(lambda: reflection.names == ["web"])
        assert len(api.requests) == 2
        assert reflection.problems == []


async def test_a_watch_that_is_silent_for_too_long_after_a_bookmark_is_restarted(api):
    async with reflecting(api, Timing(silence_s=0.05)) as reflection:
        await reflection.watching()
        api.bookmark()
        api.be_silent()
        api.put(service())
        await reflection.watching(requests=3)
        await reflection.until(lambda: reflection.names == ["web"])
        assert reflection.problems == []


async def test_a_watch_that_ends_before_its_first_bookmark_is_due_may_be_silent(api):
    timing = Timing(watch_s=0.02, silence_over_s=0.03, silence_s=0.0)
    async with reflecting(api, timing) as reflection:
        await reflection.watching()
        await reflection.watching(requests=3)
        assert reflection.problems == []


async def test_incomplete_lines_of_a_watch_are_read_with_pauses(api):
    async with reflecting(api) as reflection:
        await reflection.watching()
        api.send("services", b"\n")
        await reflection.until(lambda: reflection.waits == [NO_LINE_S])
        api.put(service())
        await reflection.until(lambda: reflection.names == ["web"])
        assert reflection.waits == [NO_LINE_S]
