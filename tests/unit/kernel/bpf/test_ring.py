from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from userspace_proxy.kernel.bpf.ring import Ring

SIZE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Written:
    """A file laid out as a BPF ring buffer: the reader's and writer's positions, the data twice."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ring")
        os.truncate(self.descriptor, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.position = 0

    def write(self, record: bytes, flags: int = 0) -> int:
        """Add a record; return its position."""
        begin = self.position
        self.flag(begin, record, flags)
        self.position += 8 + (len(record) + 7) // 8 * 8
        os.pwrite(self.descriptor, struct.pack("=Q", self.position), mmap.PAGESIZE)
        return begin

    def flag(self, begin: int, record: bytes, flags: int) -> None:
        raw = struct.pack("=II", len(record) | flags, 0) + record
        for index, byte in enumerate(raw):
            place = (begin + index) % SIZE
            for copy in (place, place + SIZE):
                os.pwrite(self.descriptor, bytes([byte]), 2 * mmap.PAGESIZE + copy)

    @property
    def read(self) -> int:
        """The reader's position."""
        return int(struct.unpack("=Q", os.pread(self.descriptor, 8, 0))[0])


@pytest.fixture
def written() -> Iterator[Written]:
    written = Written()
    yield written
    os.close(written.descriptor)


@pytest.fixture
def ring(written: Written) -> Iterator[Ring]:
    ring = Ring(written.descriptor, SIZE)
    yield ring
    ring.close()


def test_ring_buffer_records_are_read_once_in_order(written: Written, ring: Ring) -> None:
    assert ring.take() == []
    written.write(b"one")
    written.write(b"longer than a word")
    assert ring.take() == [b"one", b"longer than a word"]
    assert written.read == written.position
    assert ring.take() == []


def test_an_unfinished_ring_record_delays_later_records(written: Written, ring: Ring) -> None:
    written.write(b"one")
    begin = written.write(b"two", BUSY)
    written.write(b"three")
    assert ring.take() == [b"one"]
    assert written.read == begin
    written.flag(begin, b"two", 0)
    assert ring.take() == [b"two", b"three"]


def test_a_discarded_ring_buffer_record_is_skipped(written: Written, ring: Ring) -> None:
    written.write(b"dropped", DISCARDED)
    written.write(b"kept")
    assert ring.take() == [b"kept"]


def test_a_record_wrapping_around_the_buffer_is_read_whole(written: Written, ring: Ring) -> None:
    written.write(bytes(SIZE - 24))
    ring.take()
    written.write(b"0123456789abcdef" * 4)
    assert ring.take() == [b"0123456789abcdef" * 4]
