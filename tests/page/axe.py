"""Runs axe-core on a page."""

from __future__ import annotations

from functools import cache
from importlib import resources

from playwright.async_api import Page


async def violations_on(page: Page) -> list[str]:
    """Return axe-core's violations in a page's current state, one line per element."""
    await page.evaluate(_script())
    found = await page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
    return [
        f"{violation['id']}: {node['html']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


@cache
def _script() -> str:
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text()
