"""A real Chromium, and a status server whose page it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.unit.status.views import NOW
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say
from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.status.observing import Observing
from userspace_proxy.status.server import StatusServer
from userspace_proxy.status.timeline import Event

CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Otherwise, Chromium resolves its vendor's hosts by the machine's name servers.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.localhost",
]


@pytest.fixture(autouse=True)
def _stays_on_loopback() -> None:
    """Don't check dials, because Chromium always tries to reach its vendor's servers.

    No packet is sent, because this process has only loopback.
    """


AT = "10.244.0.3:8080"
EVENTS = (
    Event(NOW - 3, Level.OK, f"{AT} answers again, after 9 s", "shop/web:http", 12),
    Event(NOW - 12, Level.TROUBLE, say(refuses(AT), Form.SHORT), "shop/web:http", 12),
    Event(NOW - 40, Level.TROUBLE, "10.244.0.9:80 does not answer", "shop/cart", 0, lasts=True),
    Event(NOW - 90, Level.ATTENTION, "3 rules of nftables steering had been changed, and repaired"),
    Event(NOW - 99, Level.OK, "Started"),
)


def require_chromium() -> str:
    """Return the path of Chromium; skip the test if it isn't installed."""
    if CHROMIUM.exists():
        return str(CHROMIUM)
    pytest.skip(f"no {CHROMIUM}: apt-get install chromium")


@dataclass
class Screen:
    """A browser's page of a status server, and the facts that the server shows."""

    page: Page
    url: str
    show: Callable[[StatusFacts], None]
    observing: Observing
    """The connections that the page shows."""
    errors: list[str]

    async def open(self, view: StatusFacts, path: str = "/?refresh=off") -> Page:
        """Open a view; the page doesn't update unless the path requests that."""
        self.show(view)
        await self.page.goto(self.url + path)
        return self.page


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium for all tests, whose profile is deleted at the end."""
    path = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


class Tab(NamedTuple):
    """A page of a browser, and all its errors."""

    page: Page
    errors: list[str]
    """Console errors, exceptions, and failed requests."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _window(browser: Browser) -> AsyncIterator[Tab]:
    """A page for all tests, because creating a page takes longer than most tests."""
    page, errors = await (await browser.new_context()).new_page(), list[str]()
    page.on("console", lambda m: errors.append(m.text) if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    # A request that is open when the page is left isn't an error.
    page.on(
        "requestfailed", lambda r: None if r.failure == "net::ERR_ABORTED" else errors.append(r.url)
    )
    page.on("response", lambda r: errors.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield Tab(page, errors)


@pytest_asyncio.fixture(loop_scope="session")
async def tab(_window: Tab) -> AsyncIterator[Tab]:
    """A reset page; the test fails if the page reported any error."""
    page = _window.page
    await page.context.clear_cookies()
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="null")
    _window.errors.clear()
    try:
        yield _window
        assert _window.errors == []
    finally:
        await page.context.set_offline(False)
        await page.unroute_all()


@pytest_asyncio.fixture(loop_scope="session")
async def screen(tab: Tab) -> AsyncIterator[Screen]:
    """A page of a running status server; the test fails if the page reported any error."""
    shown: list[StatusFacts] = []
    observing = Observing(lambda: NOW)
    server = StatusServer(
        lambda: shown[-1], events=lambda: EVENTS, clock=lambda: NOW, observing=observing
    )
    host, port = await server.serve_admin(("127.0.0.1", 0))
    try:
        yield Screen(tab.page, f"http://{host}:{port}", shown.append, observing, tab.errors)
    finally:
        await tab.page.goto("about:blank")
        await server.close()
