"""Splits a stream of bytes into lines of bounded length."""

from __future__ import annotations

from ...errors import UserspaceProxyError

LINE_BYTES_MAX = 16 << 20
"""etcd stores objects up to 1.5 MiB; as JSON, and with raised limits, they may be larger."""


class LineTooLong(UserspaceProxyError):
    """A line is longer than the limit; the rest of the stream can't be used."""


class LineSplitter:
    """Returns whole lines and keeps the start of the next one."""

    def __init__(self, *, limit_bytes: int = LINE_BYTES_MAX) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._waiting_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without line ends; empty lines are omitted.

        The cost is proportional to the bytes, not to the number of chunks in a line.

        Raises:
            LineTooLong: A line is longer than the limit, even if it isn't complete yet.
        """
        *complete, rest = chunk.split(b"\n")
        lines = []
        for part in complete:
            self._keep(part)
            line = b"".join(self._parts)
            self._parts.clear()
            self._waiting_bytes = 0
            if line := line.removesuffix(b"\r"):
                lines.append(line)
        self._keep(rest)
        return lines

    def _keep(self, part: bytes) -> None:
        self._waiting_bytes += len(part)
        if self._waiting_bytes > self._limit_bytes:
            raise LineTooLong(f"a line is longer than {self._limit_bytes} bytes")
        if part:
            self._parts.append(part)
