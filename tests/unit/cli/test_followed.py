import asyncio
import resource
import sys

import pytest

from tests.unit.dataplane.waiting import until
from userspace_proxy.causes.say import say
from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.errors import ConfigError, UserspaceProxyError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.linux import bounded
from userspace_proxy_kubectl.cli.followed import (
    FollowedNodes,
    _with_problems,
    open_reader,
    read_once,
)
from userspace_proxy_kubectl.cli.table import NODES
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.agent_causes import no_agent
from userspace_proxy_kubectl.nodes.reader import NodesReader
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import HOSTILE

from .conftest import Terminal
from .nodes_world import REFUSED, status_of


def given(cluster, *words):
    return COMMANDS["status"].read_words([*words, cluster.kubeconfig])


async def read(cluster, *words, also=()):
    words = given(cluster, *words)
    return await asyncio.to_thread(read_once, words, settings_of(words), also)


async def test_a_silent_node_does_not_hide_the_answers_of_other_nodes(cluster):
    cluster.add("node-1")
    cluster.agents.add("node-2", HOSTILE["silent"]())
    all_nodes = await read(cluster, "--timeout=1s")
    assert [(one.node, one.status is not None) for one in all_nodes.answers] == [
        ("node-1", True),
        ("node-2", False),
    ]


async def test_a_terminal_shows_how_many_nodes_have_responded(cluster, monkeypatch):
    cluster.add("node-1")
    cluster.agents.add("node-2", HOSTILE["silent"]())
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    await read(cluster, "--timeout=1s")
    assert "1 of 2 nodes" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


async def test_service_ports_omitted_by_summaries_are_fetched_by_a_second_read(cluster):
    nodes = [f"node-{number}" for number in range(101)]
    agents = [cluster.add(node) for node in nodes]
    agents[7].change(status_of("node-7", REFUSED))
    all_nodes = await read(cluster, "--timeout=60s")
    others = [one.status.ports for one in all_nodes.answers if one.node != "node-7"]
    assert all(ports and ports[0].service == "web" for ports in others)


async def test_service_ports_fetched_by_a_second_read_are_shown_while_nodes_are_followed(cluster):
    agents = [cluster.add(f"node-{number}") for number in range(101)]
    agents[7].change(status_of("node-7", REFUSED))
    words = given(cluster, "--timeout=60s")
    followed = await asyncio.to_thread(FollowedNodes(words, settings_of(words)).__enter__)
    try:
        first = followed.now
        await until(lambda: followed.now is not first, "the first answers are replaced")
        others = [one.status.ports for one in followed.now.answers if one.node != "node-7"]
        assert all(ports and ports[0].service == "web" for ports in others)
    finally:
        await asyncio.to_thread(followed.__exit__)


async def test_nodes_are_followed_until_the_command_ends(cluster):
    agent = cluster.add("node-1")
    words = given(cluster)

    def ports():
        return [port.service for port in followed.now.answers[0].status.ports]

    followed = await asyncio.to_thread(FollowedNodes(words, settings_of(words)).__enter__)
    try:
        assert ports() == ["web", "db"]
        agent.change(status_of("node-1", REFUSED))
        await until(lambda: ports() == ["web"], "the change is known")
        agents = cluster.add("node-2")
        await until(lambda: len(followed.now.answers) == 2 and agents.requests, "another node")
    finally:
        await asyncio.to_thread(followed.__exit__)


async def test_a_silent_node_has_its_cause_while_changes_of_other_nodes_are_followed(
    cluster, monkeypatch
):
    follow = NodesReader.follow

    def with_time_for_a_stream(reader, **options):
        reader._timeout_s = 600.0
        return follow(reader, **options)

    monkeypatch.setattr(NodesReader, "follow", with_time_for_a_stream)
    agent = cluster.add("node-1")
    cluster.agents.add("node-2", HOSTILE["silent"]())
    words = given(cluster, "--timeout=1s")
    followed = await asyncio.to_thread(FollowedNodes(words, settings_of(words)).__enter__)
    try:
        agent.change(status_of("node-1", REFUSED))
        await until(lambda: len(followed.now.answers[0].status.ports) == 1, "the change is known")
        assert "no answer within 1 s" in say(followed.now.answers[1].problem)
    finally:
        await asyncio.to_thread(followed.__exit__)


def test_a_problem_is_shown_until_its_node_has_responded():
    problem, agents = no_agent("shop"), (ForwardTarget("shop", "agent-1", 10249),)
    asked, answered = AgentAnswer("a", agents), AgentAnswer("a", agents, StatusFacts())
    problems = {"a": problem}
    shown = [_with_problems(AllNodes((one,)), problems) for one in (asked, answered, asked)]
    assert [all_nodes.answers[0].problem for all_nodes in shown] == [problem, None, None]


async def test_a_cluster_without_agents_is_an_error(cluster):
    words = given(cluster)

    def follow():
        with FollowedNodes(words, settings_of(words)):
            raise AssertionError("a cluster without agents is followed")

    for wanted in (follow, lambda: read_once(words, settings_of(words))):
        with pytest.raises(UserspaceProxyError, match="no agent"):
            await asyncio.to_thread(wanted)


GIVEN = NODES.read_words([])


def test_a_timeout_of_zero_is_rejected():
    with pytest.raises(ConfigError, match="--timeout"):
        open_reader(NODES.read_words(["--timeout=0s"]), settings_of(GIVEN))


def test_a_missing_kubeconfig_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        open_reader(GIVEN, settings_of(GIVEN))


def test_opening_a_reader_of_nodes_raises_the_descriptor_limit(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        open_reader(GIVEN, settings_of(GIVEN))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (bounded(hard), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
