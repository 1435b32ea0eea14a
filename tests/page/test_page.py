import itertools

import pytest

from tests.unit.status.views import (
    NOW,
    make_address,
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
)
from userspace_proxy.causes.endpoints import resets
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.facts.node import ObjectKey
from userspace_proxy.status.text import render_text

from .axe import violations_on

# One loop for all, because one browser serves all.
pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

# Every text on the page with the colours it is drawn in, as the WCAG computes contrast.
CONTRASTS = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    const pair = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const [dark, bright] = pair.sort((a, b) => a - b);
    found.push([(bright + 0.05) / (dark + 0.05), walker.currentNode.data.trim()]);
  }
  return found;
}
"""


def row_of(page, name):
    return page.locator("tbody.port").filter(has=page.get_by_role("link", name=name))


async def cells_of(row):
    return [" ".join(cell.split()) for cell in await row.get_by_role("cell").all_inner_texts()]


async def test_a_node_without_problems_shows_what_it_serves(screen):
    page = await screen.open(make_calm_view())
    assert await page.get_by_role("heading", level=1).inner_text() == "node-a"
    assert await page.get_by_text("No problems. 4 Service ports served.").is_visible()
    cells = await cells_of(row_of(page, "shop/shop-front:http"))
    assert cells[:4] == ["10.96.7.9:80", "●● 2/2", "served", "12"]


async def test_an_expanded_service_shows_where_its_traffic_goes(screen):
    page = await screen.open(make_calm_view(), "/?q=shop-front&refresh=off")
    row = row_of(page, "shop/shop-front:http")
    assert await row.get_by_text("192.0.2.10:30080").is_visible()
    assert await row.get_by_text("proxy port 20010").first.is_visible()
    endpoints = await row.get_by_role("table").get_by_role("row").all_inner_texts()
    assert " ".join(endpoints[1].split()) == (
        "10.244.1.40:8080 ready node-a 50 % 7 18,204 0 48 MB 1.2 GB"
    )


async def test_a_node_with_problems_shows_them_first(screen):
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cart", ("Clients are refused: 3 endpoints: 3 not ready", "1,294 failed")),
        ("payments", ("ejected for 12 s", "terminating", "node port 30443 is not served")),
        ("batch", ("it has no endpoints",)),
    ],
)
async def test_a_service_in_trouble_shows(screen, name, shown):
    page = await screen.open(make_troubled_view())
    await page.get_by_role("link", name=f"shop/{name}:http").last.click()
    for words in shown:
        await row_of(page, f"shop/{name}:http").get_by_text(words).last.wait_for()


async def test_addresses_that_drop_show_which_clients_and_why(screen):
    page = await screen.open(make_view(*make_two_sides()))
    rows = page.locator("tbody.port")
    assert await rows.count() == 2
    outside = rows.nth(1)
    await outside.get_by_role("link").click()
    await outside.get_by_text("external addresses").wait_for()
    words = "Clients from outside are dropped here: 2 endpoints: 2 not on this node"
    assert await outside.get_by_text(words).last.is_visible()
    assert await outside.get_by_text("10.244.0.0/16, 127.0.0.0/8; others are dropped").is_visible()


async def test_the_overview_has_a_cell_for_each_service_port(screen):
    page = await screen.open(make_troubled_view())
    overview = page.get_by_role("region", name="All Service ports by namespace")
    assert "■" in await overview.inner_text()
    await overview.get_by_role("link", name="shop/cart:http: refused").click()
    await page.wait_for_url("**/?q=shop/cart:http&refresh=off")
    await page.locator("tbody.port").nth(1).wait_for(state="detached")
    assert await row_of(page, "shop/cart:http").is_visible()


async def test_the_timeline_lists_events_and_what_was_saved(screen):
    page = await screen.open(make_calm_view())
    timeline = page.get_by_role("region", name="Timeline, the newest first")
    events = [" ".join(text.split()) for text in await timeline.locator("li").all_inner_texts()]
    assert events[0].endswith("answers again, after 9 s 12 connections saved")
    assert events[2].endswith("shop/cart 10.244.0.9:80 does not answer for 40 s")
    await timeline.get_by_role("link", name="shop/cart").click()
    await page.wait_for_url("**/?q=shop/cart&refresh=off")


async def test_health_check_node_ports_are_shown_with_their_response(screen):
    page = await screen.open(make_calm_view())
    table = page.get_by_role("region", name="Health check node ports")
    rows = await table.get_by_role("row").all_inner_texts()
    assert [[cell.strip() for cell in row.split("\t")] for row in rows[1:]] == [
        ["shop/checkout", "load balancers avoid this node", "31044", "0"],
        ["shop/shop-front", "load balancers may use this node", "31080", "2"],
    ]


async def test_ignored_services_are_shown_with_their_reason(screen):
    page = await screen.open(make_calm_view())
    rows = await page.get_by_role("region", name="Ignored").get_by_role("row").all_inner_texts()
    assert rows[3].split("\t") == [
        "voice/media",
        "rtp",
        "protocol SCTP is not supported (TCP and UDP are)",
    ]


async def test_workers_are_shown_with_their_process_and_restarts(screen):
    page = await screen.open(make_troubled_view())
    rows = await page.get_by_role("region", name="Workers").get_by_role("row").all_inner_texts()
    assert [row.split() for row in rows[1:]] == [
        ["Worker", "0", "pid", "4711", "1,204", "310", "2"],
        ["Worker", "1", "not", "running", "0", "0", "3", "(1", "hung)"],
    ]


async def test_only_what_needs_attention(screen):
    page = await screen.open(make_troubled_view())
    await page.get_by_role("link", name="3 refused").click()
    await page.wait_for_url("**/?q=is:refused&refresh=off")
    await page.get_by_text("3 of 10 Service ports").wait_for()
    assert await page.locator("tbody.port").count() == 3


async def test_pages_of_a_large_cluster(screen):
    view = make_view(*(make_port(f"web-{n:03}") for n in range(250)))
    page = await screen.open(view)
    assert await page.get_by_text("250 Service ports, page 1 of 3").is_visible()
    await page.get_by_role("link", name="Next").click()
    await page.wait_for_url("**/?page=2&refresh=off")
    await page.get_by_role("link", name="shop/web-100:http").wait_for()
    assert await page.get_by_role("link", name="Previous").get_attribute("href") == "./?refresh=off"


async def test_a_link_to_a_service_shows_it_alone_with_its_details(screen):
    view = make_view(make_port("web"), make_port("web-2"), make_port("cart"))
    page = await screen.open(view, "/?service=shop/web")
    await page.get_by_text("live", exact=True).wait_for()
    assert await page.locator("tbody.port .name a").all_inner_texts() == ["shop/web:http"]
    assert await page.get_by_role("heading", name="Clients dial").is_visible()
    assert await page.get_by_role("searchbox").input_value() == "service:shop/web"


async def test_the_page_has_the_terminals_figures_and_marks(screen):
    endpoints = (
        make_endpoint("10.244.1.7:80"),
        make_endpoint("10.244.1.8:80", ejected_for_s=4.0),
        make_endpoint("10.244.1.9:80", cause=resets(make_address("10.244.1.9:80"))),
        make_endpoint("10.244.1.10:80", "not on this node", False),
    )
    view = make_view(make_port("web", endpoints=endpoints))
    page = await screen.open(view, "/?q=web&refresh=off")
    assert (await cells_of(row_of(page, "shop/web:http")))[1] == "●✖✖○ 1/4"
    assert "  1 of 4  " in render_text(view, now=NOW).body.decode()
    marks = page.get_by_role("table", name="Endpoints of").get_by_role("img")
    names = [await mark.get_attribute("aria-label") for mark in await marks.all()]
    assert names == ["well", "trouble", "trouble", "not used"]


async def test_a_column_sorts(screen):
    page = await screen.open(make_troubled_view())
    await page.get_by_role("link", name="failed").click()
    await page.wait_for_url("**/?sort=-failed&refresh=off")
    await page.locator("th[aria-sort=descending]").wait_for()
    first = page.locator("tbody.port").first
    assert await first.locator(".name a").inner_text() == "shop/cart:http"


REJECTED = RejectedFacts.at(
    "m/night.yaml:171",
    "spec.clusterIP: 0.0.0.0 can't be an address of a Service",
    ObjectKey("Service", "night", "zeroip"),
    ("night/zeroip",),
)


async def test_a_rejected_service_is_found_with_its_file_and_what_to_change(screen):
    lines = (REJECTED.line, "m/x.yaml:1: not YAML")
    source = SourceFacts("manifests", "m", is_synced=True, problems=lines, rejected=(REJECTED,))
    page = await screen.open(make_view(make_port("web"), source=source))
    await page.get_by_text("live", exact=True).wait_for()
    found = page.get_by_role("region", name="Objects with a mistake")
    assert await found.is_hidden()
    # The remedy of all stands once.
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


# Text that is broken within a word or a number: a line of its range begins where no space, hyphen,
# slash, or group of an IPv6 address ends.
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


@pytest.mark.parametrize("query", ["q=payments&", ""])
async def test_no_word_and_no_number_is_broken(screen, query):
    page = await screen.open(make_troubled_view(), f"/?{query}refresh=off")
    await page.get_by_text("live", exact=True).wait_for()
    for width in (320, 390, 768, 1024, 1100, 1280, 1440):
        await page.set_viewport_size({"width": width, "height": 844})
        assert await page.evaluate(BROKEN) == [], width


async def test_the_beginning_of_a_long_name_is_always_seen(screen):
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


async def test_an_empty_node_shows_the_next_steps(screen):
    source = SourceFacts("manifests", "web.yaml", is_synced=True)
    page = await screen.open(make_view(source=source))
    assert await page.get_by_text("Add a Service manifest to web.yaml").is_visible()


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


@pytest.mark.parametrize(
    "view",
    [make_calm_view(), make_troubled_view(), make_view(), make_view(*make_two_sides())],
    ids=["calm", "trouble", "empty", "dropped"],
)
async def test_every_text_can_be_read_on_a_light_and_on_a_dark_page(screen, view):
    page = await screen.open(view)
    for scheme, expected in (("light", "rgb(243, 245, 247)"), ("dark", "rgb(14, 19, 23)")):
        await page.emulate_media(color_scheme=scheme)
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == expected
        contrasts = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        # WCAG 2.2, 1.4.3 (AA): 4.5 to 1 for text of normal size.
        assert [pair for pair in contrasts if pair[0] < 4.5] == []


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
"""How many elements of a kind there are."""


async def test_the_markup_is_valid_ids_are_unique_and_headings_skip_no_level(screen):
    page = await screen.open(make_troubled_view())
    assert {one: await page.locator(one).count() for one in COUNTS} == COUNTS
    ids = await page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = await page.eval_on_selector_all(
        "h1, h2, h3, h4", "all => all.map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


async def test_the_keyboard_reaches_the_services_at_once(screen):
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
async def test_nothing_scrolls_sideways(screen, view):
    page = await screen.open(view)
    for width in (320, 390, 768, 1280):
        await page.set_viewport_size({"width": width, "height": 844})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        # Names in a line are cut off.
        wide = await page.eval_on_selector_all(
            "main *:not(.line > * *)",
            "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 200))",
        )
        assert wide == [], width


async def test_a_table_stays_a_table_on_the_phone(screen):
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
    ],
)
async def test_axe_finds_nothing(screen, view, path):
    page = await screen.open(view, path)
    await page.get_by_text("live", exact=True).wait_for()
    for scheme, size in (("dark", WIDE), ("light", WIDE), ("light", PHONE)):
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size(size)
        assert await violations_on(page) == [], (scheme, size)
        await page.keyboard.press("?")
        assert await violations_on(page) == [], (scheme, size)
        await page.keyboard.press("Escape")
