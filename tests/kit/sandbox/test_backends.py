import hashlib
import socket
import time
from threading import Thread

import pytest

from userspace_proxy_testing.sandbox import backends
from userspace_proxy_testing.sandbox.backends import (
    pattern,
    serve_echo,
    serve_http,
    serve_one,
    serve_reset,
    serve_source,
    serve_sum,
)


def answer(server, sent):
    """Return a server's whole answer to a client that sends data and a FIN."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        server(theirs, "web-1")
        theirs.close()
        with ours.makefile("rb") as stream:
            return stream.read()


def test_each_request_on_a_connection_is_answered_with_the_backends_name():
    got = answer(serve_http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert got.endswith(b"\r\n\r\nweb-1\n")


def test_a_request_body_is_not_parsed_as_the_next_request():
    got = answer(serve_http, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /" * 2)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_a_response_to_head_has_no_body():
    assert answer(serve_http, b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_requests_after_connection_close_are_ignored():
    got = answer(serve_http, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n" * 2)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 1


def test_invalid_http_requests_are_rejected():
    assert answer(serve_http, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_the_returned_checksum_and_length_cover_all_received_bytes():
    digest = hashlib.sha256(b"abc").hexdigest()
    assert answer(serve_sum, b"abc") == f"{digest} 3\n".encode()


def test_a_source_sends_as_many_bytes_as_each_line_requests():
    assert answer(serve_source, b"3\n0\n2\n") == b"\x00\x01\x02\x00\x01"


@pytest.mark.parametrize("count", [0, 1, 251, 257_024, 1_000_000])
def test_byte_number_i_of_the_pattern_is_i_modulo_251(count):
    data = b"".join(pattern(count))
    assert len(data) == count
    assert data == bytes(i % 251 for i in range(count))


def test_a_resetting_server_closes_a_connection_after_its_first_byte():
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"x")
        serve_reset(theirs, "web-1")
        assert theirs.fileno() == -1


def test_the_connection_of_a_vanished_client_is_closed():
    ours, theirs = socket.socketpair()
    ours.close()
    serving = Thread(target=serve_one, args=(theirs, serve_echo, "web-1"), daemon=True)
    serving.start()
    serving.join(10)
    assert theirs.fileno() == -1


def test_a_slow_server_delays_its_response():
    backends.slow.set()
    try:
        began = time.monotonic()
        assert answer(serve_http, b"GET / HTTP/1.0\r\n\r\n").endswith(b"web-1\n")
        assert time.monotonic() - began >= backends.SLOW_S
    finally:
        backends.slow.clear()
