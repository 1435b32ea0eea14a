import pytest

from tests.unit.status.views import NOW, make_endpoint, make_port, make_view
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say

from .axe import violations_on

pytestmark = pytest.mark.asyncio(loop_scope="session")

POD = "10.244.0.9:8080"
DEAD = refuses(POD).replace(count=12, first_at=NOW - 900, last_at=NOW - 2)
SHORT = say(DEAD, Form.SHORT_PREDICATE)
COMMAND = "kubectl describe pod -n shop broken-7"


def make_broken_view():
    """Return 40 Services, of which 35 have one dead endpoint."""
    endpoints = (
        make_endpoint(POD, node="node-7", pod="broken-7", cause=DEAD),
        make_endpoint("10.244.1.1:8080", answered_at=NOW),
    )
    broken = [make_port(f"broken-{number:02}", endpoints=endpoints) for number in range(35)]
    return make_view(*broken, *(make_port(f"calm-{number}") for number in range(5)))


async def test_a_cause_shared_by_many_services_is_one_line_with_a_page(screen):
    await screen.page.set_viewport_size({"width": 1024, "height": 768})
    page = await screen.open(make_broken_view())
    (line,) = await page.get_by_label("Causes of several Services").get_by_role("link").all()
    assert f"{say(DEAD, Form.SHORT)}: 35 Services, since " in await line.inner_text()
    box = await line.bounding_box()
    assert box["y"] + box["height"] < 300
    assert box["height"] < 30
    assert await page.get_by_text(SHORT).count() == 1 + 1  # The timeline contains the second one.
    rows = page.locator("tbody.port").filter(has_text="broken")
    assert await rows.get_by_role("link", name="partly answering", exact=True).count() == 35
    assert await violations_on(page) == []

    await line.click()
    assert await page.get_by_role("heading", level=1).inner_text() == await line_of(page)
    await page.get_by_text("See where the program listens").wait_for()
    assert "420 times, last 2 s ago" in await page.locator(".met").inner_text()
    assert await page.get_by_text("on node-7").is_visible()
    assert await page.get_by_role("link", name="shop/broken-").count() == 35
    await page.get_by_text(COMMAND).click()
    assert await page.evaluate("getSelection().toString().trim()") == COMMAND
    assert await violations_on(page) == []
    await page.set_viewport_size({"width": 320, "height": 700})
    assert await page.evaluate("document.documentElement.scrollWidth") == 320

    await page.get_by_role("link", name="shop/broken-00").click()
    assert await page.locator("tbody.port").count() == 1
    assert await page.get_by_text(SHORT).count() > 1


async def line_of(page):
    title = await page.title()
    return title.removesuffix(": node-a, userspace-proxy")


async def test_a_resolved_incident_links_to_the_current_state(screen):
    page = await screen.open(make_broken_view(), "/incidents/0123456789ab")
    assert screen.errors
    assert all("404" in error for error in screen.errors)
    screen.errors.clear()
    await page.get_by_role("heading", level=1, name="This is over").wait_for()
    assert await violations_on(page) == []
    await page.get_by_role("link", name="All Services", exact=True).click()
    assert await page.get_by_role("heading", level=1).inner_text() == "node-a"
