"""Chooses the substitute that serves the clients of a missing worker until its replacement runs.

    worker 0 dies ──▶ begin(0): worker 1 also receives worker 0's sockets
    its replacement has opened them ──▶ end(0): worker 1 closes its copies

Rule 1: no accept queue is lost: the control process keeps each socket open, and a substitute closes
its copy after the replacement has opened its own copy.
Rule 2: messages to a substitute identify listeners by numbers below 0, which no listener has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Substitutes:
    """The substitutes among the workers of one plane.

    Args:
        counts: The number of listeners of each worker, which the caller keeps up to date.
        limit: The number of descriptors that a worker may use.
    """

    def __init__(self, counts: Sequence[int], limit: int) -> None:
        self._counts = counts
        self._limit = limit
        self._by_missing: dict[int, int] = {}

    def begin(self, missing: int, running: Sequence[int]) -> int | None:
        """Choose a running worker as the substitute for a missing worker, and return it.

        Returns None if the missing worker already has a substitute, if no worker is running, or if
        listeners would take more than half of each worker's descriptors.
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
        """End a substitution and return the substitute; None if the worker had none."""
        return self._by_missing.pop(missing, None)

    def worker_ended(self, worker: int) -> None:
        """End the substitutions by a worker that has exited."""
        kept = {m: substitute for m, substitute in self._by_missing.items() if substitute != worker}
        self._by_missing = kept

    def holders(self, worker: int, listener: int) -> Iterator[tuple[int, int]]:
        """Yield a worker and its substitute, if any, each with its number for the listener."""
        yield worker, listener
        if worker in self._by_missing:
            yield self._by_missing[worker], self.number(worker, listener)

    def number(self, missing: int, listener: int) -> int:
        """Return the number under which a substitute holds a missing worker's listener."""
        return -(listener * len(self._counts) + missing)

    @staticmethod
    def missing(number: int, workers: int) -> int | None:
        """Return the worker whose listener a substitute holds; None if it is the holder's own."""
        return None if number >= 0 else -number % workers

    def listener(self, number: int) -> int:
        """Return the listener's own number for the number in a message."""
        return number if number >= 0 else -number // len(self._counts)
