"""The small HTTP server of backends."""

import asyncio
import ssl

import pytest

from tests.tcp_servers import serving
from userspace_proxy_testing.handler_threads import in_threads
from userspace_proxy_testing.http_serving import KEPT, HttpRequest, HttpServer, SeenRequest


async def talk(handler, sent):
    """Send bytes and a FIN, and return the response."""
    return await talk_to(HttpServer(in_threads(handler)), sent)


async def talk_to(http, sent):
    async with serving(http) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


def bodies(answer):
    """Return the status line and body of each response."""
    parts = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        fields = dict(line.split(b": ") for line in lines)
        length = int(fields[b"Content-Length"])
        parts.append((first.decode(), rest[:length]))
        answer = rest[length:]
    return parts


async def test_a_handler_receives_the_request_and_its_result_is_sent():
    seen = []

    def handler(request):
        seen.append(request)
        return "hello"

    head = b"POST /a?b=1 HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc"
    assert bodies(await talk(handler, head)) == [("HTTP/1.1 200 OK", b"hello")]
    assert seen == [HttpRequest("POST", "/a?b=1", {"host": "web", "content-length": "3"}, b"abc")]


async def test_a_tls_client_is_disconnected_immediately_and_recorded():
    http = HttpServer(in_threads(lambda request: "hello"))
    async with serving(http) as (host, port):
        with pytest.raises(ssl.SSLError, match="wrong version number"):
            await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    (seen,) = http.seen
    assert str(seen) == "TLS a client's hello: this backend speaks HTTP, not HTTPS → 400"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("text", ("HTTP/1.1 200 OK", b"text"), id="text"),
        pytest.param(b"\x00\xff", ("HTTP/1.1 200 OK", b"\x00\xff"), id="bytes"),
        pytest.param((503, "busy"), ("HTTP/1.1 503 Error", b"busy"), id="status"),
    ],
)
async def test_a_handler_may_return_text_bytes_or_a_status_and_a_body(answer, expected):
    assert bodies(await talk(lambda _: answer, b"GET / HTTP/1.1\r\n\r\n")) == [expected]


async def test_a_handler_may_be_a_coroutine_function():
    async def handler(request):
        return request.path

    assert bodies(await talk(handler, b"GET /x HTTP/1.1\r\n\r\n")) == [("HTTP/1.1 200 OK", b"/x")]


async def test_a_connection_serves_requests_until_connection_close():
    last = b"GET /2 HTTP/1.1\r\nConnection: close\r\n\r\n"
    sent = b"GET /1 HTTP/1.1\r\n\r\n" + last + b"GET /3 HTTP/1.1\r\n\r\n"
    answer = await talk(lambda request: request.path, sent)
    assert [body for _, body in bodies(answer)] == [b"/1", b"/2"]


async def test_the_response_to_head_has_no_body():
    answer = await talk(lambda _: "hello", b"HEAD / HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 5" in answer


async def test_an_exception_of_the_handler_is_logged_and_sent_to_the_client(caplog):
    def handler(_):
        raise LookupError("no such thing")

    assert bodies(await talk(handler, b"GET /a HTTP/1.1\r\n\r\n")) == [
        ("HTTP/1.1 500 Error", b"LookupError: no such thing\n")
    ]
    assert caplog.messages == ["backend function raised an exception for GET /a"]
    assert "LookupError: no such thing" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), pytest.fail.Exception("no")])
async def test_a_handler_raising_system_exit_or_a_test_failure_returns_500(error, caplog):
    async def handler(_):
        raise error

    ((status, body),) = bodies(await talk(handler, b"GET / HTTP/1.1\r\n\r\n"))
    assert (status, body) == ("HTTP/1.1 500 Error", f"{type(error).__name__}: {error}\n".encode())
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("answer", [None, 7, ("200", "text"), (200, None), (200, {}, "text")])
async def test_an_invalid_handler_result_returns_500(answer, caplog):
    ((status, body),) = bodies(await talk(lambda _: answer, b"GET / HTTP/1.1\r\n\r\n"))
    assert status == "HTTP/1.1 500 Error"
    assert body.startswith(b"TypeError: expected a str, bytes, or a status and one of them, got ")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"hello\r\n\r\n", id="no-http"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="length"),
        pytest.param(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, id="too-long"),
    ],
)
async def test_an_invalid_request_is_rejected(sent):
    assert (await talk(lambda _: "hello", sent)).startswith(b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="half-a-head"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", id="half-a-body"),
    ],
)
async def test_an_incomplete_request_is_not_answered(sent):
    assert await talk(lambda _: "hello", sent) == b""


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"close", id="1.0"),
        pytest.param(
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive", id="1.0-kept"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"keep-alive", id="1.1"),
    ],
)
async def test_a_response_states_whether_its_connection_is_kept_open(head, connection):
    answer = await talk(lambda request: "hello", head)
    assert b"\r\nConnection: " + connection + b"\r\n" in answer


async def test_the_server_records_each_request_with_its_status():
    http = HttpServer(in_threads(lambda request: (404, "") if request.path == "/b" else "a"))
    await talk_to(http, b"GET /a?x HTTP/1.1\r\n\r\nPUT /b HTTP/1.1\r\n\r\n")
    assert list(map(str, http.seen)) == ["GET /a?x → 200", "PUT /b → 404"]


async def test_a_pending_request_is_already_recorded():
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def waits(_request):
        arrived.set()
        await leave.wait()
        return ""

    http = HttpServer(waits)
    task = asyncio.create_task(talk_to(http, b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.wait_for(arrived.wait(), 10)
    assert list(http.seen) == [SeenRequest("GET", "/", None)]
    assert str(http.seen[0]) == "GET / → no answer"
    leave.set()
    await task
    assert str(http.seen[0]) == "GET / → 200"


async def test_only_the_most_recent_requests_are_kept():
    http = HttpServer(in_threads(lambda _request: ""))
    await talk_to(http, b"GET /0 HTTP/1.1\r\n\r\n" * KEPT + b"GET /1 HTTP/1.1\r\n\r\n")
    assert (len(http.seen), http.seen[-1].path) == (KEPT, "/1")
