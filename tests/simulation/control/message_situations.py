"""Draws situations of messages between processes, by a random source that other plans don't share.

Each situation makes sure that messages wait, are read late or in parts, or concern a worker that is
missing, and that something changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from userspace_proxy.model.handling import Handling, Hold
from userspace_proxy.model.serving import Serving

from ..network import REFUSES
from ..plan import Event
from .disturbances import ABANDON, NONSENSE, SCRAPE, UNASKED
from .plan import (
    BREAK,
    CLIENT,
    CRASH,
    ENDPOINTS,
    KILL,
    LATE_S,
    NO_START,
    REMOVE,
    RENAME,
    SERVE,
    STOP,
    SWAP,
    TAKE,
)
from .situations import Situations

SEVERAL = "several workers"
SMALL = "messages wait"
"""Features of plans with such situations: two or three workers, and small buffers."""

LONG_DRAIN = "a long drain"
"""And those with predecessors that drain for longer than they may be alone."""
LONG_DRAIN_S, _ALONE_S = 20.0, 11
LATE_PINS = "late pins"
"""And those with pins that arrive one by one, some after new workers have started."""
_PINS_PAUSE_S = 0.02
# Their clients stay for longer than that.
_STAYS_S = 12.0

_LIMITS = (
    ("_ENDPOINTS_A_MESSAGE", 1),
    ("_GROUPS_PER_ITERATION", 1),
    ("_SOCKETS_A_MESSAGE", 1),
    ("_PINS_A_MESSAGE", 1),
    ("KNOWN_MAX", 1),
    # In the channel: what one call reads.
    ("_READ_BYTES", 200),
)
_LIMITED, _SPEAKING_MORE = 0.25, 0.1


def draw_limits(rng: Random, features: frozenset[str]) -> dict[str, float]:
    """Return other values of constants of the product: so messages are divided, and times short."""
    limits: dict[str, float] = {"ORPHAN_S": _ALONE_S} if LONG_DRAIN in features else {}
    if LATE_PINS in features:
        limits |= {"_PINS_A_MESSAGE": 1, "_PINS_PAUSE_S": _PINS_PAUSE_S}
    if rng.random() < _LIMITED:
        limits |= {name: value for name, value in _LIMITS if rng.random() < 0.5}
    return limits


def draw_version(rng: Random) -> bool:
    """Return whether workers send the next control process messages that it doesn't know."""
    return rng.random() < _SPEAKING_MORE


