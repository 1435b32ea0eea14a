"""The part of the page that shows connections as they happen, in a real browser."""

import pytest
from playwright.async_api import expect

from tests.unit.dataplane.waiting import until
from tests.unit.status.views import NOW, make_port, make_view
from userspace_proxy.facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    EndedBy,
    FailedDialFacts,
    LeftOut,
)
from userspace_proxy.facts.edges import Calls
from userspace_proxy.model import CauseCode

from .axe import violations_on

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEW = make_view(make_port("cart"), make_port("web"))
DEAD = FailedDialFacts("10.244.0.9:8080", CauseCode.ENDPOINT_REFUSES)


def one(**changes):
    fields = {
        "at": NOW,
        "service": "shop/web:http",
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
    """Return a page whose connections are watched."""
    page = await screen.open(VIEW, "/")
    await page.get_by_role("button", name="Connections, live").click()
    await until(screen.observing.filters)
    return page


def rows(page):
    return page.locator("#connection-rows tr")


async def test_nothing_is_watched_until_it_is_opened(screen):
    page = await screen.open(VIEW, "/")
    await page.get_by_text("live", exact=True).first.wait_for()
    assert await page.locator("#connections-panel").is_hidden()
    assert screen.observing.filters() == []


async def test_connections_are_rows_the_newest_first(screen):
    page = await opened(screen)
    screen.observing.deliver([one(), one(client="10.244.0.8:1", cause="reset", sent_bytes=0)])
    await expect(rows(page)).to_have_count(2)
    await expect(rows(page).first).to_contain_text("10.244.0.8:1")
    await expect(rows(page).first).to_have_class("trouble")
    await expect(rows(page).last).to_contain_text("✓")
    await expect(rows(page).last).to_contain_text("complete, by the client, after 3.1 s")


async def test_a_name_is_text_and_no_markup(screen):
    page = await opened(screen)
    screen.observing.deliver([one(service="shop/<b id=x>web</b>")])
    await expect(rows(page).first).to_contain_text("<b id=x>")
    assert await page.locator("#x").count() == 0


async def test_which_client_calls_which_service_is_a_table(screen):
    screen.observing.add_calls([Calls("shop/web:http", "10.244.0.7", 12)], 3)
    page = await opened(screen)
    edges = page.locator("#edge-rows tr")
    await expect(edges).to_have_count(2)
    await expect(edges.first).to_have_text("10.244.0.7shop/web:http12")
    await expect(edges.last).to_have_text("others3")


async def test_it_shows_what_its_form_selects(screen):
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


async def test_what_is_not_valid_is_said(screen):
    page = await opened(screen)
    await page.locator("#connections-form [name=from]").fill("10.244")
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_text("'10.244' is not an IP address").wait_for()
    await until(lambda: not screen.observing.filters())
    await page.locator("#connections-form [name=from]").fill("10.244.0.7")
    await page.get_by_role("button", name="Apply").click()
    await until(screen.observing.filters)
    screen.errors.clear()


async def test_closing_it_ends_the_stream(screen):
    page = await opened(screen)
    await page.get_by_role("button", name="Connections, live").click()
    await until(lambda: not screen.observing.filters())
    assert await page.locator("#connections-panel").is_hidden()


async def test_leaving_the_page_ends_the_stream(screen):
    page = await opened(screen)
    await page.goto("about:blank")
    await until(lambda: not screen.observing.filters())


async def test_it_has_a_bounded_number_of_rows(screen):
    page = await opened(screen)
    for _ in range(6):
        screen.observing.deliver([one()] * 50)
        await until(lambda: not next(iter(screen.observing._watchers))._ring)
    await expect(rows(page)).to_have_count(200)


async def test_it_is_accessible(screen):
    page = await opened(screen)
    records = [one(), one(cause="reset", sent_bytes=0), one(failed=(DEAD,))]
    screen.observing.deliver(records, [LeftOut(ConnectionFilter(), 2)])
    await expect(rows(page)).to_have_count(4)
    assert await violations_on(page) == []
