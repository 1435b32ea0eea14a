"""Tests of reading all nodes through a fake API server while some agents misbehave."""

import asyncio
import contextlib

import msgspec
import pytest

from userspace_proxy.causes.cause import Cause
from userspace_proxy.causes.say import say
from userspace_proxy.errors import SourceError
from userspace_proxy_kubectl.nodes import agent_calls, answer_detail
from userspace_proxy_kubectl.nodes import agent_causes as rows
from userspace_proxy_kubectl.nodes.agent_streams import PAUSES_S
from userspace_proxy_kubectl.nodes.discovery import Where
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.reader import NodeLine, NodesReader
from userspace_proxy_testing.fakes.agent_answers import HOSTILE, FakeAgent, endless, fixed
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of
from userspace_proxy_testing.fakes.agents import response_head

from .views import agent_on

OBJECTS = service_objects(3)
STATUS = status_of(OBJECTS, "node-1")
# Only unresponsive agents use up the short deadline; the long one allows for slow machines.
SHORT_S, LONG_S = 3.0, 30.0
NO_ANSWER = ("silent", "slow-drip")


def status(node, **changes):
    return msgspec.structs.replace(STATUS, node=node, **changes)


def problems(all_nodes):
    return {one.node: one.problem.row.key if one.problem else "" for one in all_nodes.answers}


async def read(reader, **options):
    async with reader:
        return await reader.first(**options)


async def test_the_reader_returns_a_response_or_a_problem_for_every_node(agents, reader_of):
    for name in ("node-2", "node-1"):
        agents.add(name, FakeAgent(status(name)))
    agents.put_node("node-3")
    found = await read(reader_of())
    assert [one.node for one in found.answers] == ["node-1", "node-2", "node-3"]
    assert [one.status.node for one in found.answers[:2]] == ["node-1", "node-2"]
    assert problems(found) == {"node-1": "", "node-2": "", "node-3": "no_agent"}
    assert found.has_nodes
    assert found.digests is None
    first = found.answers[0]
    assert 0 < first.asked_at <= first.answered_at
    assert first.agents == (agent_on("node-1"),)


async def test_only_the_nodes_named_by_the_user_are_queried(api, agents, reader_of):
    for name in ("node-1", "node-2"):
        agents.add(name, FakeAgent(status(name)))
    found = await read(reader_of(Where(nodes=frozenset({"node-2", "node-9"}))))
    assert problems(found) == {"node-2": "", "node-9": "no_agent"}
    assert api.pods.dialled == ["kube-system/userspace-proxy-node-2:10249"]


async def test_a_second_agent_of_a_node_is_queried_if_the_first_fails(agents, reader_of):
    agents.add("node-1", FakeAgent(status("node-1")))
    agents.add("node-1", HOSTILE["not-json"](), pod="new", created="2026-11-22T09:00:00Z")
    (found,) = (await read(reader_of())).answers
    assert (found.problem, found.status.node, len(found.agents)) == (None, "node-1", 2)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_agent_affects_only_its_own_node(agents, reader_of, name):
    agents.add("node-1", FakeAgent(status("node-1")))
    agents.add("hostile", HOSTILE[name]())
    agents.add("node-2", FakeAgent(status("node-2")))
    timeout_s = SHORT_S if name in NO_ANSWER else LONG_S
    found = problems(await read(reader_of(timeout_s=timeout_s)))
    assert (found["node-1"], found["node-2"]) == ("", "")
    expected = {"tricks": "", **dict.fromkeys(NO_ANSWER, "no_answer")}
    if name in ("huge", "false-length", "endless", "gzip-bomb", "deep-json"):
        expected[name] = found["hostile"]
        assert found["hostile"] in ("answer_too_large", "answer_unreadable")
    assert found["hostile"] == expected.get(name, "answer_unreadable")


async def test_comparing_plans_ends_once_all_nodes_have_answered(agents, reader_of):
    agents.add("node-1", FakeAgent(status("node-1"), digests={}))
    async with asyncio.timeout(LONG_S):
        found = await read(reader_of(with_plans=True, timeout_s=2 * LONG_S))
    assert found.digests is not None


async def test_the_reader_shows_partial_results(streams, agents, reader_of):
    shown = []
    agents.add("node-1", FakeAgent(status("node-1")))
    agents.add("silent", HOSTILE["silent"]())
    async with reader_of(timeout_s=SHORT_S) as reader:
        await reader.first(show=shown.append)
        await streams(0)
    assert problems(shown[-1]) == {"node-1": "", "silent": ""}
    assert shown[-1].answers[0].status is not None


async def test_a_node_whose_pod_has_vanished_has_a_cause(api, agents, reader_of):
    pod = agents.add("node-1", FakeAgent(status("node-1")))
    api.pods.kill(pod, "kube-system")
    condition = {"type": "Ready", "status": "Unknown", "message": "kubelet has stopped"}
    item = {"kind": "Node", "metadata": {"name": "node-1"}, "status": {"conditions": [condition]}}
    api.put(item)
    agents.add("node-2", FakeAgent(status("node-2")))
    found = await read(reader_of())
    assert problems(found) == {"node-1": "forward_failed", "node-2": ""}


