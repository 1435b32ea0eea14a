import itertools

import pytest

from tests.unit.status.views import (
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
)
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.facts.node import ObjectKey

from .axe import violations_on

# All tests use the same browser, and therefore one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


async def test_problems_of_a_node_are_shown_first(screen):
    page = await screen.open(make_troubled_view())
    assert await page.title() == "Trouble: node-a, userspace-proxy"
    problems = page.get_by_role("region", name="Problems of this node")
    text = await problems.inner_text()
    assert "cannot watch Services at https://10.0.0.1:6443: Connection refused" in text
    assert (await problems.bounding_box())["y"] < 200
    names = await page.locator("tbody.port .name").all_inner_texts()
    assert [name.strip() for name in names[:3]] == (
        ["shop/admin:http", "shop/search:http", "shop/batch:http"]
    )


async def test_many_services_fit_on_a_screen(screen):
    view = make_view(*(make_port(f"web-{n:03}") for n in range(60)))
    page = await screen.open(view)
    shown = await page.eval_on_selector_all(
        ".line", "all => all.filter(e => e.getBoundingClientRect().bottom <= innerHeight).length"
    )
    assert shown >= 27


async def test_a_service_link_shows_only_that_service_with_details(screen):
    view = make_view(make_port("web"), make_port("web-2"), make_port("cart"))
    page = await screen.open(view, "/?service=shop/web")
    await page.get_by_text("live", exact=True).wait_for()
    assert await page.locator("tbody.port .name a").all_inner_texts() == ["shop/web:http"]
    assert await page.get_by_role("heading", name="Clients dial").is_visible()
    assert await page.get_by_role("searchbox").input_value() == "service:shop/web"


REJECTED = RejectedFacts.at(
    "m/night.yaml:171",
    "spec.clusterIP: 0.0.0.0 can't be an address of a Service",
    ObjectKey("Service", "night", "zeroip"),
    ("night/zeroip",),
)


async def test_a_rejected_service_is_listed_with_its_file_and_remedy(screen):
    lines = (REJECTED.line, "m/x.yaml:1: not YAML")
    source = SourceFacts("manifests", "m", is_synced=True, problems=lines, rejected=(REJECTED,))
    page = await screen.open(make_view(make_port("web"), source=source))
    await page.get_by_text("live", exact=True).wait_for()
    found = page.get_by_role("region", name="Objects with a mistake")
    assert await found.is_hidden()
    # A remedy that several causes share is shown once.
    remedy = "Objects that can't be read keep their last state"
    assert await page.get_by_text(remedy).count() == 1
    await page.get_by_role("link", name="night/zeroip", exact=True).click()
    await found.wait_for()
    text = " ".join((await found.inner_text()).split())
    assert text.startswith("Service night/zeroip is not used as it is written: spec.clusterIP")
    assert "In m/night.yaml:171 Correct it there" in text
    await page.goto(f"{screen.url}/?service=night/zeroip")
    assert await found.is_visible()
    assert await page.get_by_text("see the mistake above").is_visible()


# Returns text that is broken within a word or number, where no space, hyphen, slash, or group of an
# IPv6 address ends.
BROKEN = """
() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim() || !node.parentElement.getClientRects().length) continue;
    if (node.parentElement.closest(".hidden, .cells")) continue;
    const head = node.parentElement.closest("thead");
    if (head && getComputedStyle(head).clipPath !== "none") continue;
    let last = null;
    for (let n = 0; n < node.data.length; n++) {
      const range = document.createRange();
      range.setStart(node, n);
      range.setEnd(node, n + 1);
      const box = range.getClientRects()[0];
      if (!box?.width) continue;
      const isNext = last !== null && box.top > last + 8;
      if (isNext && /[A-Za-z0-9]/.test(node.data[n]) && /[A-Za-z0-9.,]/.test(node.data[n - 1])) {
        found.push(`${node.data.slice(0, n)}|${node.data.slice(n)}`.trim());
      }
      last = box.top;
    }
  }
  return found;
}
"""


@pytest.mark.parametrize("query", ["q=payments&", ""], ids=["search", "all"])
async def test_words_and_numbers_are_not_broken_across_lines(screen, query):
    page = await screen.open(make_troubled_view(), f"/?{query}refresh=off")
    await page.get_by_text("live", exact=True).wait_for()
    for width in (320, 390, 768, 1024, 1100, 1280, 1440):
        await page.set_viewport_size({"width": width, "height": 844})
        assert await page.evaluate(BROKEN) == [], width


