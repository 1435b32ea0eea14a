"""The page shows the node's current state, and reacts to keys and typed text, in a real browser."""

import re
from contextlib import AsyncExitStack

import aiohttp
import pytest
from playwright.async_api import expect

from tests.unit.status.views import make_port, make_troubled_view, make_view
from userspace_proxy.status.stream import MAX_STREAMS

pytestmark = pytest.mark.asyncio(loop_scope="session")


def row(page, name):
    return page.locator("tbody.port").filter(has=page.get_by_role("link", name=name))


async def shows(page, *names, timeout_s=5.0):
    """Wait until exactly these Service ports of namespace shop are shown, in order."""
    expected = [f"shop/{name}:http" for name in names]
    found = page.locator("tbody.port .name a")
    await expect(found).to_have_text(expected, timeout=timeout_s * 1000)


async def open_live(screen, view, path="/"):
    page = await screen.open(view, path)
    await page.get_by_text("live", exact=True).wait_for()
    return page


async def test_a_change_is_shown_within_two_seconds(screen):
    page = await open_live(screen, make_view(make_port("cart"), make_port("web")))
    await page.evaluate("window.isSame = true")
    screen.show(make_view(make_port("web", refused=7), make_port("new")))
    await shows(page, "new", "web", timeout_s=2.0)
    assert await row(page, "shop/web:http").get_by_role("cell", name="7", exact=True).is_visible()
    assert await page.evaluate("window.isSame")


async def test_an_update_changes_only_differing_elements(screen):
    page = await open_live(screen, make_view(make_port("cart"), make_port("web")))
    await page.evaluate(
        """() => {
          window.touched = [];
          new MutationObserver((records) => touched.push(...records.map((record) => {
            const element = record.target.parentElement ?? record.target;
            return element.closest("[id]").id;
          }))).observe(document.getElementById("ports"),
            {subtree: true, childList: true, attributes: true, characterData: true});
        }"""
    )
    screen.show(make_view(make_port("cart"), make_port("web", active=7)))
    await row(page, "shop/web:http").get_by_role("cell", name="7", exact=True).wait_for()
    affected = await page.evaluate("[...new Set(touched)]")
    assert affected == [await row(page, "shop/web:http").get_attribute("id")]


async def test_a_lost_connection_is_shown_and_re_established(screen):
    page = await open_live(screen, make_view(make_port("web")))
    await page.context.set_offline(True)
    await page.evaluate("follow()")
    await page.get_by_text("reconnecting").wait_for()
    await page.get_by_text(re.compile(r"as of \d\d:\d\d:\d\d, \d+ s ago")).wait_for()
    faded = "getComputedStyle(document.querySelector('main')).filter"
    assert await page.evaluate(faded) == "grayscale(1)"
    assert (await page.title()) == "Not live: OK: node-a, userspace-proxy"
    await page.evaluate("document.body.style.minHeight = '5000px'; scrollTo(0, 2000)")
    assert (await page.locator("#as-of").bounding_box())["y"] < 40
    await page.context.set_offline(False)
    await page.get_by_text("live", exact=True).wait_for()
    assert await page.locator("#as-of").is_hidden()
    assert await page.evaluate(faded) == "none"
    assert (await page.title()) == "OK: node-a, userspace-proxy"
    screen.errors.clear()


async def test_a_page_without_updates_is_not_labelled_live(screen):
    page = await open_live(screen, make_view(make_port("web")))
    await page.evaluate("stream.onmessage = null; newsCame -= SILENT_MS")
    await page.get_by_text("no news").wait_for()
    await page.get_by_text(re.compile(r"as of \d\d:\d\d:\d\d, 1\d s ago")).wait_for()


async def test_too_many_open_pages_are_reported_as_the_cause(screen):
    async with AsyncExitStack() as others:
        page = await open_live(screen, make_view(make_port("web")))
        session = await others.enter_async_context(aiohttp.ClientSession())
        for _ in range(MAX_STREAMS - 1):
            await others.enter_async_context(session.get(f"{screen.url}/stream"))
        refused = await page.context.new_page()
        await refused.goto(f"{screen.url}/")
        await refused.get_by_text("16 pages are open already; close one of them.").wait_for()
    await refused.get_by_text("live", exact=True).wait_for()
    await refused.close()


async def test_results_are_filtered_while_typing(screen):
    page = await open_live(screen, make_troubled_view())
    await page.keyboard.press("/")
    await page.keyboard.type("is:refused node:node-c", delay=20)
    await shows(page, "cart")
    await page.wait_for_url("**/?q=is%3Arefused+node%3Anode-c")
    assert await page.locator("input:focus").input_value() == "is:refused node:node-c"
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/")
    await page.get_by_text("10 Service ports", exact=True).wait_for()


