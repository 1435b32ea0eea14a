import asyncio
import io
import json

import msgspec
import pytest

from tests.unit.dataplane.waiting import until
from tests.unit.status.views import NOW
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.facts.connection import ConnectionEvent, ConnectionFacts
from userspace_proxy_kubectl.cli.observe_nodes import ShownLines, show_lines
from userspace_proxy_kubectl.nodes import agent_causes
from userspace_proxy_kubectl.nodes.reader import NodeLine
from userspace_proxy_testing.fakes.agent_answers import FakeAgent
from userspace_proxy_testing.fakes.agents import response_head

from .conftest import Terminal
from .nodes_world import ENDED, POD, status_of

UNSEEN = ConnectionFacts(
    event=ConnectionEvent.UNSEEN, at=NOW, service="shop/db", cause="the kernel refuses them"
)


def line_of(one):
    return msgspec.json.encode(one)


class ObservedAgent(FakeAgent):
    """An agent that sends these connections to each observer, and may end the stream."""

    def __init__(self, node, *connections, ends=False):
        super().__init__(status_of(node))
        self._lines = [*map(line_of, connections)]
        self._ends = ends
        self.watchers = []

    async def __call__(self, request, send):
        if request.path != "/api/v1/connections":
            await super().__call__(request, send)
            return
        self.watchers.append(request)
        await send(response_head(200, Content_Type="application/x-ndjson"))
        for line in self._lines:
            await send(line + b"\n")
        if not self._ends:
            await asyncio.Event().wait()


def shown(*lines, is_json=False):
    stream = io.StringIO()
    to = ShownLines(stream, is_json=is_json)
    for line in lines:
        to.add(line)
    return stream.getvalue().splitlines()


def test_json_lines_contain_the_node():
    (line,) = shown(NodeLine("node-7", line_of(ENDED)), is_json=True)
    assert json.loads(line) == {**json.loads(line_of(ENDED)), "node": "node-7"}


def test_a_notice_of_omitted_connections_is_printed_once_for_all_nodes():
    lines = shown(*(NodeLine(node, line_of(UNSEEN)) for node in ("node-1", "node-2")))
    assert len(lines) == 1


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="sign-of-life"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b"[1]", id="no-object"),
        pytest.param(b'{"at": 1e999}', id="number"),
        pytest.param(b"\xff\xfe", id="no-text"),
    ],
)
def test_a_line_without_a_connection_record_is_omitted(line, is_json):
    assert shown(NodeLine("node-7", line), is_json=is_json) == []


def test_a_broken_stream_is_reported_once_until_it_delivers_a_connection(capsys):
    broken = NodeLine("node-7", problem=agent_causes.no_answer("kube-system", 5.0))
    assert len(shown(broken, broken, NodeLine("node-7", line_of(ENDED)), broken)) == 1
    assert capsys.readouterr().err.count("node-7: ") == 2


def test_terminal_control_characters_are_escaped(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    trick = msgspec.structs.replace(ENDED, service="a\x1b[2Jb", client_pod="")
    ShownLines(terminal, is_json=False).add(NodeLine("no\x1bde", line_of(trick)))
    assert "\x1b" not in terminal.getvalue()


async def test_connections_of_all_nodes_are_shown_as_they_end(cluster, capsys):
    one, two = ObservedAgent("node-1", ENDED), ObservedAgent("node-2", ENDED, ends=True)
    cluster.agents.add("node-1", one)
    cluster.agents.add("node-2", two)
    out = []

    def both_shown():
        out.append(capsys.readouterr().out)
        return all(f" {node} {POD} → " in "".join(out) for node in ("node-1", "node-2"))

    words = ["web", "--failed", "--from=10.244.0.7", cluster.kubeconfig]
    task = asyncio.ensure_future(show_lines(COMMANDS["observe"].read_words(words)))
    try:
        await until(both_shown, "both nodes' connections are shown")
        await until(lambda: len(two.watchers) > 1, "a stream that ended is opened again")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    query = one.watchers[0].query
    assert (query["service"], query["failed"], query["from"]) == (
        ["shop/web"], ["yes"], ["10.244.0.7"],
    )  # fmt: skip


async def test_a_replacement_agent_is_followed(cluster, capsys):
    cluster.agents.add("node-1", ObservedAgent("node-1"))
    words = ["-A", cluster.kubeconfig]
    task = asyncio.ensure_future(show_lines(COMMANDS["observe"].read_words(words)))
    try:
        await until(lambda: cluster.api.pods.open, "it is followed")
        cluster.agents.remove("node-1")
        cluster.agents.add("node-1", ObservedAgent("node-1", ENDED), pod="successor")
        cluster.agents.add("node-2", ObservedAgent("node-2", UNSEEN))
        out = []

        def both_shown():
            out.append(capsys.readouterr().out)
            return all(f" {node} shop/" in "".join(out) for node in ("node-1", "node-2"))

        await until(both_shown, "the successor and the new node are followed")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_observe_reports_an_invalid_flag_value_as_a_usage_error(cluster, capsys):
    assert await cluster.run("observe", "--slow=often") == 2
    assert "--slow" in capsys.readouterr().err
