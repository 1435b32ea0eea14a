"""The bytes of fake agents' answers."""

from __future__ import annotations

import asyncio
import zlib

import msgspec
import pytest

from tests.unit.dataplane.waiting import until
from userspace_proxy.facts import Level
from userspace_proxy.facts.encoding import read_answer
from userspace_proxy.plan.digest import FORM, bucket_of
from userspace_proxy_testing.fakes.agent_answers import (
    HOSTILE,
    PLAN,
    STATUS,
    TRICKS,
    FakeAgent,
    forged,
    gzip_bomb,
)
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of
from userspace_proxy_testing.fakes.agents import AgentRequest


def request(*, gzip: bool = False, path: str = STATUS, **query: str) -> AgentRequest:
    headers = {"accept-encoding": "gzip"} if gzip else {}
    return AgentRequest("GET", path, {k: [v] for k, v in query.items()}, headers, False)


class Client:
    """A client that collects the bytes that it receives."""

    def __init__(self) -> None:
        self.got = b""

    async def send(self, data: bytes) -> None:
        self.got += data

    @property
    def body(self) -> bytes:
        return self.got.partition(b"\r\n\r\n")[2]


async def asked(answer, request: AgentRequest) -> Client:
    client = Client()
    await answer(request, client.send)
    return client


def facts(node: str = "node-1"):
    found = status_of(service_objects(3), node)
    worse = msgspec.structs.replace(found.ports[0].state, level=Level.TROUBLE)
    found.ports[0].state = worse
    return found


async def test_a_complete_status_response_parses_as_a_proxy_status():
    client = await asked(FakeAgent(facts()), request())
    status = read_answer(client.body)
    assert (status.node, len(status.ports)) == ("node-1", 3)
    assert b"Content-Length: %d\r\n" % len(client.body) in client.got


async def test_a_summary_contains_unserved_and_requested_services():
    agent = FakeAgent(facts())
    alone = read_answer((await asked(agent, request(view="summary"))).body)
    assert [port.service for port in alone.ports] == ["service-0"]
    more = await asked(agent, request(view="summary", also="team-2/service-2"))
    assert [port.service for port in read_answer(more.body).ports] == ["service-0", "service-2"]


async def test_a_stream_sends_changes_line_by_line():
    agent, client = FakeAgent(facts()), Client()
    stream = asyncio.create_task(agent(request(watch="", gzip=True), client.send))
    unpacker, lines = zlib.decompressobj(wbits=31), []

    def read() -> int:
        lines[:] = unpacker.copy().decompress(client.body).splitlines()
        return len(lines)

    try:
        await until(lambda: read() == 1)
        agent.change(agent.facts)
        await until(lambda: read() == 2)
        agent.change(msgspec.structs.replace(agent.facts, verdict="other"))
        await until(lambda: read() == 3)
    finally:
        stream.cancel()
    assert len(read_answer(lines[0]).ports) == 3
    assert lines[1] == b""
    assert msgspec.json.decode(lines[2]).keys() == {"now", "verdict"}


async def test_an_agent_returns_only_the_digests_of_the_requested_bucket():
    digests = {"shop/web": "0123abcd", "shop/db": "4567cdef"}
    agent = FakeAgent(facts(), digests=digests)
    whole = msgspec.json.decode((await asked(agent, request(path=PLAN))).body)
    assert whole == {"form": FORM, "digests": digests}
    one = await asked(agent, request(path=PLAN, bucket=str(bucket_of("shop/db"))))
    assert msgspec.json.decode(one.body)["digests"] == {"shop/db": "4567cdef"}


async def test_configured_pages_are_served_and_other_paths_return_404():
    agent = FakeAgent(facts(), pages={"/configz": b"{}"})
    assert (await asked(agent, request(path="/configz"))).body == b"{}"
    assert b" 404 " in (await asked(agent, request(path="/api/v1/plan"))).got


async def test_the_gzip_bomb_expands_more_than_five_hundredfold():
    client = await asked(gzip_bomb(8 << 20), request())
    unpacked = zlib.decompressobj(wbits=31).decompress(client.body)
    assert len(unpacked) == 8 << 20 > 500 * len(client.body)


async def test_deeply_nested_json_exceeds_the_parsers_depth():
    client = await asked(HOSTILE["deep-json"](), request())
    with pytest.raises(RecursionError):
        read_answer(client.body)


@pytest.mark.parametrize("trick", TRICKS, ids=["terminal", "html", "direction", "shell"])
def test_forged_facts_contain_the_hostile_text_as_node_verdict_and_state(trick):
    made = forged(facts(), trick)
    assert made.node == made.verdict == made.ports[0].state.sentence == trick
