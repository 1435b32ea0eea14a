"""Tests of finding agents by their labels, and nodes without an agent."""

import asyncio
import contextlib

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy_kubectl.nodes.discovery import Finder, Where

from .objects import daemon_set, node, pod, with_metadata

KUBE_PROXY = {"k8s-app": "kube-proxy"}
RUN = ["/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf"]


async def no_pause(_seconds):
    pass


@pytest.fixture
def finder_of(client):
    def finder_of(**where):
        return Finder(client, Where(**where), pause=no_pause)

    return finder_of


async def look(finder):
    await finder.pods()
    return await finder.others()


def names(found, wanted=frozenset()):
    return found.names(wanted)


async def test_agents_are_found_by_their_label_in_the_default_namespace(api, finder_of):
    api.put(pod("one", "node-1"))
    api.put(pod("two", "node-2"))
    api.put(pod("no-agent", "node-3", labels={"app": "web"}))
    api.put(with_metadata(pod("elsewhere", "node-4"), namespace="other"))
    found = await finder_of().pods()
    assert {node: one.target.pod for node, (one,) in found.agents.items()} == {
        "node-1": "one",
        "node-2": "two",
    }


async def test_a_selector_and_a_namespace_select_other_agents(api, finder_of):
    api.put(with_metadata(pod("mine", "node-1", labels={"app": "mine"}), namespace="net"))
    found = await finder_of(namespace="net", selector="app=mine").pods()
    assert list(found.agents) == ["node-1"]


async def test_a_kube_proxy_pod_with_the_take_over_flag_is_an_agent(api, finder_of):
    api.put(pod("new", "node-1", labels=KUBE_PROXY, command=[*RUN, "--take-over"]))
    api.put(pod("old", "node-2", labels=KUBE_PROXY, command=RUN))
    found = await finder_of().pods()
    assert list(found.agents) == ["node-1"]


async def test_kube_proxy_is_not_an_agent(api, finder_of):
    api.put(pod("old", "node-1", labels=KUBE_PROXY, command=RUN))
    finder = finder_of()
    await look(finder)
    assert finder.has_others
    with pytest.raises(SourceError, match=r"no agent in namespace kube-system.*--selector"):
        finder.check()


async def test_kube_proxy_is_not_an_agent_even_after_a_failed_list(api, finder_of):
    api.put(pod("old", "node-1", labels=KUBE_PROXY, command=RUN))
    finder = finder_of()
    api.refuse("pods", 500, after=1)
    with pytest.raises(SourceError):
        await finder.pods()
    assert not (await finder.pods()).agents


async def test_nodes_matching_the_node_selector_of_agent_pods_should_have_an_agent(api, finder_of):
    linux = {"kubernetes.io/os": "linux"}
    api.put(pod("one", "node-1", nodeSelector=linux, tolerations=[{"operator": "Exists"}]))
    api.put(node("node-1", **linux))
    api.put(node("node-2", **linux))
    api.put(node("windows-1"))
    found = await look(finder_of())
    assert (names(found), found.excluded(names(found))) == (("node-1", "node-2"), ("windows-1",))


async def test_without_pods_the_daemon_set_determines_nodes_lacking_an_agent(api, finder_of):
    api.put(daemon_set(pool="a"))
    api.put(node("node-1", pool="a"))
    api.put(node("node-2"))
    finder = finder_of()
    assert names(await look(finder)) == ("node-1",)
    finder.check()


async def test_nodes_are_unknown_without_permission_to_list_them(api, finder_of):
    api.put(pod("one", "node-1"))
    api.put(node("node-2"))
    api.denied = {"list nodes", "list daemonsets"}
    found = await look(finder_of())
    assert (found.nodes, names(found)) == (None, ("node-1",))


async def test_a_forbidden_pod_list_is_an_error_with_the_command_granting_access(api, finder_of):
    api.denied = {"list pods"}
    with pytest.raises(SourceError, match=r"doesn't allow test to list pods .* rolebinding"):
        await finder_of().pods()


@pytest.mark.parametrize("code", [401, 500])
async def test_other_rejected_requests_are_errors_with_the_servers_message(api, finder_of, code):
    api.refuse("pods", code, message="not today")
    with pytest.raises(SourceError, match="not today"):
        await finder_of().pods()


async def test_added_removed_and_changed_agents_are_followed(api, finder_of):
    api.put(pod("one", "node-1"))
    finder = finder_of()
    await finder.pods()
    async with contextlib.aclosing(finder.follow()) as following:
        api.put(pod("two", "node-2"))
        assert list((await anext(following)).agents) == ["node-1", "node-2"]
        api.put(pod("two", "node-2", status={"phase": "Pending"}))
        assert not (await anext(following)).agents["node-2"][0].is_running
        api.delete("Pod", "one", "kube-system")
        assert list((await anext(following)).agents) == ["node-2"]


async def test_pods_are_listed_again_after_a_watch_ends(api, finder_of):
    api.put(pod("one", "node-1"))
    finder = finder_of()
    await finder.pods()
    api.forget()
    api.put(pod("two", "node-2"))
    api.forget()
    async with contextlib.aclosing(finder.follow()) as following:
        assert list((await anext(following)).agents) == ["node-1", "node-2"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"type": "ADDED", "object": {"spec": []}}\n', id="no-pod"),
        pytest.param(b"no JSON\n", id="no-json"),
        pytest.param(b'{"type": "ERROR", "object": {"code": 500}}\n', id="error"),
    ],
)
async def test_an_invalid_line_of_a_watch_ends_only_that_watch(api, finder_of, line):
    api.put(pod("one", "node-1"))
    finder = finder_of()
    await finder.pods()
    async with contextlib.aclosing(finder.follow()) as following:
        listed = asyncio.ensure_future(anext(following))
        await api.until(lambda api: api.watch_count("pods"))
        api.send("pods", line)
        assert list((await listed).agents) == ["node-1"]
