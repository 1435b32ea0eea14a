"""The page about a Service on the kernel path, in a real browser."""

import asyncio
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.netns import Net
from tests.tcp_servers import serving
from tests.unit.agent.backends import answers
from userspace_proxy import Options, Proxy
from userspace_proxy.model import DataPath

pytestmark = pytest.mark.asyncio(loop_scope="session")

# This limit only guards against hanging: after a slow count, the next count is delayed by twenty
# times its duration.
SOON_MS = 30_000
NODE, WEB = "10.1.0.1", ("10.96.0.10", 8080)


@contextlib.contextmanager
def threads_of_here():
    """Make the loop start new threads, because existing threads are in the browser's network."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor())
    try:
        yield
    finally:
        loop.set_default_executor(ThreadPoolExecutor())


@pytest_asyncio.fixture(loop_scope="session")
async def proxy():
    """A proxy in its own network, whose page is served in the browser's network."""
    admin = socket.create_server(("127.0.0.1", 0))
    node = Net("node")
    node.run(f"ip address add {NODE}/32 dev lo; ip route add 10.96.0.0/16 dev lo")
    node.run("echo 1 > /proc/sys/net/ipv4/ip_forward")
    with node, threads_of_here():
        options = Options(admin=admin, path=DataPath.AUTO)
        async with Proxy(steering="nftables", options=options) as proxy:
            yield proxy
    node.close()


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(proxy):
    """The address of a server on the node, which the proxy also probes."""

    async def answer(_reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(b"one")

    async with serving(answer, NODE) as address:
        yield address


async def test_kernel_path_connections_and_the_probe_budget_are_shown(tab, proxy, endpoint):
    page = tab.page
    await proxy.add_service("web", port=WEB[1], cluster_ip=WEB[0], endpoints=[endpoint])
    await page.goto("http://{}:{}/?q=web".format(*proxy.admin_address))
    note = page.locator("tr.detail .note")
    path = note.filter(has_text="Path:").first
    await expect(path).to_contain_text("kernel for", timeout=SOON_MS)
    counted = note.filter(has_text="Kernel path:")
    await expect(counted).to_contain_text("0 connections since the start", timeout=SOON_MS)
    assert await answers(WEB, 7) == [b"one"] * 7
    await expect(counted).to_contain_text("7 connections since the start", timeout=SOON_MS)
    await expect(counted).to_contain_text("bytes and failures aren't known on this path")
    for shown in (note.filter(has_text="Probes:"), page.locator("#facts")):
        await expect(shown).to_contain_text("1 endpoint probed, ")
        await expect(shown).to_contain_text("at most 2,000 probes a second")
    through_proxy = note.filter(has_text="Userspace path:")
    await expect(through_proxy).to_contain_text("0 connections")
    await counted.get_by_role("link", name="tracked connections").click()
    await expect(page.locator("body")).to_contain_text('"tracked": 7')
    await page.goto("about:blank")
    # For a response that isn't a page, the browser requests an icon.
    tab.errors.clear()
