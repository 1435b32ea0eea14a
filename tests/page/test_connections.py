"""The page's panel that lists connections as they happen, in a real browser."""

import pytest
from playwright.async_api import expect

from tests.port_keys import port_key
from tests.unit.dataplane.waiting import until
from tests.unit.status.views import NOW, make_port, make_view
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    FailedDialFacts,
    LeftOut,
    port_fields,
)
from userspace_proxy.facts.edges import Calls
from userspace_proxy.model.connection_ends import EndedBy

from .axe import violations_on

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEW = make_view(make_port("cart"), make_port("web"))
DEAD = FailedDialFacts("10.244.0.9:8080", CauseCode.ENDPOINT_REFUSES)


def one(**changes):
    fields = {
        "at": NOW,
        **port_fields(port_key("shop/web:http")),
        "client": "10.244.0.7:41234",
        "endpoint": "10.244.0.3:8080",
        "received_bytes": 78,
        "sent_bytes": 1240,
        "first_byte_s": 0.0008,
        "duration_s": 3.1,
        "ended_by": EndedBy.CLIENT,
        "cause": "complete",
    }
    return ConnectionFacts(**fields | changes)


async def opened(screen):
    """Return a page whose connections panel is open."""
    page = await screen.open(VIEW, "/")
    await page.get_by_role("button", name="Connections, live").click()
    await until(screen.observing.filters)
    return page


def rows(page):
    return page.locator("#connection-rows tr")


async def test_connections_are_not_watched_until_the_panel_is_opened(screen):
    page = await screen.open(VIEW, "/")
    await page.get_by_text("live", exact=True).first.wait_for()
    assert await page.locator("#connections-panel").is_hidden()
    assert screen.observing.filters() == []


async def test_connections_are_listed_newest_first(screen):
    page = await opened(screen)
    screen.observing.deliver([one(), one(client="10.244.0.8:1", cause="reset", sent_bytes=0)])
    await expect(rows(page)).to_have_count(2)
    await expect(rows(page).first).to_contain_text("10.244.0.8:1")
    await expect(rows(page).first).to_have_class("trouble")
    await expect(rows(page).last).to_contain_text("✓")
    await expect(rows(page).last).to_contain_text("complete, by the client, after 3.1 s")


async def test_markup_in_a_name_is_shown_as_text(screen):
    page = await opened(screen)
    screen.observing.deliver([one(service="shop/<b id=x>web</b>")])
    await expect(rows(page).first).to_contain_text("<b id=x>")
    assert await page.locator("#x").count() == 0


async def test_a_table_lists_clients_with_the_services_they_call(screen):
    screen.observing.add_calls([Calls(port_key("shop/web:http"), "10.244.0.7", 12, 4)], 3)
    page = await opened(screen)
    edges = page.locator("#edge-rows tr")
    await expect(edges).to_have_count(2)
    await expect(edges.first).to_have_text("10.244.0.7shop/web:http124")
    await expect(edges.last).to_have_text("othersany Service3")


LONG = "averylongnameofsixtythreelettersasmanyaskubernetesletsanobjecthave"
USUAL = one(
    client="10.244.12.103:41234",
    client_pod="shop/frontend-6d4b7c9f5-x7x2p",
    service="shop/checkout-service:http",
    endpoint="10.244.12.104:8080",
    failed=(DEAD,),
)
LONGEST = one(
    client_pod=f"{LONG}/{LONG}",
    service=f"{LONG}/{LONG}:{LONG}",
    endpoint="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
)
# Returns cells of both tables whose content is too wide, or that overlap another cell.
OVERLAPS = """
() => {
  const isShown = (e) => e.closest("thead")?.offsetWidth !== 1;
  const cells = [...document.querySelectorAll(".connections td, .connections th")].filter(isShown);
  const boxes = cells.map(e => e.getBoundingClientRect()).map(
    ({left, right, top, bottom}) => ({left, right, top, bottom}));
  const wide = cells.filter(e => e.scrollWidth > e.clientWidth + 1);
  const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const over = cells.filter((_, n) => boxes.some((b, m) => m !== n && meets(boxes[n], b)));
  return [...wide, ...over].map(e => e.outerHTML);
}
"""


