"""Splitting a stream into lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.sources.kubernetes.lines import LINE_BYTES_MAX, LineSplitter, LineTooLong


def test_lines_come_out_whole_however_they_come_in():
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntwo\r\n\nth") == [b"one", b"two"]
    assert splitter.feed(b"re") == []
    assert splitter.feed(b"e\n") == [b"three"]


def test_a_line_longer_than_the_bound_is_refused_also_before_it_ends():
    splitter = LineSplitter(limit_bytes=4)
    assert splitter.feed(b"1234\n123") == [b"1234"]
    with pytest.raises(LineTooLong, match="a line is longer than 4 bytes"):
        splitter.feed(b"45")


def test_a_line_of_twice_the_bound_is_refused_before_all_of_it_has_arrived():
    splitter, other = LineSplitter(), LineSplitter()
    half = bytes(LINE_BYTES_MAX // 2)
    assert splitter.feed(half) + splitter.feed(half) == []
    with pytest.raises(LineTooLong, match="longer than 16777216 bytes"):
        splitter.feed(half)
    assert other.feed(b"one\n") == [b"one"]


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\r" not in b)), st.randoms())
def test_any_cuts_give_the_same_lines(chunks, rng):
    whole = b"".join(chunks)
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert lines == [line for line in whole.split(b"\n")[:-1] if line]