async def test_an_update_does_not_change_typed_text(screen):
    page = await open_live(screen, make_view(make_port("cart"), make_port("web")))
    await page.keyboard.press("/")
    await page.keyboard.type("we")
    await shows(page, "web")
    screen.show(make_view(make_port("web", refused=5)))
    await page.get_by_role("cell", name="5", exact=True).wait_for()
    await page.keyboard.type("b")
    assert await page.locator("input:focus").input_value() == "web"


async def test_search_results_are_scrolled_to_the_top(screen):
    page = await open_live(screen, make_view(*(make_port(f"web-{n:03}") for n in range(200))))
    await page.keyboard.press("/")
    await page.keyboard.type("web-150")
    await shows(page, "web-150")
    assert (await row(page, "web-150").bounding_box())["y"] < 250


async def test_a_service_is_reachable_by_keyboard_alone(screen):
    page = await open_live(screen, make_view(make_port("cart"), make_port("web"), make_port("x")))
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    assert await page.locator("a:focus").inner_text() == "shop/web:http"
    await page.keyboard.press("Enter")
    await row(page, "shop/web:http").get_by_text("Clients dial").wait_for()
    assert await page.locator("a:focus").get_attribute("aria-expanded") == "true"
    await page.keyboard.press("Enter")
    await page.locator("a:focus[aria-expanded=false]").wait_for()
    assert await page.locator("tr.detail").count() == 0


async def test_the_focus_follows_a_moving_row(screen):
    page = await open_live(screen, make_view(make_port("cart"), make_port("web")))
    await page.keyboard.press("j")
    screen.show(make_view(make_port("cart"), make_port("web", endpoints=(), reason="none")))
    await shows(page, "web", "cart")
    assert await page.locator("a:focus").inner_text() == "shop/cart:http"


async def test_n_and_p_navigate_between_result_pages(screen):
    page = await open_live(screen, make_view(*(make_port(f"web-{n:03}") for n in range(250))))
    await page.keyboard.press("n")
    await page.get_by_text("page 2 of 3").wait_for()
    await page.keyboard.press("p")
    await page.get_by_text("page 1 of 3").wait_for()


async def test_help_lists_the_keys_and_closes(screen):
    page = await open_live(screen, make_view(make_port("web")))
    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys and search")
    assert await dialog.get_by_text("next and previous row").is_visible()
    assert await dialog.get_by_text("is:refused").first.is_visible()
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="hidden")


async def test_the_back_button_undoes_the_last_search(screen):
    page = await open_live(screen, make_troubled_view())
    await page.get_by_role("link", name="3 refused").click()
    await shows(page, "batch", "cart", "trick")
    await page.go_back()
    await page.get_by_text("10 Service ports", exact=True).wait_for()
    assert await page.get_by_role("searchbox").input_value() == ""


async def test_a_hidden_page_closes_its_stream(screen):
    page = await open_live(screen, make_view(make_port("web")))
    await page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", {configurable: true, get: () => true});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    assert await page.evaluate("stream.readyState === EventSource.CLOSED")
    screen.show(make_view(make_port("cart")))
    await page.evaluate(
        "() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await shows(page, "cart")


async def test_without_javascript_the_page_reloads_but_not_the_search_form(browser, screen):
    await screen.open(make_view(make_port("cart"), make_port("web")))
    async with await browser.new_context(java_script_enabled=False) as plain:
        page = await plain.new_page()
        await page.goto(screen.url)
        assert await page.get_by_role("searchbox").count() == 0
        screen.show(make_view(make_port("web"), make_port("new")))
        await page.get_by_role("link", name="shop/new:http").wait_for(timeout=30_000)
        await page.get_by_role("link", name="Search").click()
        await page.wait_for_url("**/?refresh=off#q")
        assert await page.locator("meta[http-equiv=refresh]").count() == 0
        await page.get_by_role("searchbox").fill("new")
        await page.get_by_role("button", name="Search").click()
        await page.wait_for_url("**/?q=new&refresh=off")
        assert await page.locator("tbody.port").count() == 1
        await page.get_by_role("link", name="Resume refreshing").click()
        assert await page.get_by_role("link", name="new", exact=True).is_visible()


async def test_without_javascript_a_link_expands_a_service(browser, screen):
    await screen.open(make_troubled_view())
    async with await browser.new_context(java_script_enabled=False) as plain:
        page = await plain.new_page()
        await page.goto(f"{screen.url}/?refresh=off")
        await page.get_by_role("link", name="shop/payments:http", exact=True).click()
        assert await page.get_by_text("ejected for 12 s").is_visible()