@pytest.mark.parametrize(
    "record", [pytest.param(USUAL, id="usual"), pytest.param(LONGEST, id="longest")]
)
async def test_columns_do_not_overlap(screen, record):
    screen.observing.add_calls([Calls(port_key(record.service), record.client_pod, 12_345_678)], 3)
    page = await opened(screen)
    screen.observing.deliver([record, one()])
    await expect(rows(page)).to_have_count(2)
    for width in (390, 1000, 1285, 1600):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(OVERLAPS) == [], width


async def test_ordinary_names_fit_on_one_line(screen):
    page = await opened(screen)
    screen.observing.deliver([USUAL])
    cells = rows(page).first.locator("td")
    for n, name in enumerate((USUAL.client_pod, USUAL.service, USUAL.endpoint), 1):
        await expect(cells.nth(n)).to_have_text(name)
    for width in (1000, 1285, 1600):
        await page.set_viewport_size({"width": width, "height": 900})
        lines = await cells.evaluate_all(
            "all => all.slice(1, 4).map(e => {"
            " const r = document.createRange(); r.selectNodeContents(e);"
            " return r.getClientRects().length; })"
        )
        assert lines == [1, 1, 1], width


async def test_the_panel_shows_only_connections_matching_its_filter(screen):
    page = await opened(screen)
    await page.locator("#connections-form [name=service]").fill("shop/web")
    await page.locator("#connections-form [name=failed]").check()
    await page.get_by_role("button", name="Apply").click()
    await until(lambda: [each.failed for each in screen.observing.filters()] == [True])
    (wanted,) = screen.observing.filters()
    assert (wanted.service, wanted.saved) == ("shop/web", False)
    saved = one(event=ConnectionEvent.SAVED, failed=(DEAD,), ended_by=EndedBy.NONE)
    screen.observing.deliver([one(), saved, one(cause="reset", sent_bytes=0)])
    await expect(rows(page)).to_have_count(1)


async def test_an_invalid_filter_is_reported(screen):
    page = await opened(screen)
    await page.locator("#connections-form [name=from]").fill("10.244")
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_text("'10.244' is not an IP address").wait_for()
    await until(lambda: not screen.observing.filters())
    await page.locator("#connections-form [name=from]").fill("10.244.0.7")
    await page.get_by_role("button", name="Apply").click()
    await until(screen.observing.filters)
    screen.errors.clear()


async def test_closing_the_panel_ends_the_stream(screen):
    page = await opened(screen)
    await page.get_by_role("button", name="Connections, live").click()
    await until(lambda: not screen.observing.filters())
    assert await page.locator("#connections-panel").is_hidden()


async def test_leaving_the_page_ends_the_stream(screen):
    page = await opened(screen)
    await page.goto("about:blank")
    await until(lambda: not screen.observing.filters())


async def test_the_connections_panel_has_a_bounded_number_of_rows(screen):
    page = await opened(screen)
    for _ in range(6):
        screen.observing.deliver([one()] * 50)
        await until(lambda: not next(iter(screen.observing._watchers))._ring)
    await expect(rows(page)).to_have_count(200)
    # The visible part is less than a screen below the start of the list.
    height = "document.querySelector('.connection-scroll').offsetHeight / innerHeight"
    assert await page.evaluate(height) < 1


async def test_the_panel_is_accessible(screen):
    page = await opened(screen)
    records = [one(), one(cause="reset", sent_bytes=0), one(failed=(DEAD,))]
    screen.observing.deliver(records, [LeftOut(ConnectionFilter(), 2)])
    await expect(rows(page)).to_have_count(4)
    assert await violations_on(page) == []
