import asyncio
import contextlib
import re

import pytest

from tests.unit.nodes.dashboard.clusters import CALLS, sick_cluster
from tests.unit.nodes.dashboard.names import browsing
from userspace_proxy.cli import main
from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy_kubectl.cli import dashboard
from userspace_proxy_kubectl.cli.dashboard import has_screen
from userspace_proxy_kubectl.cli.followed import open_reader
from userspace_proxy_kubectl.cli.table import DASHBOARD
from userspace_proxy_testing.fakes.agent_answers import HOSTILE, FakeAgent

from .nodes_world import cluster_at

pytestmark = pytest.mark.timeout(120)


def add_sick_nodes(cluster):
    """Add three nodes, each with a different problem, and a node without an agent."""
    for answer in sick_cluster().answers:
        if answer.status is None:
            cluster.agents.put_node(answer.node)
        else:
            pages = {"/api/v1/connections": CALLS[answer.node]}
            cluster.agents.add(answer.node, FakeAgent(answer.status, pages=pages))


class Opened:
    """The browser window that the command has opened."""

    def __init__(self, address, session, task):
        self.address, self.task = address, task
        self._base, self._session = "", session

    async def open(self):
        async with self._session.get(self.address) as response:
            assert response.status == 200
            self._base = str(response.url.origin())

    async def read(self, path):
        async with self._session.get(self._base + path) as response:
            return await response.text()


@contextlib.asynccontextmanager
async def running(cluster, name="prod"):
    """Run the command until it opens a browser; yield the opened page."""
    given = DASHBOARD.read_words([cluster.kubeconfig])
    reader = open_reader(given, settings_of(given))
    loop = asyncio.get_running_loop()
    opened = loop.create_future()

    def opens(address):
        loop.call_soon_threadsafe(opened.set_result, address)

    serving = dashboard._serve(reader, cluster=name, port=0, opens=opens)
    task = asyncio.ensure_future(serving)
    try:
        await asyncio.wait((task, opened), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        async with browsing() as session:
            window = Opened(opened.result(), session, task)
            await window.open()
            yield window
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_said(window, path, words):
    """Wait until a page contains this text; return the page."""
    while words not in (page := await window.read(path)):
        await asyncio.wait([window.task], timeout=0.05)
        assert not window.task.done()
    return page


async def test_nodes_appear_on_the_dashboard_as_they_respond(tmp_path, capsys):
    async with cluster_at(tmp_path / "config") as cluster:
        add_sick_nodes(cluster)
        async with running(cluster) as window:
            printed = capsys.readouterr().out
            assert printed.startswith("all nodes of prod: http://")
            # Other users can see a browser's arguments, so these have a secret for a single use.
            (secret,) = re.findall(r"\?secret=(\S+)", printed)
            assert secret not in window.address
            page = await until_said(window, "/", "3 of 4 nodes answered")
            assert "3 of 4 Service ports need attention" in page
            assert "shop/front-5d9" in await window.read("/connections")
            assert "only node-2 can&#39;t reach" in await window.read("/services/shop/cart")


# One response that is shown, and one for each kind of problem; the reader's tests have all.
@pytest.mark.parametrize("name", ["tricks", "broken-json", "huge", "silent", "closes"])
async def test_a_hostile_response_is_escaped_and_other_nodes_are_shown(name, tmp_path):
    async with cluster_at(tmp_path / "config") as cluster:
        add_sick_nodes(cluster)
        cluster.agents.add("node-5", HOSTILE[name]())
        async with running(cluster) as window:
            page = await until_said(window, "/", "3 of 4 Service ports need attention")
            for path in ("/nodes", "/nodes/node-5", "/incidents", "/connections", "/map"):
                page += await window.read(path)
            assert len(page) < 1_000_000
            assert "Internal Server Error" not in page
            assert not re.search("<script>|<img|\x1b|\u202e", page)


async def test_the_dashboard_fails_without_permission_and_opens_no_browser(tmp_path):
    async with cluster_at(tmp_path / "config") as cluster:
        add_sick_nodes(cluster)
        cluster.api.denied = {"list pods"}
        with pytest.raises(UserspaceProxyError, match="pods"):
            async with running(cluster):
                pass


async def test_without_a_context_the_cluster_is_identified_by_its_server(tmp_path, capsys):
    async with cluster_at(tmp_path / "config") as cluster:
        add_sick_nodes(cluster)
        async with running(cluster, name=""):
            assert f"all nodes of {cluster.api.url}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("platform", "environment", "has_one"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"BROWSER": "firefox"}, True),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_on_linux_a_browser_opens_only_with_a_display_or_if_chosen(platform, environment, has_one):
    assert has_screen(platform, environment) is has_one


@pytest.mark.parametrize("port", ["x", "-1", "65536", "٣"])
def test_an_invalid_dashboard_port_is_rejected(port, capsys):
    assert main(["dashboard", f"--port={port}"]) == 2
    assert "is not a port" in capsys.readouterr().err
