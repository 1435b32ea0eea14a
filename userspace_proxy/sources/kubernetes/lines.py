"""Splits a stream of bytes into lines of bounded length."""

from __future__ import annotations

from ...errors import UserspaceProxyError

LINE_BYTES_MAX = 16 << 20
"""etcd takes objects of 1.5 MiB; as JSON, and with limits raised, some multiples of that."""


class LineTooLong(UserspaceProxyError):
    """A line is longer than the bound; the stream is of no use any more."""


class LineSplitter:
    """Gives out whole lines; the rest waits for the bytes to come.

    Args:
        limit_bytes: The longest line that is kept.
    """

    def __init__(self, *, limit_bytes: int = LINE_BYTES_MAX) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._waiting_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without their ends or empty ones.

        The cost is that of the bytes, however many chunks a line comes in.

        Raises:
            LineTooLong: What has come of a line is longer than the bound.
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
