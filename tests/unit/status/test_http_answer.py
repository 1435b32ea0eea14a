"""Tests of reading an HTTP response in pieces of any size, within limits."""

import gzip
import zlib

import pytest

from userspace_proxy.status.http_answer import (
    HEAD_BYTES_MAX,
    PIECE_BYTES,
    Bounds,
    HttpAnswer,
    TooLarge,
    Unreadable,
    request_for,
)

ANSWER = Bounds()
OK = b"HTTP/1.0 200 OK\r\n"
BODY = b'{"version": "1"}\n' * 1000
PACKED = gzip.compress(BODY)


def read(data, *, step=0, bounds=ANSWER):
    """Feed bytes in pieces; return the response and its body."""
    answer, body = HttpAnswer(bounds), b""
    for at in range(0, len(data), step or len(data)):
        body += b"".join(answer.feed(data[at : at + (step or len(data))]))
        if answer.is_complete:
            break
    return answer, body


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        pytest.param(b"Content-Length: %d\r\n" % len(BODY), BODY, id="length"),
        pytest.param(b"Content-Encoding: gzip\r\n", PACKED, id="gzip"),
        pytest.param(
            b"content-encoding: GZIP\r\ncontent-length: %d\r\n" % len(PACKED), PACKED, id="both"
        ),
    ],
)
def test_a_response_ends_at_its_content_length_or_with_its_gzip_stream(headers, sent, step):
    answer, body = read(OK + headers + b"\r\n" + sent + b"and more", step=step)
    assert (answer.code, answer.is_complete, body) == (200, True, BODY)


def test_a_response_without_a_length_ends_with_the_connection():
    answer, body = read(OK + b"\r\n" + BODY)
    assert (answer.is_complete, body) == (False, BODY)
    assert list(answer.feed(b"")) == []
    assert answer.is_complete


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(OK, id="in-the-head"),
        pytest.param(OK + b"Content-Length: 9\r\n\r\nfour", id="in-the-body"),
        pytest.param(OK + b"Content-Encoding: gzip\r\n\r\n" + PACKED[:-9], id="in-gzip"),
    ],
)
def test_a_truncated_response_is_unreadable(data):
    answer = HttpAnswer(Bounds())
    if data:
        list(answer.feed(data))
    with pytest.raises(Unreadable):
        list(answer.feed(b""))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.0 2OO OK\r\n\r\n", id="no-status"),
        pytest.param(b"HTTP/1.0\r\n\r\n", id="no-words"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", id="negative"),
        pytest.param(OK + b"Content-Length: 1x\r\n\r\n", id="no-number"),
        pytest.param(OK + b"Content-Length: " + b"9" * 99 + b"\r\n\r\n", id="long-number"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", id="chunks"),
        pytest.param(OK + b"Content-Encoding: br\r\n\r\n", id="another-encoding"),
        pytest.param(OK + b"Content-Encoding: gzip\r\n\r\nno gzip", id="no-gzip"),
        pytest.param(OK + b"X: y\r\n" * 200 + b"\r\n", id="too-many-headers"),
        pytest.param(OK + b"X" * (HEAD_BYTES_MAX + 1), id="endless-head"),
        pytest.param(b"x" * (HEAD_BYTES_MAX + 1), id="endless-line"),
        pytest.param(
            OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n" + PACKED, id="cut-gzip"
        ),
    ],
)
def test_a_malformed_response_is_unreadable(data):
    with pytest.raises(Unreadable):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(OK + b"Content-Length: 1001\r\n\r\n", id="length"),
        pytest.param(OK + b"\r\n" + b"x" * 1001, id="bytes"),
    ],
)
def test_the_size_of_a_received_response_is_bounded(data):
    with pytest.raises(TooLarge) as raised:
        read(data, bounds=Bounds(wire=1000))
    assert raised.value.bytes_max == 1000


def test_a_gzip_bomb_is_decompressed_in_pieces_up_to_a_limit():
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush()
    answer, pieces = HttpAnswer(Bounds(body=1 << 20)), []
    unpacked = answer.feed(OK + b"Content-Encoding: gzip\r\n\r\n" + bomb)
    with pytest.raises(TooLarge):
        pieces.extend(map(len, unpacked))
    assert sum(pieces) <= 1 << 20
    assert max(pieces) == PIECE_BYTES


def test_a_gzip_stream_is_decompressed_on_arrival():
    packer, answer = zlib.compressobj(wbits=31), HttpAnswer(Bounds(wire=0, body=0))
    list(answer.feed(OK + b"Content-Encoding: gzip\r\n\r\n"))
    for line in (b"one\n", b"two\n"):
        sent = packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(answer.feed(sent)) == line
    assert not answer.is_complete


def test_an_http_request_contains_the_host_and_accepts_gzip():
    request = request_for(
        "/api/v1/status?watch", "127.0.0.1:10349", accept="text/plain", takes_gzip=True
    )
    lines = request.decode().split("\r\n")
    assert lines[:2] == ["GET /api/v1/status?watch HTTP/1.0", "Host: 127.0.0.1:10349"]
    assert {"Accept: text/plain", "Accept-Encoding: gzip"} <= {*lines}
    assert lines[-2:] == ["", ""]
