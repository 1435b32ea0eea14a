"""The page about a proxy whose endpoints fail, in a real browser."""

import asyncio
import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.unit.agent.backends import ask, backend, free_address
from userspace_proxy import Options, Proxy
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOON_MS = 60_000


@pytest_asyncio.fixture(loop_scope="session")
async def proxy():
    async with Proxy(options=Options(admin=("127.0.0.1", 0))) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="session")
async def page(tab, proxy):
    page = tab.page
    await page.goto("http://{}:{}/".format(*proxy.admin_address))
    await page.get_by_text("live", exact=True).wait_for()
    yield page
    await page.goto("about:blank")


async def test_a_dead_endpoint_is_shown_immediately_and_no_client_fails(proxy, page):
    async with backend(b"one") as one, backend(b"two") as two:
        web = await proxy.add_service("web", port=8080, endpoints=[one, two])
        row = page.locator("tbody.port")
        await row.get_by_text("no client has connected yet").wait_for()
        await web.set_endpoints([one, dead := free_address()])
        answers = [await ask(web.address) for _ in range(8)]
        why = say(refuses(dead))
        await expect(row.locator(".why")).to_contain_text(why, timeout=SOON_MS)
        assert answers == [b"one"] * 8
        saved = page.locator(".figures .saved dd")
        await expect(saved).to_have_text("1", timeout=SOON_MS)
        event = page.locator(".events li").filter(has_text=dead)
        await expect(event).to_contain_text(why, timeout=SOON_MS)
        await expect(event).to_contain_text("1 connection saved", timeout=SOON_MS)


async def flow(address):
    while True:
        await ask(address)


async def test_the_traffic_chart_is_updated_in_real_time(proxy, page):
    async with backend(b"one") as one:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        row = page.locator("tbody.port")
        await row.get_by_text("no client has connected yet").wait_for()
        rate = row.locator("[data-label='conn/s']")
        flowing = asyncio.ensure_future(flow(web.address))
        await expect(rate).not_to_have_text("0", timeout=SOON_MS)
        await expect(row.locator("path.line")).to_have_attribute("d", re.compile(r"^M1\d\d \d"))
        flowing.cancel()


async def test_a_service_without_endpoints_shows_the_cause_and_its_events(proxy, page):
    async with backend(b"one") as one:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        await page.locator("tbody.port").get_by_text("no client has connected yet").wait_for()
        await web.set_endpoints([])
        why = page.locator("tbody.port.attention .why")
        await expect(why).to_contain_text("EndpointSlice", timeout=SOON_MS)
        event = page.locator(".events li").filter(has_text="No endpoint is usable")
        await expect(event).to_be_visible(timeout=SOON_MS)
        await web.set_endpoints([one])
        event = page.locator(".events li").filter(has_text="1 usable endpoint again")
        await expect(event).to_be_visible(timeout=SOON_MS)


async def test_a_dead_endpoint_of_several_services_is_one_cause_and_one_event(proxy, page):
    async with backend(b"one") as one:
        dead = free_address()
        for name in ("a", "b", "c"):
            service = await proxy.add_service(name, port=8080, endpoints=[one, dead])
            await ask(service.address)
            await ask(service.address)
        causes = page.get_by_label("Causes of several Services").get_by_role("listitem")
        line = f"{say(refuses(dead), Form.SHORT)}: 3 Services, since "
        await expect(causes).to_contain_text(line, timeout=SOON_MS)
        # The proxy may read its state between two dials.
        events = page.locator(".events li").filter(has_text=str(dead))
        event = events.filter(has_text=": 3 Service ports")
        await expect(event).to_have_count(1, timeout=SOON_MS)
        await causes.get_by_role("link").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(line)
        await expect(page.get_by_text("3 connections saved")).to_be_visible()
        await page.go_back()
        await page.get_by_text("live", exact=True).wait_for()