async def test_a_forbidden_port_forward_is_an_error_with_a_command(api, agents, reader_of):
    agents.add("node-1", FakeAgent(status("node-1")))
    api.denied = {"create pods/portforward"}
    with pytest.raises(SourceError, match=r"allow test to forward ports of pods .* rolebinding"):
        await read(reader_of())


@pytest.mark.parametrize("follows", [False, True], ids=["once", "followed"])
async def test_a_forbidden_forward_does_not_cancel_other_responses(follows, agents, reader_of):
    is_refused, agent = asyncio.Event(), FakeAgent(status("node-1"))

    async def answer_later(request, send):
        await is_refused.wait()
        await agent(request, send)

    def show(found):
        if found.answers[1].problem is not None:
            is_refused.set()

    async def look(reader):
        if not follows:
            return await reader.first(show)
        async with contextlib.aclosing(reader.follow()) as following:
            async for found in following:
                show(found)
                if found.answers[0].status is not None:
                    break
        return found

    agents.add("node-1", answer_later)
    agents.add("node-2", FakeAgent(status("node-2")), is_forbidden=True)
    async with reader_of(timeout_s=30.0) as reader:
        found = await look(reader)
    assert problems(found) == {"node-1": "", "node-2": "forward_failed"}


async def test_an_unresponsive_server_times_out(api, reader_of):
    async def never(_reader, _writer):
        await asyncio.Event().wait()

    from tests.tcp_servers import serving
    from userspace_proxy.sources.kubernetes.client import ApiClient
    from userspace_proxy.sources.kubernetes.credentials import Credentials

    async with serving(never) as address:
        client = ApiClient(Credentials(master=f"http://{address}"))
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
            await read(NodesReader(client, timeout_s=0.2))


async def test_an_oversized_response_is_rerequested_as_a_summary(agents, reader_of, monkeypatch):
    agent = FakeAgent(status("node-1", served=3))
    agents.add("node-1", agent)
    monkeypatch.setattr(answer_detail, "WHOLE_BYTES", 4000)
    (one,) = (await read(reader_of())).answers
    assert one.is_summary
    assert [request.query.get("view") for request in agent.requests] == [None, ["summary"]]


async def test_a_node_queued_until_the_deadline_counts_as_not_asked(agents, reader_of, monkeypatch):
    monkeypatch.setattr(agent_calls, "_INLINE_BYTES", 0)
    agents.add("node-1", FakeAgent(status("node-1")))
    agents.add("silent", HOSTILE["silent"]())
    reader = reader_of(timeout_s=SHORT_S)
    async with reader._calls._limits.parsing:
        assert problems(await read(reader)) == {"node-1": "not_asked", "silent": "no_answer"}


async def test_other_paths_can_be_queried_on_selected_or_all_nodes(agents, reader_of):
    pages = {"/api/v1/connections": b"[]"}
    agents.add("node-1", FakeAgent(status("node-1"), pages=pages))
    agents.add("node-2", FakeAgent(status("node-2")))
    async with reader_of() as reader:
        found = await reader.ask("/api/v1/connections")
        assert found["node-1"] == b"[]"
        assert isinstance(found["node-2"], Cause)
        assert list(await reader.ask("/api/v1/connections", ["node-1"])) == ["node-1"]
        assert await reader.ask("/api/v1/connections", ["node-9"]) == {}


async def test_a_queried_but_unresponsive_node_has_a_cause(streams, agents, reader_of):
    agents.add("node-1", HOSTILE["silent"]())
    async with reader_of(timeout_s=0.2) as reader:
        found = await reader.ask("/api/v1/connections")
        await streams(0)
    assert found == {"node-1": rows.no_answer("kube-system", 0.2)}


async def test_lines_of_all_nodes_arrive_and_closed_streams_are_reopened(api, agents, reader_of):
    head = response_head(200, Content_Type="application/x-ndjson")
    agents.add("node-1", endless(head + b'{"a": 1}\n', b"", every_s=60))
    pauses = []

    async def no_pause(seconds):
        pauses.append(seconds)

    async with (
        reader_of(pause=no_pause) as reader,
        contextlib.aclosing(reader.lines("/api/v1/connections?watch")) as lines,
    ):
        assert await anext(lines) == NodeLine("node-1")
        assert await anext(lines) == NodeLine("node-1", b'{"a": 1}')
        api.pods.break_streams()
        broken = await anext(lines)
        assert (broken.line, broken.problem.row) == (b"", rows.forward_failed)
        assert await anext(lines) == NodeLine("node-1")
        assert await anext(lines) == NodeLine("node-1", b'{"a": 1}')
        api.pods.break_streams()
        await anext(lines)
        assert await anext(lines) == NodeLine("node-1")
        assert PAUSES_S[1] not in pauses, "lines didn't reset the retry delay"


