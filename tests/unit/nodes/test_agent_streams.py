"""Tests of streams that stall or end, and of agents whose pods change."""

import asyncio
import contextlib

import pytest

from userspace_proxy.facts.encoding import encode_answer
from userspace_proxy_kubectl.nodes import agent_calls, agent_streams
from userspace_proxy_kubectl.nodes.agent_calls import AgentCalls
from userspace_proxy_kubectl.nodes.agent_streams import OTHERS_S, PAUSES_S, Following
from userspace_proxy_kubectl.nodes.answer_detail import Answers, Asking
from userspace_proxy_kubectl.nodes.discovery import Finder, Where
from userspace_proxy_testing.fakes.agent_answers import HOSTILE, FakeAgent, fixed
from userspace_proxy_testing.fakes.agent_status import status_of

from .objects import daemon_set, node

STATUS = status_of([], "node-1")


@pytest.fixture
async def follow(client):
    """Return a function that runs a Following, whose retries the test permits one by one."""
    answers, changed, waits = Answers(Where()), asyncio.Event(), []
    may_go = asyncio.Semaphore(0)

    async def pause(seconds):
        waits.append(seconds)
        changed.set()
        # The list of all Nodes isn't repeated.
        await (may_go.acquire() if seconds != OTHERS_S else asyncio.Event().wait())

    finder = Finder(client, Where(), pause=pause)

    async def until(condition):
        while not condition():
            await changed.wait()
            changed.clear()

    @contextlib.asynccontextmanager
    async def follow(first_s=30.0):
        answers.take(await finder.pods())
        followed = Following(
            finder,
            AgentCalls(client),
            Asking(watches=True),
            answers,
            changed.set,
            first_s=first_s,
            pause=pause,
        )
        task = asyncio.ensure_future(followed.run())
        try:
            yield answers, until, waits, may_go
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return follow


def problem(answers):
    return answers.nodes["node-1"].problem


async def test_the_retry_delay_grows_after_each_failure_up_to_a_limit(agents, follow):
    agents.add("node-1", fixed(b"no", 500))
    async with follow() as (_, until, waits, may_go):
        for _ in range(20):
            may_go.release()
        # Lists of nodes and pods have other retry delays.
        await until(lambda: waits.count(PAUSES_S[-1]) == 2)
        assert [wait for wait in waits if wait in PAUSES_S] == [*PAUSES_S, PAUSES_S[-1]]


async def test_a_response_resets_the_retry_delay_of_a_stream(agents, follow):
    agents.add("node-1", fixed(encode_answer(STATUS), Content_Type="application/x-ndjson"))
    async with follow() as (_, until, waits, may_go):
        for _ in range(20):
            may_go.release()
        await until(lambda: len([wait for wait in waits if wait in PAUSES_S]) == 3)
        assert waits.count(PAUSES_S[0]) == 3


async def test_a_node_that_stops_being_ready_is_reported_with_its_agent(agents, api, follow):
    agents.add("node-1", HOSTILE["silent"]())
    async with follow(first_s=0.1) as (answers, until, _, may_go):
        await until(lambda: problem(answers) is not None)
        assert problem(answers).row.key == "no_answer"
        api.put(node("node-1", ready="Unknown"))
        for _ in range(3):
            may_go.release()
        await until(lambda: problem(answers).get("node_state") == "kubelet has stopped")


@pytest.mark.parametrize("is_excluded", [False, True], ids=["left", "excluded"])
async def test_a_node_that_leaves_or_is_excluded_is_not_reported_to_lack_an_agent(
    agents, api, follow, is_excluded
):
    for name in ("node-1", "node-2"):
        agents.add(name, FakeAgent(STATUS))
    async with follow() as (answers, until, waits, may_go), asyncio.timeout(30):
        await until(lambda: answers.all_nodes(None).has_nodes and answers.is_settled())
        agents.remove("node-2")
        await until(lambda: 5.0 in waits)
        assert answers.nodes["node-2"].problem.row.key == "no_agent"
        if is_excluded:
            api.put(daemon_set(pool="a"))
        else:
            api.delete("Node", "node-2", "")
        may_go.release()
        await until(lambda: list(answers.nodes) == ["node-1"])


async def test_a_stream_without_messages_is_reported_as_silent(agents, follow, monkeypatch):
    monkeypatch.setattr(agent_streams, "SILENT_S", 0.1)
    monkeypatch.setattr(agent_calls, "FIRST_GAP_S", 0.01)
    agents.add("node-1", FakeAgent(STATUS))
    monkeypatch.setattr(agent_streams, "every_s", lambda _count: 0.01)
    async with follow() as (answers, until, _, _):
        await until(lambda: problem(answers) is not None)
        assert problem(answers).row.key == "gone_silent"
        assert answers.nodes["node-1"].status is not None


async def test_the_stream_of_a_replaced_pod_ends(streams, agents, follow):
    agents.add("node-1", FakeAgent(STATUS))
    async with follow() as (answers, until, _, _):
        await until(lambda: answers.nodes["node-1"].status is not None)
        new = FakeAgent(status_of([], "node-1", version="new"))
        agents.add("node-1", new, pod="new", created="2026-11-22T09:00:00Z")
        async with asyncio.timeout(30):
            await until(lambda: answers.nodes["node-1"].status.version == "new")
        await streams(1)
