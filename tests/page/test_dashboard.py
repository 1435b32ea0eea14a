"""The dashboard of four nodes, three of which have a problem, in a real browser."""

import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.unit.nodes.dashboard.clusters import (
    CALLS,
    calm_cluster,
    look_at,
    sick_cluster,
)
from tests.unit.status.views import NOW
from userspace_proxy_kubectl.nodes.dashboard.live import Live
from userspace_proxy_kubectl.nodes.dashboard.server import Dashboard

from .axe import violations_on

pytestmark = pytest.mark.asyncio(loop_scope="session")

INCIDENT = look_at(sick_cluster()).merged.incidents[0].incident.id
PAGES = (
    "/",
    "/nodes",
    "/nodes/node-3",
    "/nodes/node-4",
    "/services/shop/web",
    "/services/shop/search",
    "/incidents",
    f"/incidents/{INCIDENT}",
    "/connections",
    "/map",
)


class Shown:
    """A dashboard whose cluster a test changes."""

    def __init__(self):
        self.all_nodes = sick_cluster()
        self.server = Dashboard(Live(lambda: self.all_nodes, self.ask, unix=lambda: NOW))

    async def ask(self, _path, nodes):
        return {node: CALLS[node] for node in nodes if node in CALLS}

    async def begin(self):
        addresses = await self.server.serve()
        self.once, self.printed = addresses.once, addresses.printed
        self.base = self.printed.partition("/?")[0]


@pytest_asyncio.fixture(loop_scope="session")
async def shown():
    shown = Shown()
    await shown.begin()
    try:
        yield shown
    finally:
        await shown.server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(tab, shown):
    """A page that was opened by its own URL."""
    await tab.page.goto(shown.once)
    assert tab.page.url == f"{shown.base}/"
    yield tab.page
    await tab.page.goto("about:blank")


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_accessible_in_both_schemes_and_never_scroll_sideways(page, shown, path):
    await page.goto(shown.base + path)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        assert await violations_on(page) == [], scheme
    for width in (1280, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_each_unhealthy_object_is_on_the_first_screen_with_a_link(page):
    screen = 900
    for words in (
        "the agent has not answered within 5 s",
        "only node-2 can't reach 10.244.2.5:8080",
        "(seen by all 3 nodes",
    ):
        box = await page.get_by_text(words).first.bounding_box()
        assert box["y"] + box["height"] < screen
    await page.get_by_role("link", name="shop/cart:http").click()
    await page.get_by_role("heading", level=1, name="shop/cart").wait_for()
    await page.get_by_role("rowheader", name="node-2").get_by_role("link").click()
    await page.get_by_role("heading", level=1, name="node-2").wait_for()
    await page.get_by_role("link", name=re.compile("only node-2 can't reach")).click()
    await page.get_by_role("heading", name="What to do").wait_for()
    await page.get_by_role("link", name="endpoint-silent").click()
    assert page.url.endswith("/static/troubleshooting.html#endpoint-silent")


async def test_a_change_is_shown_without_a_page_reload(page, shown):
    await page.evaluate("window.isSame = true")
    shown.all_nodes = calm_cluster()
    await page.get_by_text("All Services are served as planned").wait_for(timeout=10_000)
    assert await page.evaluate("window.isSame")
    assert (await page.title()).startswith("OK: ")
    await expect(page.locator("#live")).to_have_text("live")


async def test_the_page_shows_that_the_command_has_exited(page, shown, tab):
    await expect(page.locator("#live")).to_have_text("live")
    port = int(shown.base.rpartition(":")[2])
    await shown.server.close()
    await expect(page.locator("#live")).to_have_text("reconnecting")
    await expect(page.locator("#as-of")).to_have_text(re.compile(r"as of [\d:]+, \d+ s ago"))
    assert (await page.title()).startswith("Not live: ")
    assert await page.get_by_role("link", name="shop/cart:http").count() == 1
    # Another command on the same port has another secret.
    other = Dashboard(Live(lambda: shown.all_nodes, shown.ask, unix=lambda: NOW))
    try:
        await other.serve(port)
        await expect(page.locator("#live")).to_have_text("ended", timeout=10_000)
    finally:
        await other.close()
        tab.errors.clear()


async def test_keys_j_and_k_move_between_rows_and_enter_opens_a_page(page):
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    names = page.locator(".ports .name a")
    await expect(names.nth(1)).to_be_focused()
    await page.keyboard.press("k")
    await expect(names.nth(0)).to_be_focused()
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", level=1, name="shop/cart").wait_for()


async def test_search_results_follow_typing_and_update_the_url(page, shown):
    await page.keyboard.press("/")
    await page.keyboard.type("is:not-answering")
    names = page.locator(".ports .name a")
    await expect(names).to_have_text(["shop/cart:http", "shop/search:http"])
    assert page.url == f"{shown.base}/?q=is%3Anot-answering"
    assert await page.locator("#q").input_value() == "is:not-answering"
    await page.goto(page.url)
    await expect(names).to_have_count(2)


async def test_a_question_mark_opens_the_help_and_escape_clears_the_search(page):
    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys and search")
    assert await dialog.get_by_text("clear the search").is_visible()
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="hidden")
    await page.keyboard.press("/")
    await page.keyboard.type("shop/web")
    await expect(page.locator(".ports .name a")).to_have_text(["shop/web:http"])
    await page.keyboard.press("Escape")
    await expect(page.locator(".ports .name a")).to_have_count(4)
    await page.keyboard.press("Escape")
    assert not await page.evaluate("document.activeElement === document.getElementById('q')")


async def test_the_map_links_to_its_items(page, shown):
    await page.goto(f"{shown.base}/map?q=shop/web")
    svg = page.locator("svg.map")
    assert await svg.get_by_role("link").count() == 1 + 3 + 2
    await svg.get_by_role("link", name="shop/web").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", level=1, name="shop/web").wait_for()


async def test_all_content_is_readable_and_searchable_without_javascript(browser, shown):
    context = await browser.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        await page.goto(shown.once)
        for path in PAGES:
            await page.goto(f"{shown.base}{path}?refresh=off")
            assert await page.get_by_role("heading", level=1).count() == 1
        await page.goto(f"{shown.base}/map")
        assert await page.locator("svg.map .item").count() > 10
        await page.goto(f"{shown.base}/?refresh=off")
        await page.locator("#q").fill("quiet")
        await page.get_by_role("button", name="Search").click()
        assert await page.locator(".ports .name a").all_inner_texts() == ["shop/quiet:http"]
    finally:
        await context.close()


async def test_a_browser_without_the_cookie_gets_instructions(browser, shown):
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(f"{shown.base}/services/shop/web?q=node-2")
        said = await page.locator("body").inner_text()
        assert "start kubectl userspace-proxy dashboard, and open this address again" in said
        assert "node" not in said
        other = await context.new_page()
        await other.goto(shown.once)
        await page.get_by_role("link", name="open this address again").click()
        await page.get_by_role("heading", level=1, name="shop/web").wait_for()
        assert page.url == f"{shown.base}/services/shop/web?q=node-2"
    finally:
        await context.close()
