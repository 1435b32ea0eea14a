import gzip
import zlib

import pytest
from aiohttp import web
from multidict import MultiDict

from userspace_proxy.status.answer_form import (
    SUMMARY_EVERY_S,
    AnswerForm,
    accepts_gzip,
    compressed,
    flushed_parts,
    headers_for,
)

from .views import make_calm_view


def read(*query, **headers):
    return AnswerForm.read(MultiDict(query), headers)


def test_without_a_view_parameter_a_response_is_complete():
    view = make_calm_view()
    assert read() == AnswerForm()
    assert read(("also", "shop/web")).of(view) is view


def test_a_summary_is_shorter_and_its_requested_services_are_parsed():
    form = read(("view", "summary"), ("also", "shop/web"), ("also", "shop/db"))
    assert form.also == {"shop/web", "shop/db"}
    assert form.is_summary
    assert len(form.of(make_calm_view()).ports) < len(make_calm_view().ports)


def test_a_summary_includes_at_most_a_hundred_requested_services():
    many = (("also", f"shop/service-{number}") for number in range(1000))
    assert len(read(("view", "summary"), *many).also) == 100


def test_streamed_summaries_have_a_longer_interval_unless_the_client_sets_one():
    assert read(("view", "summary")).every_s == SUMMARY_EVERY_S
    assert read(("view", "summary"), ("every", "1")).every_s == 1
    assert read(("every", "10")).every_s == 10
    assert read().every_s is None


@pytest.mark.parametrize(
    "query",
    [
        ("every", "0"),
        ("every", "31"),
        ("every", "1.5"),
        ("every", "\u0663"),
        ("every", "9" * 5000),
        ("every", "00000000199"),
        ("every", ""),
        ("view", "page"),
    ],
    ids=["zero", "above-30", "fraction", "other-digits", "long", "zeros", "empty", "view"],
)
def test_an_invalid_query_parameter_is_rejected(query):
    with pytest.raises(web.HTTPBadRequest):
        read(query)


def test_a_client_accepting_gzip_gets_a_gzip_response():
    assert read(**{"Accept-Encoding": "gzip"}).is_gzip


LINES = (b'{"now":1}\n', b"\n", b'{"now":2}\n')


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [("gzip, deflate", True), ("GZIP", True), ("br", False), ("", False)],
)
def test_gzip_is_used_only_for_clients_that_accept_it(accepted, is_gzip):
    assert accepts_gzip({"Accept-Encoding": accepted} if accepted else {}) is is_gzip


def test_chunks_of_a_gzip_stream_can_be_decompressed_on_arrival():
    send, receive = flushed_parts(is_gzip=True), zlib.decompressobj(31)
    assert [receive.decompress(send(line)) for line in LINES] == list(LINES)


def test_a_chunk_is_compressed_using_earlier_chunks():
    send, line = flushed_parts(is_gzip=True), bytes(range(256))
    assert len(send(line)) > 256
    assert len(send(line)) < 32


def test_the_bytes_for_clients_that_do_not_accept_gzip_are_unchanged():
    send = flushed_parts(is_gzip=False)
    assert [send(line) for line in LINES] == list(LINES)
    assert compressed(LINES[0], is_gzip=False) == LINES[0]
    assert not headers_for(is_gzip=False)


def test_a_complete_response_is_a_gzip_file():
    assert gzip.decompress(compressed(LINES[0], is_gzip=True)) == LINES[0]
    assert headers_for(is_gzip=True) == {"Content-Encoding": "gzip"}
