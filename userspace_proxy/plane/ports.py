"""Decides which proxy port number to try next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator


class PortPool:
    """The numbers of a range, both ends included, the most recently freed or tried last.

    A number that was taken isn't offered before it is given back; whether it is free in the kernel
    shows when it is bound. A search costs as much as the numbers that it offers: nothing if all
    are taken.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._free = OrderedDict.fromkeys(range(first, last + 1))
        self._spared: frozenset[int] = frozenset()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    @property
    def free(self) -> Collection[int]:
        """The numbers that aren't taken."""
        return self._free.keys()

    def candidates(self, preferred: int | None = None) -> Iterator[int]:
        """Yield each number that isn't taken once, the preferred one first.

        The caller takes the first that it can bind. The next search begins after those that were
        offered: other programs use them.
        """
        if preferred is not None and preferred in self._free:
            yield preferred
        for _ in range(len(self._free)):
            port = next(iter(self._free))
            self._free.move_to_end(port)
            if port not in self._spared and port != preferred:
                yield port

    def take(self, port: int) -> None:
        """Note that a number is in use."""
        self._free.pop(port, None)

    def spare(self, ports: Iterable[int]) -> None:
        """Offer these numbers only where they are preferred; replaces those of the last call."""
        self._spared = frozenset(ports)

    def give(self, port: int) -> None:
        """Note that a number is free. Idempotent."""
        if port in self:
            self._free[port] = None
