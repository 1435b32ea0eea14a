"""Decides which proxy port number to try next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class PortPool:
    """The numbers of a range, both ends included, the most recently freed last.

    A number that was taken isn't offered before it is given back; whether it is free in the kernel
    shows when it is bound.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._next = first
        self._taken: set[int] = set()
        self._spared: frozenset[int] = frozenset()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def candidates(self, preferred: int | None = None) -> Iterator[int]:
        """Yield each number that isn't taken once, the preferred one first.

        The caller takes the first that it can bind.
        """
        if preferred is not None and preferred in self and preferred not in self._taken:
            yield preferred
        size = self.last - self.first + 1
        start = self._next - self.first
        for step in range(size):
            port = self.first + (start + step) % size
            if port not in self._taken and port not in self._spared and port != preferred:
                yield port

    def take(self, port: int) -> None:
        """Note that a number is in use; the next search begins after it."""
        self._taken.add(port)
        self.skip(port)

    def skip(self, port: int) -> None:
        """Begin the next search after a number, as another program uses it."""
        self._next = port + 1 if self.first <= port < self.last else self.first

    def spare(self, ports: Iterable[int]) -> None:
        """Offer these numbers only where they are preferred; replaces those of the last call."""
        self._spared = frozenset(ports)

    def give(self, port: int) -> None:
        """Note that a number is free. Idempotent."""
        self._taken.discard(port)
