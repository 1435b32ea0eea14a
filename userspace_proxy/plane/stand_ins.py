"""Which worker serves the clients of one that is missing, meanwhile.

    worker 0 dies ──▶ begin(0): worker 1 is sent worker 0's sockets, too
    its successor has opened them ──▶ end(0): worker 1 closes its copies

Rule 1: no queue is closed: the control process keeps each socket, and a stand-in closes its copy
after the successor has opened its own.
Rule 2: messages to a stand-in have numbers below 0, which no listener has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class StandIns:
    """The stand-ins among the workers of one plane.

    ``counts`` are the listeners of each worker, as they are now; ``limit`` is how many descriptors
    a worker may use.
    """

    def __init__(self, counts: Sequence[int], limit: int) -> None:
        self._counts = counts
        self._limit = limit
        self._by_missing: dict[int, int] = {}

    def begin(self, missing: int, running: Sequence[int]) -> int | None:
        """Choose one of the running workers for a missing one; returns it.

        Returns None if there is one already, or if listeners would be more than half of the
        descriptors of each.
        """
        if missing in self._by_missing or not running:
            return None
        loads = {worker: self._counts[worker] for worker in running}
        for other, worker in self._by_missing.items():
            if worker in loads:
                loads[worker] += self._counts[other]
        chosen = min(loads, key=loads.__getitem__)
        if loads[chosen] + self._counts[missing] > self._limit // 2:
            return None
        self._by_missing[missing] = chosen
        return chosen

    def end(self, missing: int) -> int | None:
        """Return the stand-in of a worker that isn't missing any more; None if it had none."""
        return self._by_missing.pop(missing, None)

    def worker_ended(self, worker: int) -> None:
        """Note that a worker can't be a stand-in any more."""
        kept = {m: stand_in for m, stand_in in self._by_missing.items() if stand_in != worker}
        self._by_missing = kept

    def holders(self, worker: int, listener: int) -> Iterator[tuple[int, int]]:
        """Yield a worker and its stand-in, each with its number of a listener of the worker."""
        yield worker, listener
        if worker in self._by_missing:
            yield self._by_missing[worker], self.number(worker, listener)

    def number(self, missing: int, listener: int) -> int:
        """Return a stand-in's number of a listener of a missing worker."""
        return -(listener * len(self._counts) + missing)

    @staticmethod
    def missing(number: int, workers: int) -> int | None:
        """Return which of so many workers a stand-in has a listener for; None: its own."""
        return None if number >= 0 else -number % workers

    def listener(self, number: int) -> int:
        """Return the number of the listener that a worker has under this number."""
        return number if number >= 0 else -number // len(self._counts)
