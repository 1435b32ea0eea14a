"""Requests through a SOCKS5 proxy, which resolves names that this machine can't."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.tcp_servers import serving
from userspace_proxy.sources.kubernetes.proxies import WebProxy, read_proxy
from userspace_proxy.sources.kubernetes.socks import SocksConnector

from .certificates import API_TEST, API_TEST_KEY

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class FakeSocks:
    """A proxy that accepts one kind of greeting, and maps every name to a port of this machine."""

    def __init__(self, port: int, **answers: bytes) -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._answers = {"method": b"\x05\x00", "login": b"\x01\x00", "reply": _REPLY, **answers}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        self.asked.append(await reader.readexactly(count))
        method = self._answers["method"]
        writer.write(method)
        if method == b"\x05\x02":
            version, length = await reader.readexactly(2)
            name = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.asked.append(bytes([version]) + name + b":" + password)
            writer.write(self._answers["login"])
        head = await reader.readexactly(4)
        length = {1: 4, 4: 16}.get(head[3]) or (await reader.readexactly(1))[0]
        self.asked.append(head + await reader.readexactly(length + 2))
        reply = self._answers["reply"]
        writer.write(reply)
        if reply[1]:
            return
        far, back = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(_copy(reader, back), _copy(far, writer))


_REPLY = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            writer.write(data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HELLO)


def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    return socket.socket(*address[:3])


def session_through(proxy: WebProxy) -> aiohttp.ClientSession:
    connector = SocksConnector(proxy, socket_factory=open_socket)
    return aiohttp.ClientSession(connector=connector)


@asynccontextmanager
async def through(
    user: str = "", tls: ssl.SSLContext | None = None, **answers: bytes
) -> AsyncIterator[tuple[aiohttp.ClientSession, FakeSocks]]:
    """Yield a session that goes through a proxy."""
    async with serving(answer, ssl=tls) as address:
        socks = FakeSocks(address.port, **answers)
        async with serving(socks.handle) as at:
            proxy = read_proxy(f"socks5://{user}{at}", "a test")
            assert proxy is not None
            async with session_through(proxy) as session:
                yield session, socks


async def test_a_host_name_is_sent_to_the_socks_proxy():
    async with through() as (session, socks), session.get("http://api.test:8080/a") as response:
        assert await response.read() == b"{}"
        assert socks.asked == [b"\x00", b"\x05\x01\x00\x03api.test\x1f\x90"]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://10.9.8.7/", b"\x05\x01\x00\x01\x0a\x09\x08\x07\x00\x50"),
        ("http://[fd00::1]/", b"\x05\x01\x00\x04\xfd" + bytes(14) + b"\x01\x00\x50"),
    ],
)
async def test_an_ip_address_is_sent_to_the_socks_proxy(url, asked):
    async with through() as (session, socks), session.get(url) as response:
        assert await response.read() == b"{}"
        assert socks.asked[-1] == asked


async def test_the_servers_certificate_is_verified_behind_the_proxy(tmp_path):
    (tmp_path / "crt").write_text(API_TEST)
    (tmp_path / "key").write_text(API_TEST_KEY)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    trusting = ssl.create_default_context(cadata=API_TEST)
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    name_reply = b"\x05\x00\x00\x03\x04name\x00\x00"
    async with through(tls=tls, reply=name_reply) as (session, _):
        async with session.get("https://api.test/", ssl=trusting) as response:
            assert await response.read() == b"{}"
        with pytest.raises((aiohttp.ClientError, ssl.SSLError), match="certificate"):
            await session.get("https://other.test/", ssl=trusting)


async def test_user_and_password_are_sent_if_the_socks_proxy_requests_them():
    async with through("me:s%40cret@", method=b"\x05\x02") as (session, socks):
        await session.get("http://api.test/")
        assert socks.asked[:2] == [b"\x00\x02", b"\x01me:s@cret"]
    async with through("me:secret@") as (session, socks):
        await session.get("http://api.test/")
        assert len(socks.asked) == 2


@pytest.mark.parametrize(
    ("user", "answers", "problem"),
    [
        ("", {"method": b"HT"}, "it doesn't speak SOCKS5"),
        ("", {"method": b"\x05\xff"}, "it wants another authentication"),
        ("", {"method": b"\x05\x02"}, "it wants another authentication"),
        ("", {"method": b"\x05\x00\x05\x02\x00\x01"}, "it says: the connection isn't allowed"),
        ("", {"reply": b"\x05\x05\x00\x01"}, "it says: connection refused"),
        ("", {"reply": b"\x05\x63\x00\x01"}, "it says: code 99"),
        ("a:b@", {"method": b"\x05\x02", "login": b"\x01\x01"}, "it doesn't take the user and"),
        (f"{'a' * 256}:b@", {"method": b"\x05\x02"}, "its user or password is longer than 255"),
    ],
)
async def test_a_socks_error_is_reported_as_the_reason(user, answers, problem):
    async with through(user, **answers) as (session, _):
        with pytest.raises(OSError, match=problem):
            await session.get("http://api.test/")


async def test_an_overlong_host_name_is_rejected():
    async with through() as (session, _):
        with pytest.raises(OSError, match="the server's name is longer than 255 bytes"):
            await session.get(f"http://{'.'.join(['a' * 60] * 5)}/")


async def test_a_proxy_closing_the_connection_is_reported_as_the_reason():
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(hang_up) as at:
        proxy = read_proxy(f"socks5://{at}", "")
        assert proxy is not None
        async with session_through(proxy) as session:
            with pytest.raises(OSError, match=r"it closed the connection|reset by peer"):
                await session.get("http://api.test/")
    # No server listens on that port any more.
    async with session_through(proxy) as session:
        with pytest.raises(OSError, match="Connect call failed"):
            await session.get("http://api.test/")


async def test_a_silent_socks_proxy_times_out():
    async def be_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(be_silent) as at:
        proxy = read_proxy(f"socks5://{at}", "")
        assert proxy is not None
        timeout = aiohttp.ClientTimeout(sock_connect=0.05)
        async with session_through(proxy) as session:
            with pytest.raises(TimeoutError):
                await session.get("http://api.test/", timeout=timeout)
