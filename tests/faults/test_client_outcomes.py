"""Clients' outcomes while an endpoint has a fault: each cell of the table in docs/in-tests.md."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import pytest

from userspace_proxy_testing import ServiceProxy
from userspace_proxy_testing.backends import http

from . import small_databases

PAGE = Path(__file__).parents[2] / "docs/in-tests.md"
PATIENCE_S = 60.0
SHORT_S = 0.02
"""The read timeout of clients in rows that expect no bytes."""
BODY = "x" * 1000
ANSWER = "answer"
TIMES = 3


def by_socket(web, timeout_s):
    with socket.create_connection(web.address, timeout=timeout_s) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = client.recv(1 << 16)
        while got and (more := client.recv(1 << 16)):
            got += more
    if not got:
        return 'b""'
    return ANSWER if got.endswith(BODY.encode()) else "fewer bytes"


def by_urllib(web, timeout_s):
    with urlopen(web.url, timeout=timeout_s) as answer:
        answer.read()
    return ANSWER


def by_requests(web, timeout_s):
    import requests

    assert requests.get(web.url, timeout=(PATIENCE_S, timeout_s)).text == BODY
    return ANSWER


def by_httpx(web, timeout_s):
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    timeout = httpx.Timeout(PATIENCE_S, read=timeout_s)
    with httpx.Client(timeout=timeout, verify=False) as client:
        assert client.get(web.url).text == BODY
    return ANSWER


def by_aiohttp(web, timeout_s):
    import aiohttp

    async def get():
        timeout = aiohttp.ClientTimeout(sock_read=timeout_s)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(web.url) as answer,
        ):
            await answer.read()

    asyncio.run(get())
    return ANSWER


def by_psycopg(web, timeout_s):
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    connection = psycopg.connect(
        host=web.address.ip,
        port=web.address.port,
        user="me",
        autocommit=True,
        connect_timeout=math.ceil(timeout_s),
    )
    with connection:
        assert connection.execute("SELECT body").fetchone() == (BODY,)
    return ANSWER


def by_redis(web, timeout_s):
    redis = pytest.importorskip("redis", reason="redis is not installed")
    # As by default, there are three retries, but without delays.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 3)
    host, port = web.address
    with redis.Redis(host, port, socket_timeout=timeout_s, retry=retry) as client:
        assert client.get("body") == BODY.encode()
    return ANSWER


CLIENTS = {
    "socket": by_socket,
    "urllib": by_urllib,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "psycopg": by_psycopg,
    "redis": by_redis,
}
BACKENDS = {"psycopg": small_databases.postgres(BODY), "redis": small_databases.redis(BODY)}
"""The backends of these clients; all other clients use an HTTP server."""


def outcome(client, web, timeout_s):
    try:
        return client(web, timeout_s)
    except Exception as exc:  # noqa: BLE001 - whatever a client raises
        return type(exc).__name__


def rows():
    """Yield each fault with the expected outcome of each client."""
    table = re.search(r"(?m)^\| of all endpoints \|.*\n((?:\|.*\n)+)", PAGE.read_text())
    head, *lines = table[0].splitlines()
    assert [name.strip(" `") for name in head.split("|")[2:-1]] == list(CLIENTS)
    for line in lines[1:]:
        first, *cells = line.split("|")[1:-1]
        for what in re.findall(r"`([^`]+)`", first):
            for name, cell in zip(CLIENTS, cells, strict=True):
                is_short = "TimeoutError" in cells[0]
                yield what, name, frozenset(re.findall(r"`([^`]+)`", cell)), is_short


@pytest.mark.parametrize(
    ("what", "name", "expected", "is_short"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in rows()],
)
def test_a_client_gets_the_documented_outcome(what, name, expected, is_short):
    got = Counter()
    with ServiceProxy() as proxy:
        for _ in range(TIMES):
            web = proxy.service("web", backends=[BACKENDS.get(name, http(BODY))])
            exec(what, {"web": web})
            got[outcome(CLIENTS[name], web, SHORT_S if is_short else PATIENCE_S)] += 1
    assert got.keys() <= expected, got
