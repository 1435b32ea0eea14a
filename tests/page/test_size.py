"""The page of 5,000 Services in a real browser: its size, updates and scrolling."""

import pytest
from playwright.async_api import expect

from tests.unit.status.views import make_port, make_view

pytestmark = pytest.mark.asyncio(loop_scope="session")

LARGEST_PAGE_BYTES = 200_000
MOST_ELEMENTS = 4_000
# The number of changes within one task of the browser, which determines the task's duration.
MOST_CHANGES = 4_000

COUNT_CHANGES = """
mostChanges = 0;
new MutationObserver((changes) => { mostChanges = Math.max(mostChanges, changes.length); })
  .observe(document, {subtree: true, childList: true, characterData: true, attributes: true})
"""


def make_large_view(count, tick=0):
    """Return a cluster in which a tenth of the Service ports carry traffic."""
    return make_view(
        *(
            make_port(
                f"web-{n:05}",
                namespace=f"team-{n % 40:02}",
                active=n % 10 == 0,
                connections=tick * 20 if n % 10 == 0 else 0,
                sent_bytes=tick * 40_000 if n % 10 == 0 else 0,
                **({"endpoints": (), "reason": "it has no endpoints"} if n % 150 == 1 else {}),
            )
            for n in range(count)
        )
    )


async def test_the_first_page_of_a_large_cluster_is_small(screen):
    # The first paint takes 0.2 to 0.6 s, usually below 0.3 s, depending on these two figures.
    page = await screen.open(make_large_view(5000), "/")
    assert await page.get_by_text("5,000 Service ports, page 1 of 50").is_visible()
    assert len(await page.content()) < LARGEST_PAGE_BYTES
    assert await page.locator("*").count() < MOST_ELEMENTS


async def test_an_update_of_a_large_cluster_changes_few_elements(screen):
    views = [make_large_view(5000, tick) for tick in range(3)]
    page = await screen.open(views[0], "/?sort=-rate")
    await page.evaluate(COUNT_CHANGES)
    for view in views[1:]:
        screen.show(view)
        total = page.get_by_label("Traffic of this node")
        before = await total.inner_text()
        await expect(total).not_to_have_text(before, use_inner_text=True, timeout=10_000)
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await page.keyboard.press("/")
    await page.keyboard.type("team-07 web-00127", delay=30)
    await expect(page.locator("tbody.port")).to_have_count(1, timeout=10_000)
    assert 0 < await page.evaluate("mostChanges") < MOST_CHANGES
