"""Decides which requests the dashboard answers: only requests of its user's browser.

    http://127.0.0.1:10299/?secret=…, once ──302─────────▶ http://NAME.localhost:10299/?secret=…
    http://NAME.localhost:10299/?secret=…  ──302, cookie─▶ http://NAME.localhost:10299/
    anything without the cookie            ──403─────────▶ one line

Rule 1: every user of a machine can connect to its loopback, so a request needs the secret, or the
cookie that the answer to the secret has set.
Rule 2: the URL with which the browser is started works only once, because all users of the machine
can briefly see it in the list of processes. The printed URL works while the command runs.
Rule 3: browsers send a cookie to all ports of a host, so this server's host has a random name. A
user whose browser can't resolve the name can open 127.0.0.1 with the secret.
Rule 4: requests by a page of another origin are rejected by ``Origin`` and ``Sec-Fetch-Site``,
although browsers send the cookie if that page is on another port of this machine. A link on another
site can be followed: the first answer is 403, because browsers withhold the cookie, and contains
the link again.
"""

from __future__ import annotations

import hmac
import secrets

from aiohttp import web
from aiohttp.typedefs import Handler

from userspace_proxy.status.text import prefers_text

HOST = "127.0.0.1"
COMMAND = "kubectl userspace-proxy dashboard"
_SECRET = "secret"
_WORDS = "Only the browser that a command has opened can read this: start"
_AGAIN = "open this address again"
_USED = (
    "This address was opened before, and works once: take the one that the command has printed. If "
    "you didn't open it, somebody else did: end the command, and start it again.\n"
)
_FOREIGN = "This address doesn't answer to pages of other origins.\n"


class Entry:
    """The secrets of one server; ``host`` is the host of the browser's requests."""

    def __init__(self, port: int, *, is_named: bool) -> None:
        name = f"{secrets.token_hex(16)}.localhost" if is_named else HOST
        self.host = f"{name}:{port}"
        self._cookie_name = f"userspace-proxy-{port}"
        self._secret = secrets.token_urlsafe(32)
        self._once = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._is_used = False

    def printed(self, path: str) -> str:
        """Return the URL of a page, to be printed for the user."""
        return f"http://{self.host}{path}{'&' if '?' in path else '?'}{_SECRET}={self._secret}"

    def once(self, path: str) -> str:
        """Return the single-use URL of a page, with which a browser is started."""
        return f"http://{HOST}:{self.host.rpartition(':')[2]}{path}?{_SECRET}={self._once}"

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on own requests with the cookie; exchange a secret for the cookie; refuse others."""
        if _is_foreign(request):
            return web.Response(status=403, text=_FOREIGN)
        given = request.query.get(_SECRET)
        has_cookie = _equal(request.cookies.get(self._cookie_name, ""), self._cookie)
        if given is not None and not has_cookie:
            if self._is_used and _equal(given, self._once):
                return web.Response(status=403, text=_USED)
            has_cookie = self._takes(given)
        if not has_cookie:
            return _refusal(request)
        if given is None:
            return await handler(request)
        path = _without_secret(request)
        if _equal(given, self._once) and request.host != self.host:
            return web.Response(status=302, headers={"Location": self.printed(path)})
        response = web.Response(status=302, headers={"Location": path})
        response.set_cookie(
            self._cookie_name, self._cookie, path="/", httponly=True, samesite="Strict"
        )
        return response

    def _takes(self, given: str) -> bool:
        """Return whether this is a valid secret; invalidate it if it is the single-use secret."""
        if _equal(given, self._once):
            self._is_used = True
            return True
        return _equal(given, self._secret)


def _equal(given: str, wanted: str) -> bool:
    """Return whether two secrets are equal, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _is_foreign(request: web.Request) -> bool:
    """Return whether a page of another origin has caused a request, other than by a link."""
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{headers.get('Host', '')}":
        return True
    if headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none"):
        return False
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) != (
        "navigate",
        "document",
    )


def _without_secret(request: web.Request) -> str:
    """Return the URL of a request on this server, without its secret."""
    url = request.rel_url.without_query_params(_SECRET)
    # Keep only one leading slash: a URL that begins with two slashes names another host.
    return "/" + str(url).lstrip("/\\")


def _refusal(request: web.Request) -> web.Response:
    accept, agent = (request.headers.get(name, "") for name in ("Accept", "User-Agent"))
    if prefers_text(accept, agent) or "text/html" not in accept:
        return web.Response(status=403, text=f"{_WORDS} '{COMMAND}', and {_AGAIN}\n")
    # Offer the link again: a browser sends the cookie for a link on this page, but not at first for
    # a link on a page of another site.
    body = f'{_WORDS} <code>{COMMAND}</code>, and <a href="">{_AGAIN}</a>.'
    return web.Response(
        status=403,
        text=f'<!doctype html><html lang="en"><title>Not open</title><p>{body}</p></html>\n',
        content_type="text/html",
    )
