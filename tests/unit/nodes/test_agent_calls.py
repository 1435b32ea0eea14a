"""Tests of concurrent queries to agents, within limits."""

import asyncio
import contextlib
import json

import pytest
from msgspec.structs import replace

from userspace_proxy.status.http_answer import Bounds, TooLarge, Unreadable
from userspace_proxy_kubectl.nodes import agent_calls as module
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer
from userspace_proxy_kubectl.nodes.agent_calls import (
    OPENING_MAX,
    AgentCalls,
    Limits,
    OtherStatus,
    ask,
)
from userspace_proxy_kubectl.nodes.findings import CLOCK_OFF_S, clock_of
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import FakeAgent, endless, fixed
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of
from userspace_proxy_testing.fakes.agents import response_head

STATUS = status_of(service_objects(2), "node-1")
HEAD = response_head(200, Content_Type="application/x-ndjson")


def target(pod):
    return ForwardTarget("kube-system", pod, 10249)


async def first_of(calls, pod, bounds=module.ANSWER):
    changes = calls.changes(target(pod), "/api/v1/status?watch", bounds, first_s=9, silent_s=9)
    async with contextlib.aclosing(changes):
        return await anext(changes)


async def test_a_slow_agent_loses_its_request_slot_after_a_timeout():
    limits, has_begun, have_all = Limits(slow_s=0.01), [], asyncio.Event()

    async def open_for_ever(number):
        async with limits.opening():
            has_begun.append(number)
            if len(has_begun) == 2 * OPENING_MAX:
                have_all.set()
            await asyncio.Event().wait()

    tasks = [asyncio.ensure_future(open_for_ever(n)) for n in range(2 * OPENING_MAX)]
    await asyncio.sleep(0)  # noqa: TID251 - lets them begin
    assert len(has_begun) == OPENING_MAX
    await have_all.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_fast_agent_returns_its_slot_at_once():
    limits = Limits(slow_s=99.0)
    async with asyncio.timeout(9):
        for _ in range(OPENING_MAX + 1):
            async with limits.opening():
                pass


async def test_a_request_slot_released_by_a_timeout_is_not_released_twice():
    limits = Limits(slow_s=0.0)
    for _ in range(3):
        async with limits.opening():
            await asyncio.sleep(0.01)  # noqa: TID251 - longer than slow_s
    assert limits._opening._value == OPENING_MAX


@pytest.mark.parametrize("start", [b"", b'{"version": "1"}\n'], ids=["answer", "second-line"])
async def test_fast_agents_do_not_wait_for_slow_senders(agents, client, start):
    calls, have_sent = AgentCalls(client), []

    async def silent(_request, send):
        await send(HEAD + start + b" " * 2_000_000)
        have_sent.append(send)
        await asyncio.Event().wait()

    pods = [agents.add(f"node-{number}", silent) for number in range(8)]
    reading = [asyncio.ensure_future(follow(calls, pod)) for pod in pods]
    other = agents.add("other", fixed(b"x" * 2_000_000))
    async with asyncio.timeout(9):
        assert len(await calls.body(target(other), "/x")) == 2_000_000
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


async def follow(calls, pod):
    changes = calls.changes(target(pod), "/x?watch", Bounds(), first_s=99, silent_s=99)
    async with contextlib.aclosing(changes):
        async for _ in changes:
            pass


async def test_the_times_of_the_request_and_the_first_byte_are_recorded(agents, client):
    times = iter([10.0, 10.5])
    calls, waits = AgentCalls(client, unix=lambda: next(times)), []
    pod = agents.add("node-1", FakeAgent(STATUS))
    path = "/api/v1/status"
    read = await calls.status(target(pod), path, Bounds(), waits.append)
    assert (read.asked_at, read.answered_at, waits) == (10.0, 10.5, [False, True])
    assert len(read.status.ports) == 2


async def test_a_response_longer_than_the_inline_limit_is_parsed(agents, client, monkeypatch):
    monkeypatch.setattr(module, "_INLINE_BYTES", 10)
    pod = agents.add("node-1", FakeAgent(STATUS))
    read = await AgentCalls(client).status(target(pod), "/api/v1/status", Bounds(), bool)
    assert len(read.status.ports) == 2


async def test_the_first_line_of_a_stream_is_bounded_in_size(agents, client):
    pod = agents.add("node-1", FakeAgent(STATUS))
    assert (await first_of(AgentCalls(client), pod)).status.version == "0.1.0"
    with pytest.raises(TooLarge):
        await first_of(AgentCalls(client), pod, Bounds(body=500))


async def test_a_stream_that_ends_or_sends_no_status_is_unreadable(agents, client):
    pod = agents.add("node-1", fixed(b"\n"))
    with pytest.raises(Unreadable, match="the stream ended"):
        await first_of(AgentCalls(client), pod)
    pod = agents.add("node-2", endless(HEAD, b'{"version": 1}\n'))
    with pytest.raises(Unreadable):
        await first_of(AgentCalls(client), pod)


async def test_an_empty_line_confirms_the_last_status(agents, client):
    agent = FakeAgent(STATUS)
    pod = agents.add("node-1", agent)
    times = iter(range(100))
    calls = AgentCalls(client, unix=lambda: float(next(times)))
    changes = calls.changes(target(pod), "/api/v1/status?watch", Bounds(), first_s=9, silent_s=9)
    async with contextlib.aclosing(changes):
        first = await anext(changes)
        agent.change(STATUS)
        again = await anext(changes)
    assert again.status is first.status
    assert again.answered_at > first.answered_at == 1.0


