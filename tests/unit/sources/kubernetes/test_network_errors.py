"""Texts of connection failures; each test causes a real one."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.tcp_servers import serving
from userspace_proxy.sources.kubernetes.network_errors import describe


async def said_of(url: str, **options) -> str:
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, OSError)) as caught:
            async with session.get(url, **options) as response:
                await response.read()
    return describe(caught.value)


@pytest.fixture
async def answering():
    """Yield a function that starts a server with a fixed answer, and returns its port."""
    stack = AsyncExitStack()

    async def start(answer: bytes) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(answer)

        return (await stack.enter_async_context(serving(handle))).port

    async with stack:
        yield start


async def test_an_unresolvable_name_is_described(monkeypatch):
    async def getaddrinfo(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    words = await said_of("http://nowhere.invalid")
    assert words == "its name can't be resolved: Name or service not known"


async def test_a_connection_closed_without_a_response_is_described(answering):
    url = f"http://127.0.0.1:{await answering(b'')}"
    assert await said_of(url) == "it closed the connection without a response"


async def test_a_truncated_response_is_described(answering):
    port = await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    assert await said_of(f"http://127.0.0.1:{port}") == "its response was cut off"


async def test_a_server_that_does_not_speak_tls_is_described(answering):
    port = await answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    words = await said_of(f"https://127.0.0.1:{port}")
    assert words.startswith("TLS failed: ")
    assert words.endswith(": it may speak HTTP")


async def test_a_proxy_that_does_not_speak_http_is_described(answering):
    proxy = f"http://me:hunter2@127.0.0.1:{await answering(b'garbage')}"
    words = await said_of("https://api.test", proxy=proxy)
    assert "garbage" in words
    assert "hunter2" not in words


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        pytest.param(TimeoutError(), "no response in time", id="timeout"),
        pytest.param(TimeoutError(errno.ETIMEDOUT, "x"), "Connection timed out", id="kernel"),
        pytest.param(OSError(errno.ECONNRESET, "x"), "Connection reset by peer", id="errno"),
        pytest.param(
            OSError(errno.EADDRNOTAVAIL, "x"), "Cannot assign requested address (", id="port"
        ),
        pytest.param(OSError("two\nlines"), "two lines", id="text"),
        pytest.param(OSError(), "OSError", id="nothing"),
        pytest.param(UnicodeError("idna"), "its name can't be resolved: it is none", id="name"),
        pytest.param(
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), "TLS failed: ", id="tls"
        ),
    ],
)
def test_an_error_is_described_in_one_line(exc, words):
    assert describe(exc).startswith(words)


def test_an_untrusted_certificate_is_described_with_the_reason():
    exc = ssl.SSLCertVerificationError(1, "certificate verify failed")
    exc.verify_message = "self-signed certificate"
    outer = OSError("outer")
    outer.__cause__ = exc
    assert describe(outer) == "its certificate is not trusted: self-signed certificate"


def test_the_text_of_a_windows_error_is_unchanged():
    error = ConnectionRefusedError(errno.EINVAL, "The remote computer refused the connection")
    error.winerror = 1225
    assert describe(error) == "The remote computer refused the connection"
