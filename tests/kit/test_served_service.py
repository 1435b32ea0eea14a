"""The common interface of all Services of tests, tested with a `ServiceProxy`."""

import asyncio
import contextlib
import threading

import pytest

from .clusters import get


@contextlib.contextmanager
def soon(function, *args):
    """Call a function in a thread; the block ends after the call."""
    timer = threading.Timer(0.05, function, args)
    timer.start()
    try:
        yield
    finally:
        timer.join(30)


def test_eventually_waits_for_a_condition(proxy):
    web = proxy.service("web")
    with soon(get, web):
        web.eventually(lambda web: web.stats.connections == 1)


def test_eventually_fails_with_the_counters(proxy):
    web = proxy.service("web")
    with pytest.raises(AssertionError, match=r"not so after 0\.02 s: <default/web: 0 connections"):
        web.eventually(lambda web: web.stats.connections, timeout_s=0.02)
    with pytest.raises(AssertionError, match=r"not so after 0 s: .*default/web"):
        web.eventually(lambda web: web.remove(), timeout_s=0)


def test_eventually_requires_a_function(proxy):
    with pytest.raises(TypeError, match="expected a function of the Service, got True"):
        proxy.service("web").eventually(True)


def test_a_coroutine_function_is_rejected_as_a_condition(proxy):
    async def empty(web):
        return web.stats.connections == 99

    with pytest.raises(TypeError, match="that returns a value, not a coroutine"):
        proxy.service("web").eventually(empty)


async def test_a_failed_wait_reports_a_blocked_event_loop_as_the_cause(proxy):
    web = proxy.service("web")
    with pytest.raises(AssertionError, match=r"stood still: .* await asyncio\.to_thread\(web\.ev"):
        web.eventually(lambda web: web.decisions, timeout_s=0.02)
    with pytest.raises(AssertionError) as caught:
        await asyncio.to_thread(web.eventually, lambda web: web.decisions, timeout_s=0.02)
    assert "stood still" not in str(caught.value)


def test_eventually_retries_while_clients_are_refused_or_reset(proxy):
    web = proxy.service("web")
    web.backends[0].stop()
    with pytest.raises(AssertionError, match="not so after") as caught:
        web.eventually(lambda web: get(web) == "web-1", timeout_s=0.02)
    assert isinstance(caught.value.__cause__, OSError)
    with soon(web.backends[0].start):
        web.eventually(lambda web: get(web) == "web-1")


def test_an_assertion_inside_eventually_is_the_cause_of_the_failure(proxy):
    def three(web):
        assert web.stats.connections == 3

    with pytest.raises(AssertionError, match="not so after") as caught:
        proxy.service("web").eventually(three, timeout_s=0.02)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_service_lists_its_last_connections(proxy):
    web = proxy.service("web", backends=1)
    get(web)
    web.eventually(lambda web: web.decisions)
    (decision,) = web.decisions
    assert decision.endpoint == str(web.backends[0].address)
    assert (decision.outcome, decision.dials, decision.sent_bytes > 0) == ("complete", 1, True)
    assert str(decision).startswith(f"{decision.client} → {decision.endpoint}: complete, ")
