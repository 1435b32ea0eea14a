import gzip
import zlib

import pytest

from userspace_proxy.status.compression import (
    accepts_gzip,
    compressed,
    flushed_parts,
    headers_for,
)

LINES = (b'{"now":1}\n', b"\n", b'{"now":2}\n')


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [("gzip, deflate", True), ("GZIP", True), ("br", False), ("", False)],
)
def test_gzip_is_for_clients_that_accept_it(accepted, is_gzip):
    assert accepts_gzip({"Accept-Encoding": accepted} if accepted else {}) is is_gzip


def test_each_part_of_a_stream_can_be_read_at_once():
    send, receive = flushed_parts(is_gzip=True), zlib.decompressobj(31)
    assert [receive.decompress(send(line)) for line in LINES] == list(LINES)


def test_a_part_is_compressed_with_the_ones_before():
    send, line = flushed_parts(is_gzip=True), bytes(range(256))
    assert len(send(line)) > 256
    assert len(send(line)) < 32


def test_others_get_the_bytes_as_they_are():
    send = flushed_parts(is_gzip=False)
    assert [send(line) for line in LINES] == list(LINES)
    assert compressed(LINES[0], is_gzip=False) == LINES[0]
    assert not headers_for(is_gzip=False)


def test_a_whole_answer_is_a_gzip_file():
    assert gzip.decompress(compressed(LINES[0], is_gzip=True)) == LINES[0]
    assert headers_for(is_gzip=True) == {"Content-Encoding": "gzip"}
