import asyncio
import json
import threading
from functools import partial

import pytest

from tests.unit.dataplane.waiting import until
from tests.unit.status.views import replace
from userspace_proxy.cli.terminal import watch
from userspace_proxy_kubectl.cli import nodes as module
from userspace_proxy_kubectl.cli.followed import FollowedNodes
from userspace_proxy_testing.fakes.agent_answers import HOSTILE

from .nodes_world import DB, REFUSED, WEB, A, status_of

THREE = ("node-1", "node-2", "node-3")


@pytest.fixture
def three(cluster):
    """The agents of three nodes that serve the same Services, by node."""
    return {node: cluster.add(node) for node in THREE}


@pytest.mark.parametrize("words", [["status", "-A"], ["nodes"], ["status", "shop/web"]])
async def test_the_exit_status_is_0_if_all_nodes_serve_every_service(words, three, cluster, capsys):
    assert await cluster.run(*words) == 0
    assert capsys.readouterr().out.startswith("3 nodes")


async def test_status_names_the_nodes_that_deviate_from_the_other_nodes(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("status") == 3
    out = capsys.readouterr().out
    assert "partly answering on node-2 (1 of 3)" in out
    assert "cart/db" not in out, "another namespace is shown"


async def test_a_node_without_an_agent_or_a_response_is_named(three, cluster, capsys):
    cluster.agents.put_node("node-4")
    cluster.agents.add("node-5", HOSTILE["silent"]())
    for words in (["status", "-A"], ["nodes"]):
        assert await cluster.run(*words, "--timeout=1s") == 3
        out = capsys.readouterr().out
        assert out.startswith("3 of 5 nodes")
        assert "no agent" in out
        assert "no answer within 1 s" in out


async def test_only_the_selected_nodes_are_queried(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("status", "-A", "--node=node-1,node-3") == 0
    assert capsys.readouterr().out.startswith("2 nodes")
    assert not three["node-2"].requests


async def test_the_status_of_a_service_lists_its_endpoints(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("status", "web") == 3
    assert f"endpoint  {A}" in capsys.readouterr().out.replace("(node-a)  ", "")
    assert await cluster.run("status", "cart/db") == 0


async def test_a_search_selects_services_matching_on_any_node(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("status", "-A", "-q", "is:partly") == 3
    out = capsys.readouterr().out
    assert "shop/web" in out
    assert "cart/db" not in out
    assert await cluster.run("status", "-A", "-q", "is:nonsense") == 2


async def test_a_nonexistent_name_is_reported_with_a_suggestion(three, cluster, capsys):
    assert await cluster.run("status", "db") == 1
    error = "error: there is no Service shop/db; cart/db exists\n"
    assert capsys.readouterr().err == error
    assert await cluster.run("top", "-n", "shpo") == 1
    assert "did you mean shop?" in capsys.readouterr().err


async def test_json_output_contains_verdicts_and_nodes(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("status", "shop/web", "-o", "json") == 3
    (port,) = json.loads(capsys.readouterr().out)["ports"]
    assert port["service"] == "web"
    assert await cluster.run("nodes", "-o", "json") == 0
    rows = json.loads(capsys.readouterr().out)["nodes"]
    assert {row["node"] for row in rows} == {*THREE}


async def test_top_shows_rates_averaged_over_three_seconds(three, cluster, capsys, monkeypatch):
    loop, shown = asyncio.get_running_loop(), []

    class Recorded(FollowedNodes):
        def __enter__(self):
            shown.append(self)
            return super().__enter__()

    def carried():
        answers = shown[0].now.answers
        return {port.connections for one in answers for port in one.status.ports[:1]}

    async def carry():
        await until(
            lambda: all(len(agent.requests) > 1 for agent in three.values()),
            "all nodes are followed",
        )
        for node, agent in three.items():
            agent.change(status_of(node, replace(WEB, connections=WEB.connections + 10), DB))
        await until(lambda: carried() == {WEB.connections + 10}, "all nodes have carried more")

    monkeypatch.setattr(module, "FollowedNodes", Recorded)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        asyncio.run_coroutine_threadsafe(carry(), loop).result()

    monkeypatch.setattr(module, "wait", wait)
    assert await cluster.run("top", "-A") == 0
    assert waited == [3.0], "rates aren't averages of three seconds"
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "shop/web" in line]
    assert row.split()[6] not in ("0", "-")


@pytest.mark.parametrize("words", [["status", "-A"], ["nodes"], ["nodes", "-o", "json"]])
async def test_watch_repeats_the_output_until_ctrl_c(words, three, cluster, capsys, monkeypatch):
    seconds = []

    def wait(second):
        seconds.append(second)
        if len(seconds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "watch", partial(watch, wait=wait))
    assert await cluster.run(*words, "--watch") == 0
    begin = '{"now"' if "json" in words else "3 nodes"
    assert sum(line.startswith(begin) for line in capsys.readouterr().out.splitlines()) == 3
    assert not [one for one in threading.enumerate() if one.name.startswith("nodes")]


async def test_a_cluster_without_agents_is_reported_in_one_line(cluster, capsys):
    cluster.agents.put_node("node-1")
    for words in (["nodes"], ["status"], ["top"], ["status", "--watch"]):
        assert await cluster.run(*words) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


async def test_a_denied_request_names_the_command_granting_access(cluster, capsys):
    cluster.add("node-1")
    cluster.api.denied = {"list pods"}
    assert await cluster.run("status") == 1
    assert "kubectl -n kube-system create rolebinding" in capsys.readouterr().err