async def test_lines_arrive_from_added_and_replaced_agents(streams, agents, reader_of):
    head = response_head(200, Content_Type="application/x-ndjson")

    async def no_pause(_seconds):
        await asyncio.sleep(0)  # noqa: TID251 - in place of a longer pause

    agents.add("node-1", endless(head, b"old\n", every_s=0.01))
    async with reader_of(pause=no_pause) as reader:
        lines = reader.lines("/api/v1/connections?watch")
        async with contextlib.aclosing(lines):
            assert (await anext(lines)).node == "node-1"
            agents.add("node-2", endless(head, b"other\n", every_s=0.01))
            assert await until(lines, lambda one: one.line == b"other")
            agents.remove("node-2")
            agents.remove("node-1")
            new = endless(head, b"new\n", every_s=0.01)
            agents.add("node-1", new, pod="new", created="2026-11-22T09:00:00Z")
            assert await until(lines, lambda one: one.line == b"new")
            await streams(1)
        await streams(0)


async def until(following, condition):
    async for found in following:
        if condition(found):
            return found
    raise AssertionError("the results ended first")


@pytest.fixture
async def quick(reader_of):
    """Yield a reader with short pauses between results and before retries."""

    async def short(_seconds):
        await asyncio.sleep(0.01)  # noqa: TID251 - in place of a longer pause

    async with reader_of(pause=short, timeout_s=SHORT_S) as reader:
        yield reader


async def test_status_changes_of_all_nodes_are_followed(streams, agents, quick):
    agent = FakeAgent(status("node-1"))
    agents.add("node-1", agent)
    async with contextlib.aclosing(quick.follow()) as following:
        await until(following, lambda found: found.answers[0].status is not None)
        agent.change(status("node-1", revision=77))
        found = await until(following, lambda found: found.answers[0].status.revision == 77)
        assert quick.now == found
        agents.add("node-2", FakeAgent(status("node-2")))
        await until(following, lambda found: len(found.answers) == 2 and found.answers[1].status)
        agents.remove("node-2")
        await until(following, lambda found: not found.answers[-1].agents or len(found.answers) < 2)
        await streams(1)
    await streams(0)


async def test_a_broken_stream_has_a_cause_until_reopened(api, agents, quick):
    agents.add("node-1", FakeAgent(status("node-1")))
    async with contextlib.aclosing(quick.follow()) as following:
        await until(following, lambda found: found.answers[0].status is not None)
        api.pods.hold()
        api.pods.break_streams()
        found = await until(following, lambda found: found.answers[0].problem is not None)
        assert found.answers[0].status is not None
        api.pods.release()
        await until(following, lambda found: found.answers[0].problem is None)


async def test_an_unreachable_api_server_is_reported_beside_the_last_answers(api, agents, quick):
    agents.add("node-1", FakeAgent(status("node-1")))
    async with contextlib.aclosing(quick.follow()) as following:
        await until(following, lambda found: found.answers[0].status is not None)
        await api.stop()
        merged = merge(await until(following, lambda found: found.answers[0].problem is not None))
        with pytest.raises(SourceError, match="cannot reach the API server"):
            await quick.first()
    assert merged.answered == ("node-1",)
    assert say(merged.findings[0].cause).startswith("cannot reach the API server at http")


async def test_a_rolling_update_switches_to_the_new_agents_stream(agents, quick):
    agents.add("node-1", FakeAgent(status("node-1", version="old")))
    async with contextlib.aclosing(quick.follow()) as following:
        await until(following, lambda found: found.answers[0].status is not None)
        newer = "2026-11-22T09:00:00Z"
        agents.add("node-1", FakeAgent(status("node-1", version="new")), pod="n", created=newer)
        found = await until(following, lambda found: found.answers[0].status.version == "new")
        assert len(found.answers[0].agents) == 2


async def test_a_replaced_pods_agent_is_found_despite_silent_watches(api, agents, quick):
    agents.add("node-1", FakeAgent(status("node-1", version="old")))
    async with contextlib.aclosing(quick.follow()) as following:
        await until(following, lambda found: found.answers[0].status is not None)
        await api.until(lambda api: api.watch_count("pods") == 1)
        api.be_silent()
        agents.remove("node-1")
        agents.add("node-1", FakeAgent(status("node-1", version="new")), pod="other")
        api.pods.break_streams()
        await until(following, lambda found: found.answers[0].status.version == "new")


async def test_an_endless_stream_affects_only_its_own_node(agents, quick):
    head = response_head(200, Content_Type="application/x-ndjson")
    line = b'{"version": "1"}\n'
    agents.add("node-1", FakeAgent(status("node-1")))
    agents.add("hostile", endless(head + line, line * 1000))
    async with contextlib.aclosing(quick.follow()) as following:
        found = await until(following, lambda found: any(problems(found).values()))
        assert problems(found)["hostile"] == "answer_too_large"


async def test_following_raises_errors_of_the_first_read(api, agents, quick):
    agents.add("node-1", fixed(b"{}"))
    api.denied = {"create pods/portforward"}
    with pytest.raises(SourceError, match="rolebinding"):
        await until(quick.follow(), lambda _found: False)
