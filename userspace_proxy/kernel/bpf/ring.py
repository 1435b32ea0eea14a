"""Reads a ring buffer that BPF programs write.

Rule 1: there is one reader, and only it advances the read position.
Rule 2: a record is read once its writer has committed it; records after it wait until then.

The kernel writes a record before it marks the record as committed. No memory barriers are needed,
because two reads here are further apart in time than accesses that a processor reorders.

Source: Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c.
"""

from __future__ import annotations

import mmap

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER_BYTES = 8


class Ring:
    """The reader of one ring buffer; the map's descriptor is readable while there are records.

    Args:
        descriptor: The map's descriptor; the caller closes it.
        size: The number of entries of the map, which is its size in bytes.

    Raises:
        OSError: The kernel refused to map the buffer.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._ours = mmap.mmap(descriptor, page)
        # The kernel maps the data twice in a row, so no record is split.
        self._theirs = mmap.mmap(descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        self._read = memoryview(self._ours).cast("Q")
        whole = memoryview(self._theirs)
        self._written = whole[:page].cast("Q")
        self._data = whole[page:]
        self._lengths = self._data.cast("I")
        whole.release()

    def take(self) -> list[bytes]:
        """Return the committed records, oldest first, and free their space."""
        taken = []
        at, end = self._read[0], self._written[0]
        while at < end:
            place = at % self._size
            length = self._lengths[place // 4]
            if length & _BUSY:
                break
            begin = place + _HEADER_BYTES
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                taken.append(bytes(self._data[begin : begin + size]))
            at += _HEADER_BYTES + (size + 7) // 8 * 8
        self._read[0] = at
        return taken

    def close(self) -> None:
        """Unmap the buffer; unread records stay in the map."""
        for view in (self._read, self._written, self._lengths, self._data):
            view.release()
        self._ours.close()
        self._theirs.close()