async def test_the_clock_difference_of_a_stream_accounts_for_its_last_lines_age(agents, client):
    agent = FakeAgent(replace(STATUS, now=1000.0))
    pod = agents.add("node-1", agent)
    unix = [1000.0]
    calls = AgentCalls(client, unix=lambda: unix[0])
    changes = calls.changes(target(pod), "/api/v1/status?watch", Bounds(), first_s=9, silent_s=9)
    async with contextlib.aclosing(changes):
        await anext(changes)
        for sent, now in ((1000.0, 1005.0), (1010.0, 1010.0), (1015.0, 1019.0)):
            unix[0] = now
            agent.change(replace(STATUS, now=sent, served=int(now)) if sent > 1000 else agent.facts)
            read = await anext(changes)
            answer = AgentAnswer("node-1", (), read.status, None, read.asked_at, read.answered_at)
            ahead, around = clock_of(answer)
            assert abs(ahead) <= around + CLOCK_OFF_S


@pytest.mark.parametrize(
    "part",
    [b"\n" * 1000, b" " * 1_000_000, b"{}," * 100_000],
    ids=["empty-lines", "blanks", "array-items"],
)
async def test_a_stream_that_exceeds_the_limits_ends_with_an_error(agents, client, part):
    pod = agents.add("node-1", endless(HEAD + b'{"version": "1"}\n', part))
    changes = AgentCalls(client).changes(
        target(pod), "/api/v1/status?watch", Bounds(), first_s=30, silent_s=30
    )
    with pytest.raises(TooLarge):
        async for _ in changes:
            pass


async def test_parsing_a_change_of_a_stream_is_followed_by_a_pause(agents, client):
    # Parsing one change takes so long that the next line arrives in the meantime.
    change = b'{"ports": [' + b",".join([b"{}"] * 5_000) + b"]}\n"

    async def send_changes(request, send):
        await send(HEAD + b'{"version": "1"}\n')
        await send(3 * change)

    waits = []

    async def wait(seconds):
        waits.append(seconds)

    pod = agents.add("node-1", send_changes)
    changes = AgentCalls(client, pause=wait).changes(
        target(pod), "/api/v1/status?watch", Bounds(), first_s=9, silent_s=9
    )
    await anext(changes)
    await anext(changes)
    assert not waits, "a pause followed the first answer"
    with pytest.raises(Unreadable, match="the stream ended"):
        async for _ in changes:
            pass
    assert len(waits) == 2


async def test_the_status_accumulated_from_a_stream_is_bounded_in_size(agents, client):
    def sends(make):
        async def send_more(request, send):
            await send(HEAD + b'{"version": "1"}\n')
            for number in range(30):
                await send(json.dumps(make(number)).encode() + b"\n")

        return send_more

    async def read_all(pod):
        changes = AgentCalls(client).changes(
            target(pod), "/api/v1/status?watch", Bounds(body=12_000), first_s=9, silent_s=9
        )
        async for _ in changes:
            pass

    text = "x" * 2000
    added = agents.add("node-1", sends(lambda n: {"ports": [{"service": f"{n}{text}"}]}))
    changed = agents.add("node-2", sends(lambda n: {"commit": f"{n}{text}"}))
    with pytest.raises(TooLarge):
        await read_all(added)
    with pytest.raises(Unreadable, match="the stream ended"):
        await read_all(changed)


async def test_lines_of_a_connection_stream_are_rate_limited(agents, client):
    pod = agents.add("node-1", endless(HEAD, b"{}\n" * 10_000))
    lines = AgentCalls(client).lines(
        target(pod), "/api/v1/connections?watch", first_s=9, silent_s=9
    )
    with pytest.raises(TooLarge):
        async for _ in lines:
            pass


async def test_a_line_of_a_connection_stream_is_bounded_in_size(agents, client):
    pod = agents.add("node-1", endless(HEAD, b" " * 100_000))
    lines = AgentCalls(client).lines(target(pod), "/x", first_s=9, silent_s=9)
    with pytest.raises(TooLarge) as caught:
        async for _ in lines:
            pass
    assert caught.value.bytes_max == module.LINE_BYTES


async def test_the_line_stream_of_a_silent_agent_times_out(agents, client):
    pod = agents.add("node-1", endless(HEAD + b"{}\n", b"", every_s=60))
    lines = AgentCalls(client).lines(target(pod), "/x", first_s=9, silent_s=0.1)
    assert [await anext(lines), await anext(lines)] == [b"", b"{}"]
    with pytest.raises(TimeoutError):
        await anext(lines)


async def asked(agents, client, answer):
    pod = agents.add("node-1", answer)
    pieces = ask(client, ForwardTarget("kube-system", pod, 10249), "/x", Bounds())
    async with contextlib.aclosing(pieces):
        return b"".join([piece async for piece in pieces])


async def test_an_agent_is_reached_through_the_api_server(api, agents, client):
    assert await asked(agents, client, fixed(b"hello")) == b"hello"
    assert api.pods.dialled == ["kube-system/userspace-proxy-node-1:10249"]


async def test_an_error_status_is_reported_with_the_beginning_of_its_text(agents, client):
    with pytest.raises(OtherStatus, match=r"HTTP status 404: not here$") as raised:
        await asked(agents, client, fixed(b"not\nhere\n", 404, Server="userspace-proxy"))
    assert raised.value.code == 404
    with pytest.raises(OtherStatus) as raised:
        await asked(agents, client, fixed(b"x" * 100_000, 500, Server="userspace-proxy"))
    assert raised.value.text == "x" * 200


async def test_a_404_response_of_kube_proxy_is_attributed_to_another_program(agents, client):
    with pytest.raises(Unreadable, match="another program answers at that port"):
        await asked(agents, client, fixed(b"404 page not found", 404))
