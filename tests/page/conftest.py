"""A real Chromium, and a status server to look at with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.unit.status.views import NOW
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
    # Chromium asks the machine's name servers for hosts of its maker otherwise.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.localhost",
]


@pytest.fixture(autouse=True)
def _stays_on_loopback() -> None:
    """Don't count dials: nothing stops Chromium from asking for a route to its maker's servers.

    That sends nothing, and could not, for this process has only loopback.
    """


EVENTS = (
    Event(NOW - 3, Level.OK, "10.244.0.3:8080 answers again, after 9 s", "shop/web:http", 12),
    Event(NOW - 12, Level.TROUBLE, "10.244.0.3:8080 refuses connections", "shop/web:http", 12),
    Event(NOW - 40, Level.TROUBLE, "10.244.0.9:80 does not answer", "shop/cart", 0, lasts=True),
    Event(NOW - 90, Level.ATTENTION, "3 rules of nftables steering had been changed, and repaired"),
    Event(NOW - 99, Level.OK, "Started"),
)


def require_chromium() -> str:
    """Return where Chromium is; without it skip."""
    if CHROMIUM.exists():
        return str(CHROMIUM)
    pytest.skip(f"no {CHROMIUM}: apt-get install chromium")


@dataclass
class Screen:
    """One page of a browser, and everything that went wrong on it."""

    page: Page
    url: str
    show: Callable[[StatusFacts], None]
    observing: Observing
    """Whose connections it shows."""
    errors: list[str] = field(default_factory=list)
    """Console errors, exceptions, and requests that failed."""

    async def open(self, view: StatusFacts, path: str = "/?refresh=off") -> Page:
        """Show a view; it stands still unless the path says otherwise."""
        self.show(view)
        await self.page.goto(self.url + path)
        return self.page


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests, with a profile that ends with it."""
    path = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A window that knows nothing of the others."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        yield context
    finally:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def screen(context: BrowserContext) -> AsyncIterator[Screen]:
    """A page of a running status server; fails if the page complained of anything."""
    shown: list[StatusFacts] = []
    observing = Observing(lambda: NOW)
    server = StatusServer(
        lambda: shown[-1], events=lambda: EVENTS, clock=lambda: NOW, observing=observing
    )
    host, port = await server.serve_admin(("127.0.0.1", 0))
    page = await context.new_page()
    screen = Screen(page, f"http://{host}:{port}", shown.append, observing)
    page.on(
        "console",
        lambda m: screen.errors.append(m.text) if m.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: screen.errors.append(str(error)))
    # What was still under way when the page closed is nobody's fault.
    page.on(
        "requestfailed",
        lambda r: screen.errors.append(r.url) if r.failure != "net::ERR_ABORTED" else None,
    )
    page.on(
        "response",
        lambda r: screen.errors.append(f"{r.status} {r.url}") if r.status >= 400 else None,
    )
    try:
        yield screen
        assert screen.errors == []
    finally:
        await page.close()
        await server.close()