class MessageSituations(Situations):
    """Draws the situations of one plan."""

    FIRST_CLIENT = 1_800

    def all(self) -> Iterator[tuple[frozenset[str], list[Event]]]:
        """Yield the features and events of those that this plan has."""
        situations: Sequence[tuple[float, str, Callable[[], Iterator[Event]], frozenset[str]]] = (
            (0.12, "scrapes", self.scrapes, frozenset()),
            (0.04, "reports in a row", self.reports_in_a_row, frozenset((LATE_PINS,))),
            (0.05, "gives up", self.gives_up, frozenset()),
            (0.05, "nonsense", self.nonsense, frozenset()),
            (0.08, "unasked messages", self.unasked, frozenset()),
            (0.08, "changes beside a stand-in", self.beside_a_stand_in, frozenset((SEVERAL,))),
            (0.06, "kept changes", self.kept_changes, frozenset((SMALL,))),
            (0.06, "an address is added", self.added_address, frozenset((SEVERAL,))),
            (0.06, "waits and ejections pass", self.passing, frozenset()),
            (0.04, LONG_DRAIN, self.long_drain, frozenset()),
            (0.04, "hangs again", self.hangs_again, frozenset()),
            (0.04, LATE_PINS, self.late_pins, frozenset()),
            (0.08, "another program tries", self.others_try, frozenset()),
        )
        for share, name, draw, features in situations:
            if self._rng.random() < share:
                yield features | {name}, list(draw())

    def _at(self) -> float:
        return round(0.3 + max(0.0, self._calm_at - 1.0) * self._rng.random(), 4)

    def _client(self, at: float, number: int, hold_s: float = 0.0) -> Event:
        return Event(round(at, 4), CLIENT, (next(self._clients), number, hold_s))

    def _serving(self, most: int = 3, affinity_s: int | None = None) -> Serving:
        rng = self._rng
        return Serving(tuple(rng.sample(ENDPOINTS, rng.randint(1, most))), affinity_s)

    def scrapes(self) -> Iterator[Event]:
        """Yield readers of counters, some beside a worker that is stopped or dies."""
        rng = self._rng
        for _ in range(rng.randint(2, 5)):
            at = self._at() + rng.choice([0.0, LATE_S])
            if rng.random() < 0.4:
                seconds = rng.choice([0.1, 0.5, 1.5])
                yield Event(at - 0.001, STOP, (False, rng.randint(0, 3), seconds, False))
            if rng.random() < 0.3:
                yield Event(at + 0.001, KILL, (rng.randint(0, 3),))
            for n in range(rng.randint(1, 3)):
                yield Event(round(at + 0.05 * n * rng.random(), 4), SCRAPE)

    def reports_in_a_row(self) -> Iterator[Event]:
        """Yield that a stopped worker is asked for many reports, and its control process dies."""
        rng, at = self._rng, self._at()
        # Nothing is read after the last pins.
        yield from self._pinned(at - 0.3, rng.choice(self._tcp or self._numbers))
        for number in range(3):
            yield Event(at, STOP, (False, number, rng.choice([0.3, 0.6]), False))
        for n in range(12):
            yield Event(round(at + 0.01 + 0.005 * n, 4), SCRAPE)
        yield Event(at + 0.1, CRASH)

    def gives_up(self) -> Iterator[Event]:
        """Yield that a control process ends its workers and exits, mostly while one is missing."""
        rng, at = self._rng, self._at()
        if rng.random() < 0.8:
            yield Event(at, NO_START, (rng.choice([1, 2, 4]),))
            yield Event(at + 0.001, KILL, (rng.randint(0, 3),))
        yield Event(round(at + 0.4 * rng.random(), 4), ABANDON, (rng.choice([0.0, 0.3, 1.0]),))

    def nonsense(self) -> Iterator[Event]:
        """Yield workers that send what can't be read."""
        for _ in range(self._rng.randint(1, 3)):
            at = self._at() + self._rng.choice([0.0, LATE_S - 1.0])
            yield Event(at, NONSENSE, (self._rng.randint(0, 3), self._rng.randint(0, 3)))

    def unasked(self) -> Iterator[Event]:
        """Yield workers that send what nothing asked for."""
        for _ in range(self._rng.randint(3, 12)):
            at = self._at() + self._rng.choice([0.0, LATE_S])
            yield Event(at, UNASKED, (self._rng.randint(0, 3), self._rng.randint(0, 99)))

    def _change(self, at: float) -> Event:
        rng = self._rng
        what, number = (
            rng.choice([SERVE, SERVE, SERVE, SWAP, REMOVE, RENAME]),
            rng.choice(self._numbers),
        )
        if what == SERVE:
            serving = self._serving() if rng.random() < 0.7 else Serving()
            return Event(at, SERVE, (number, serving, rng.choice([(0,), (1,), (0, 1)])))
        return Event(at, what, (number, rng.choice(self._numbers)) if what == SWAP else (number,))

    def beside_a_stand_in(self) -> Iterator[Event]:
        """Yield changes and clients while a worker is missing for some seconds."""
        rng = self._rng
        at = round(0.5 + max(0.0, self._calm_at - 5.0) * rng.random(), 4)
        yield Event(at, NO_START, (rng.choice([5, 7, 20]),))
        yield Event(at + 0.01, KILL, (rng.randint(0, 3),))
        for _ in range(rng.randint(2, 8)):
            soon = round(at + 0.05 + 2.0 * rng.random(), 4)
            yield self._change(soon)
            yield self._client(soon + 0.1 * rng.random(), rng.choice(self._numbers))
        if rng.random() < 0.3:
            yield Event(round(at + 2.0 * rng.random(), 4), KILL, (rng.randint(0, 3),))

    def kept_changes(self) -> Iterator[Event]:
        """Yield that a listener leaves a group whose changes wait, before it has no endpoint."""
        rng = self._rng
        # The same two each time, so that a listener that has moved leaves again.
        one, other = (rng.choice(self._tcp or self._numbers) for _ in range(2))
        for _ in range(rng.randint(1, 4)):
            at = round((self._calm_at + LATE_S - 2.0) * rng.random() + 0.3, 4)
            for number in range(3):
                yield Event(at, STOP, (False, number, rng.choice([0.05, 0.2]), False))
            for n, serving in enumerate((self._serving(), self._serving(), self._serving())):
                yield Event(at + 0.002 + 0.002 * n, SERVE, (one, serving, (0, 1)))
            yield Event(at + 0.01, SWAP, (one, other))
            if rng.random() < 0.5:
                yield Event(at + 0.012, SERVE, (one, Serving(), (0, 1)))
            else:
                yield Event(at + 0.012, rng.choice([REMOVE, RENAME]), (one,))
            yield self._client(at + 0.015, other)
            yield Event(at + 0.3, SERVE, (one, self._serving(), (0, 1)))

    def added_address(self) -> Iterator[Event]:
        """Yield that a Service with affinity has one more address after a crash."""
        rng, number = self._rng, self._rng.choice(self._numbers)
        serving, at = Serving(tuple(rng.sample(ENDPOINTS, 3)), 60), self._calm_at - 1.5
        yield Event(at, SERVE, (number, serving, (0,)))
        yield Event(at + 0.1, KILL, (0,))
        yield Event(at + 1.0, CRASH)
        yield Event(self._calm_at + LATE_S + 1.0, SERVE, (number, serving, (0, 1)))

    def long_drain(self) -> Iterator[Event]:
        """Yield a crash just after clients that stay for longer than workers may be alone."""
        at = round(0.3 + max(0.0, self._calm_at - 1.5) * self._rng.random(), 4)
        for n in range(6):
            number = self._rng.choice(self._tcp or self._numbers)
            yield self._client(at + 0.05 * n, number, _STAYS_S)
        yield Event(at + 0.4, CRASH)

    def late_pins(self) -> Iterator[Event]:
        """Yield that a Service with affinity goes and comes while its pins arrive."""
        rng, number = self._rng, self._rng.choice(self._tcp or self._numbers)
        serving, at = self._serving(affinity_s=60), self._at()
        yield from self._pinned(at, number)
        yield Event(at + 0.8, CRASH)
        for n in range(3):
            again_at = round(at + 0.85 + 0.02 * n + 0.02 * rng.random(), 4)
            yield Event(again_at, rng.choice([REMOVE, RENAME]), (number,))
            yield Event(again_at + rng.choice([0.001, 0.01]), SERVE, (number, serving, (0, 1)))

    def others_try(self) -> Iterator[Event]:
        """Yield another program that binds the port of a Service that refuses, if it can."""
        rng = self._rng
        for number in rng.sample(self._numbers, min(2, len(self._numbers))):
            at = self._at() + rng.choice([0.0, LATE_S - 2.0])
            yield Event(at, SERVE, (number, Serving(), (0, 1)))
            yield Event(round(at + 0.01 + 0.5 * rng.random(), 4), TAKE, (number, 0, 0.5))
            yield Event(at + 1.2, SERVE, (number, self._serving(), (0, 1)))

    def _pinned(self, at: float, number: int) -> Iterator[Event]:
        """Yield clients of a Service with affinity, which workers have pins of."""
        yield Event(at, SERVE, (number, self._serving(affinity_s=60), (0, 1)))
        for n in range(24):
            yield self._client(at + 0.05 + 0.01 * n, number)

    def hangs_again(self) -> Iterator[Event]:
        """Yield that the worker that was started last hangs, and its successor, too."""
        at = round(0.5 + max(0.0, self._calm_at - 7.0) * self._rng.random(), 4)
        for n in range(2):
            yield Event(at + 3.0 * n, STOP, (False, -1, 6.0, True))

    def passing(self) -> Iterator[Event]:
        """Yield clients that wait, and endpoints that are ejected, over some reports."""
        rng, number = self._rng, self._rng.choice(self._tcp or self._numbers)
        at = round(0.2 + max(0.0, self._calm_at - 8.0) * rng.random(), 4)
        holding = Handling(hold=Hold(8.0))
        yield Event(at, SERVE, (number, Serving(handling=holding), (0, 1)))
        for n in range(6):
            yield self._client(at + 0.1 + 0.8 * n * rng.random(), number)
        for n in range(4):
            yield Event(round(at + 1.5 * n + rng.random(), 4), SCRAPE)
        if rng.random() < 0.5:
            yield Event(round(at + 5.0 * rng.random(), 4), KILL, (rng.randint(0, 3),))
        yield Event(at + 6.0, SERVE, (number, Serving(tuple(ENDPOINTS), handling=holding), (0, 1)))
        for endpoint in rng.sample(ENDPOINTS, 2):
            yield Event(at + 6.0, BREAK, (endpoint, REFUSES, 3.0))
        for n in range(8):
            yield self._client(at + 6.1 + 0.4 * n, number)
        for n in range(3):
            yield Event(round(at + 7.0 + 2.0 * n * rng.random(), 4), SCRAPE)
