import contextlib
import json
import re

import pytest
from yarl import URL

from userspace_proxy_kubectl.nodes.dashboard.entry import COMMAND
from userspace_proxy_kubectl.nodes.dashboard.server import Dashboard

from .clusters import live_of, sick_cluster
from .names import browsing

BROWSER = {"Accept": "text/html", "Sec-Fetch-Site": "none"}
PATHS = ("/", "/services/shop/web", "/static/style.css", "/nothing")


class Window:
    """Sends requests like a browser, with cookies."""

    def __init__(self, session, addresses, close):
        self._session, self.close = session, close
        self.printed, self.once = addresses
        self.base, self.port = self.printed.partition("/?")[0], self.printed.split("/")[2]

    async def ask(self, address, **headers):
        given = BROWSER | {name.replace("_", "-"): value for name, value in headers.items()}
        url = address if address.startswith("http") else self.base + address
        async with self._session.get(url, headers=given, allow_redirects=False) as response:
            return response, await response.text()

    def streaming(self, path):
        return self._session.get(self.base + path, headers=BROWSER)

    async def event(self, response):
        """Return the next message of a stream."""
        async for line in response.content:
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        raise AssertionError("the stream has ended")


@contextlib.asynccontextmanager
async def opened(all_nodes=None):
    dashboard = Dashboard(live_of(all_nodes or sick_cluster()))
    try:
        addresses = await dashboard.serve()
        async with browsing() as session:
            yield Window(session, addresses, dashboard.close)
    finally:
        await dashboard.close()


@pytest.mark.parametrize("path", PATHS)
async def test_without_the_cookie_no_page_is_served(path):
    async with opened() as window:
        for address in (path, f"{path}?secret=", f"{path}?secret=wrong"):
            response, text = await window.ask(address)
            assert response.status == 403
            assert f"<code>{COMMAND}</code>" in text
            assert "node-1" not in text
            assert "Set-Cookie" not in response.headers
        response, text = await window.ask(path, Accept="*/*")
        assert (response.content_type, text.count("\n")) == ("text/plain", 1)


@pytest.mark.parametrize("which", ["printed", "once"])
async def test_a_url_with_the_secret_redirects_to_the_page_and_sets_a_cookie(which):
    async with opened() as window:
        query = getattr(window, which).partition("?")[2]
        response, _ = await window.ask(f"/services/shop/web?q=a&{query}")
        assert (response.status, response.headers["Location"]) == (302, "/services/shop/web?q=a")
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith(f"userspace-proxy-{window.port.partition(':')[2]}=")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert query.partition("=")[2] not in cookie
        for path in PATHS[:3]:
            response, _ = await window.ask(path)
            assert response.status == 200


async def test_the_browsers_url_logs_in_once_and_the_printed_url_repeatedly():
    async with opened() as window, opened() as other:
        del other
        assert (await window.ask(window.once))[0].status == 302
        window._session.cookie_jar.clear()
        response, text = await window.ask(window.once)
        assert (response.status, "somebody else did" in text) == (403, True)
        for _ in range(2):
            window._session.cookie_jar.clear()
            assert (await window.ask(window.printed))[0].status == 302


async def test_a_used_secret_with_a_valid_cookie_redirects_to_the_page():
    async with opened() as window:
        for _ in range(2):
            response, _ = await window.ask(f"/?{window.once.partition('?')[2]}")
            assert (response.status, response.headers["Location"]) == (302, "/")


@pytest.mark.parametrize("path", ["/", "/services/shop/web?q=a", "//example.org/"])
async def test_the_browsers_url_has_a_host_name_unique_to_this_server(path):
    """Issue 74: a browser sends a cookie to all ports of its host."""
    async with opened() as window, opened() as other:
        assert re.fullmatch(r"http://[0-9a-f]{32}\.localhost:\d+", window.base)
        assert window.base.split(".")[0] != other.base.split(".")[0]
        plain, query = window.once.split("/?")
        response, _ = await window.ask(f"{plain}{path}{'&' if '?' in path else '?'}{query}")
        assert (response.status, "Set-Cookie" in response.headers) == (302, False)
        location = response.headers["Location"]
        assert location.startswith(f"{window.base}/{path.lstrip('/')}")
        response, _ = await window.ask(location)
        assert response.headers["Location"] == f"/{path.lstrip('/')}"
        assert "Domain" not in response.headers["Set-Cookie"]
        jar = window._session.cookie_jar
        assert len(jar.filter_cookies(URL(window.base))) == 1
        for elsewhere in ("http://127.0.0.1:80", "http://localhost", other.base):
            assert not jar.filter_cookies(URL(elsewhere))


async def test_a_browser_that_cannot_resolve_the_host_name_may_use_the_address():
    async with opened() as window:
        plain = window.once.partition("/?")[0]
        secret = window.printed.partition("?")[2]
        response, _ = await window.ask(f"{plain}/nodes?{secret}")
        assert (response.status, response.headers["Location"]) == (302, "/nodes")
        assert (await window.ask(f"{plain}/nodes"))[0].status == 200


async def test_the_cookie_of_another_dashboard_is_rejected():
    async with opened() as window, opened() as other:
        _, cookie = (await window.ask(window.printed))[0].headers["Set-Cookie"].split("=", 1)
        value = cookie.partition(";")[0]
        name = f"userspace-proxy-{other.port.partition(':')[2]}"
        response, _ = await other.ask("/", Cookie=f"{name}={value}")
        assert response.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "https://example.org"}, id="another-origin"),
        pytest.param({"Origin": "null"}, id="an-opaque-origin"),
        pytest.param({"Sec_Fetch_Site": "cross-site"}, id="another-site"),
        pytest.param({"Sec_Fetch_Site": "same-site"}, id="another-port-of-this-machine"),
        pytest.param(
            {
                "Sec_Fetch_Site": "same-site",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "iframe",
            },
            id="a-frame",
        ),
        pytest.param({"Host": "example.org"}, id="a-rebound-dns-name"),
        pytest.param({"Host": f"{'0' * 32}.localhost"}, id="the-name-of-another-server"),
    ],
)
async def test_a_cross_origin_request_is_forbidden_even_with_the_cookie(headers):
    async with opened() as window:
        await window.ask(window.printed)
        response, text = await window.ask("/", **headers)
        assert (response.status, "node-1" in text) == (403, False)
        # A cross-origin page can't try secrets either.
        assert (await window.ask(window.printed, **headers))[0].status == 403


async def test_a_link_from_another_site_can_be_followed():
    async with opened() as window:
        await window.ask(window.printed)
        navigating = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
        response, _ = await window.ask("/nodes", Sec_Fetch_Site="cross-site", **navigating)
        assert response.status == 200
        # A browser omits the SameSite cookie at first, but sends it for links within the page.
        window._session.cookie_jar.clear()
        _, text = await window.ask("/nodes", Sec_Fetch_Site="cross-site", **navigating)
        assert '<a href="">' in text


async def test_a_url_with_the_secret_never_redirects_to_another_host():
    async with opened() as window:
        query = window.printed.partition("?")[2]
        response, _ = await window.ask(f"//example.org/?{query}")
        assert response.headers["Location"] == "/example.org/"