async def test_the_beginning_of_a_long_name_is_visible(screen):
    long = "ml-training-and-inference-in-europe"
    ports = [make_port(f"gateway-of-all-models-{n}", namespace=long) for n in range(2)]
    page = await screen.open(make_view(*ports, make_port("web", namespace=long)))
    link = page.locator("tbody.port .name a").first
    for width in (1024, 1280):
        await page.set_viewport_size({"width": width, "height": 844})
        box, cell = await link.bounding_box(), await page.locator("th.name").first.bounding_box()
        namespace = await link.locator(".ns").first.bounding_box()
        assert namespace["x"] + namespace["width"] < cell["x"] + cell["width"] / 2
        assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    assert await link.get_attribute("title") == f"{long}/gateway-of-all-models-0:http"
    await link.click()
    await page.get_by_role("link", name=f"All of namespace {long}").wait_for()


async def test_markup_in_names_and_reasons_is_shown_as_text(screen):
    evil = '"><img src=x onerror="document.title=1"><script>document.title=2</script>'
    port = make_port(
        evil,
        reason=evil,
        notes=(evil,),
        endpoints=(make_endpoint(evil, evil, False, evil),),
    )
    page = await screen.open(make_view(port, node=evil, ignored=(make_ignored(evil, "", evil),)))
    await page.get_by_text("live", exact=True).wait_for()
    assert evil in await page.locator("h1").inner_text()
    assert evil in await page.locator("tbody .name").first.inner_text()
    assert await page.locator("img, script:not([src^='static/'])").count() == 0
    assert (await page.title()).startswith("Attention")


COUNTS = {
    "h1": 1,
    "main": 1,
    "html[lang=en]": 1,
    "th:not([scope])": 0,
    "table:not(:has(> caption))": 0,
    "input:not([type=hidden]):not([id])": 0,
    "svg[role=img]:not([aria-label])": 0,
    "[style], [onclick]": 0,
    "[tabindex]:not(.events ol, .connection-scroll)": 0,
    "script:not([src]), iframe, object, style": 0,
}
"""The expected number of elements by CSS selector."""


async def test_markup_is_valid_with_unique_ids_and_no_skipped_heading_level(screen):
    page = await screen.open(make_troubled_view())
    assert {one: await page.locator(one).count() for one in COUNTS} == COUNTS
    ids = await page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = await page.eval_on_selector_all(
        "h1, h2, h3, h4", "all => all.map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


async def test_the_first_tab_stop_is_a_skip_link_to_the_services(screen):
    page = await screen.open(make_calm_view())
    await page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert await focused.inner_text() == "Skip to the Services"
    assert (await focused.bounding_box())["y"] >= 0


LONG = "a-very-long-service-name-of-sixty-three-letters-as-kubernetes-let"


@pytest.mark.parametrize(
    "view",
    [
        make_troubled_view(),
        make_view(
            make_port(
                LONG,
                namespace=LONG,
                endpoints=(
                    make_endpoint(
                        "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", LONG, False, LONG
                    ),
                ),
                reason=LONG * 5,
            ),
            node=LONG,
        ),
    ],
    ids=["trouble", "long-names"],
)
async def test_the_page_never_scrolls_horizontally(screen, view):
    page = await screen.open(view)
    for width in (320, 390, 768, 1280):
        await page.set_viewport_size({"width": width, "height": 844})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        # Names that don't fit are truncated, so they aren't considered.
        wide = await page.eval_on_selector_all(
            "main *:not(.line > * *)",
            "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 200))",
        )
        assert wide == [], width


async def test_a_table_has_the_role_of_a_table_on_a_phone(screen):
    await screen.page.set_viewport_size(PHONE)
    page = await screen.open(make_calm_view(), "/?q=shop-front&refresh=off")
    table = page.get_by_role("table", name="Endpoints of shop/shop-front:http, TCP IPv4")
    assert await table.get_by_role("rowheader").count() == 2
    assert await table.get_by_role("cell").count() == 16


@pytest.mark.parametrize(
    ("view", "path"),
    [
        pytest.param(make_calm_view(), "/", id="calm", marks=pytest.mark.long),
        pytest.param(make_troubled_view(), "/", id="trouble"),
        pytest.param(make_troubled_view(), "/?q=payments", id="expanded", marks=pytest.mark.long),
        pytest.param(make_view(), "/", id="empty", marks=pytest.mark.long),
        pytest.param(make_view(*make_two_sides()), "/", id="dropped", marks=pytest.mark.long),
    ],
)
async def test_axe_finds_no_violations(screen, view, path):
    page = await screen.open(view, path)
    await page.get_by_text("live", exact=True).wait_for()
    for scheme, size in (("dark", WIDE), ("light", WIDE), ("light", PHONE)):
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size(size)
        assert await violations_on(page) == [], (scheme, size)
        await page.keyboard.press("?")
        assert await violations_on(page) == [], (scheme, size)
        await page.keyboard.press("Escape")
