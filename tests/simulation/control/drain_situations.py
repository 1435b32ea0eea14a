"""Draws situations of drains and hand-overs, by a random source that other plans don't share.

Each has clients whose connections last over the drain, and a worker that starts, is stopped, is
asked twice, or answers late meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from userspace_proxy.model.serving import Serving

from ..plan import Event
from .plan import (
    CLIENT,
    CRASH,
    END,
    ENDPOINTS,
    HAND_OVER,
    KILL,
    NO_START,
    REMOVE,
    RENAME,
    SERVE,
    STOP,
)
from .situations import Situations

ASKED_TWICE = "predecessors are asked twice"
"""A feature of plans with slow processes, so that they are stopped between two messages."""

# Less, about as long, and longer than a control process that ends waits for them.
_STAY_S = (0.4, 0.95, 1.5, 3.0)


class DrainSituations(Situations):
    """Draws the situations of one plan."""

    FIRST_CLIENT = 2_600

    def all(self) -> Iterator[tuple[frozenset[str], list[Event]]]:
        """Yield the names and events of those that this plan has."""
        situations: Sequence[tuple[float, str, Callable[[], Iterator[Event]]]] = (
            (0.06, "Services close", self.closing),
            (0.06, "ends while a worker starts", self.ends_while_one_starts),
            (0.08, ASKED_TWICE, self.asked_twice),
            (0.05, "answers before it is relieved", self.answers_before_relief),
            (0.25, "replies are under way", self.late_replies),
            (0.05, "ends before a worker answers", self.ends_before_an_answer),
        )
        for share, name, draw in situations:
            if self._rng.random() < share:
                yield frozenset((name,)), list(draw())

    def _at(self) -> float:
        return round(0.5 + max(0.0, self._calm_at - 1.5) * self._rng.random(), 4)

    def _clients_before(self, at: float, number: int) -> Iterator[Event]:
        """Yield clients of a Service that are served just before a moment, and stay."""
        rng = self._rng
        serving = Serving(tuple(rng.sample(ENDPOINTS, rng.randint(1, 3))))
        yield Event(round(at - 0.3, 4), SERVE, (number, serving, (0, 1)))
        for _ in range(rng.randint(2, 6)):
            client = (next(self._clients), number, rng.choice(_STAY_S))
            yield Event(round(at - 0.2 * rng.random(), 4), CLIENT, client)

    def late_replies(self) -> Iterator[Event]:
        """Yield clients of UDP whose endpoints reply once their worker drains."""
        rng, udp = self._rng, sorted({*self._numbers}.difference(self._tcp))
        for number in udp[:1]:
            at = self._at()
            serving = Serving(tuple(rng.sample(ENDPOINTS, rng.randint(1, 3))))
            yield Event(round(at - 0.3, 4), SERVE, (number, serving, (0, 1)))
            yield Event(at, rng.choice([CRASH, HAND_OVER]))
            for _ in range(rng.randint(4, 8)):
                waits_s = round(0.1 + 1.9 * rng.random(), 4)
                client = (next(self._clients), number, waits_s)
                yield Event(round(at - 0.2 * rng.random(), 4), CLIENT, client)

    def closing(self) -> Iterator[Event]:
        """Yield Services that leave, or lose their endpoints, while clients are served."""
        rng = self._rng
        for _ in range(rng.randint(1, 3)):
            at, number = self._at(), rng.choice(self._tcp or self._numbers)
            yield from self._clients_before(at, number)
            if rng.random() < 0.4:
                yield Event(at, SERVE, (number, Serving(), (0,)))
            else:
                yield Event(at, rng.choice([REMOVE, RENAME]), (number,))
            if rng.random() < 0.4:
                yield Event(round(at + 0.3 * rng.random(), 4), rng.choice([END, CRASH]))

    def ends_while_one_starts(self) -> Iterator[Event]:
        """Yield that a control process ends, or dies, just after a worker has died."""
        rng, at = self._rng, self._at()
        yield from self._clients_before(at, rng.choice(self._tcp or self._numbers))
        if rng.random() < 0.3:
            yield Event(at, STOP, (False, rng.randint(0, 3), rng.choice([0.3, 0.8]), False))
        for n in range(rng.randint(1, 2)):
            yield Event(at + 0.001 * n, KILL, (rng.randint(0, 3),))
        what = rng.choice([END, END, CRASH, HAND_OVER])
        yield Event(round(at + 0.01 + 0.1 * rng.random(), 4), what)

    def asked_twice(self) -> Iterator[Event]:
        """Yield that control processes die after they have asked workers that are stopped.

        A worker that has the proof of the first one, unread, hangs up on the second.
        """
        rng, at = self._rng, self._at()
        yield from self._clients_before(at, rng.choice(self._tcp or self._numbers))
        yield Event(at, CRASH)
        for number in range(3):
            # When the next control process asks, and has its proof asked for, more or less.
            soon = rng.choice([-0.01, 0.1 + 0.15 * rng.random(), 0.1 + 0.15 * rng.random()])
            seconds = rng.choice([0.6, 1.0])
            yield Event(round(at + soon, 4), STOP, (False, number, seconds, False))
        for n in range(rng.randint(1, 2)):
            yield Event(round(at + 0.3 + 0.25 * n + 0.1 * rng.random(), 4), CRASH)

    def ends_before_an_answer(self) -> Iterator[Event]:
        """Yield that a control process ends that waited without effect for a worker's answer."""
        rng, at = self._rng, round(0.5 + max(0.0, self._calm_at - 8.0) * self._rng.random(), 4)
        yield from self._clients_before(at, rng.choice(self._tcp or self._numbers))
        stop = (False, rng.randint(0, 3), round(4.2 + 1.6 * rng.random(), 4), False)
        yield Event(at, STOP, stop)
        yield Event(round(at + 0.02, 4), CRASH)
        yield Event(round(at + 1.0 + 4.0 * rng.random(), 4), END)

    def answers_before_relief(self) -> Iterator[Event]:
        """Yield that a worker answers too late to be adopted, and while no other one can start.

        It may die before it is to drain.
        """
        rng, number = self._rng, self._rng.randint(0, 3)
        at = round(0.5 + max(0.0, self._calm_at - 8.0) * rng.random(), 4)
        yield from self._clients_before(at, rng.choice(self._tcp or self._numbers))
        yield Event(at, STOP, (False, number, round(4.3 + 0.4 * rng.random(), 4), False))
        yield Event(at + 0.02, CRASH)
        yield Event(at + 0.03, NO_START, (rng.choice([6, 12]),))
        if rng.random() < 0.4:
            yield Event(round(at + 4.9 + 0.3 * rng.random(), 4), KILL, (number,))
        for n in range(3):
            client = (next(self._clients), rng.choice(self._numbers), 0.0)
            yield Event(round(at + 5.2 + 0.1 * n, 4), CLIENT, client)
