"""Draws plans of the control half: everything about a run that is decided before it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random

from msgspec import structs

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Handling, Hold
from userspace_proxy.model.serving import Serving

from ..network import LATE, REFUSES, SILENT, UNREACHABLE
from ..plan import Event
from .drain_situations import ASKED_TWICE, DrainSituations
from .machine import Speed
from .message_situations import (
    LONG_DRAIN,
    LONG_DRAIN_S,
    SEVERAL,
    SMALL,
    MessageSituations,
    draw_limits,
    draw_version,
)
from .plan import (
    BREAK,
    CLIENT,
    CRASH,
    END,
    ENDPOINTS,
    HAND_OVER,
    KILL,
    LATE_S,
    NETWORKS,
    NO_START,
    REMOVE,
    RENAME,
    SERVE,
    SHORT,
    STOP,
    SWAP,
    TAKE,
    Fate,
    Plan,
    ServicePlan,
)
from .return_situations import ReturnSituations

_FEATURES = (
    "deaths of workers",
    "deaths of control processes",
    "kills",
    "stops",
    "crashes",
    "hand-overs",
    "failed starts",
    "orderly ends",
    "changes",
    "late changes",
    "bad endpoints",
    "failing endpoints",
    "removals",
    "swaps",
    "affinity",
    "holds",
    "deaths while clients wait",
    "UDP",
    "slow",
    "small buffers",
    "few descriptors",
    "other numbers of workers",
    "long stops",
)


_ENDS = {"crashes": CRASH, "hand-overs": HAND_OVER, "orderly ends": END}
# Less than clients of a node at rest have.
_HOLD_S = 2.0
# How many plans have shortages and ports of other programs, and the first of their clients.
_SHORT, _FIRST_OWN = 0.3, 500
_LACKING_S = (0.2, 0.8, 2.5)
_LACKING = (
    ("socket", errno.EMFILE),
    ("socket", errno.ENOBUFS),
    ("bind", errno.ENOMEM),
    ("listen", errno.ENOMEM),
    ("listen", errno.ENOBUFS),
    ("rendezvous", errno.EMFILE),
)
"""Calls that fail, and with which errors."""
# How many plans have changes of the node's networks, changes in quick succession, a control process
# that starts late, and none in the end, which takes ten minutes.
_NETWORKS, _STORMS, _ABSENT, _ABANDONED = 0.3, 0.1, 0.1, 0.01
# And two workers that are missing for long, beside one that runs.
_NONE_FOR_LONG = 0.04
# And a Service with affinity that refuses for a moment, and a worker that dies while the control
# process doesn't read.
_REFUSED, _LAST_WORDS = 0.06, 0.06
# And a worker that answers the next control process late, and connections over two reports.
_LATE_ONES, _LONG, _LONG_S, _FIRST_LONG = 0.05, 0.15, 12.0, 950
_STORM, _MISSING = "storms", "two are missing"
_FIRST_OF_STORM, _FIRST_OF_MISSING, _FIRST_LAST = 600, 800, 900
_ABSENCES_S = (1.0, 6.0)
# The first ejection of an endpoint.
_EJECTED_S = 5.0


def make_plan(seed: int) -> Plan:
    rng = Random(seed)
    features = frozenset(f for f in _FEATURES if rng.random() < 0.4)
    calm_at = rng.choice([2.0, 6.0, 20.0])
    services = tuple(_draw_service(rng, n, features) for n in range(rng.randint(1, 4)))
    if "failing endpoints" in features:
        # All of them must be tried where several fail, so nothing else happens to this one.
        services = (_draw_failing(rng, services[0]), *services[1:])
    events = [*_Drawing(rng, services, features, calm_at).events()]
    # Of its own, so that plans without them stay what they were.
    own = Random(f"{seed}: what lacks")
    if own.random() < _SHORT:
        features |= {"what lacks"}
        events += _Drawing(own, services, features, calm_at, _FIRST_OWN).what_lacks()
    own = Random(f"{seed}: more")
    for name, more in _draw_more(own, services, features, calm_at):
        features |= {name}
        events += more
    own_of_messages = Random(f"{seed}: messages")
    of_drains, of_returns = Random(f"{seed}: drains"), Random(f"{seed}: returns")
    for names, more in (
        *MessageSituations(own_of_messages, services, calm_at).all(),
        *DrainSituations(of_drains, services, calm_at).all(),
        *ReturnSituations(of_returns, services, calm_at).all(),
    ):
        features |= names
        events += more
    has_fates = "deaths of workers" in features
    speed = _draw_speed(rng, own, own_of_messages, features)
    workers = _draw_workers(rng, own_of_messages, features)
    descriptors = rng.choice([10, 16, 24]) if "few descriptors" in features else 1000
    drain_s = rng.choice([0.0, 1.0, 5.0])
    return Plan(
        seed,
        features,
        workers=workers,
        descriptors=descriptors,
        drain_s=drain_s if LONG_DRAIN not in features else LONG_DRAIN_S,
        speed=speed,
        services=services,
        events=tuple(sorted(events, key=lambda event: event.at)),
        worker_fates=_draw_fates(rng, 8, 0.5) if has_fates else {},
        control_fates=_draw_fates(rng, 4, 0.7) if "deaths of control processes" in features else {},
        absence_s=own.choice(_ABSENCES_S) if own.random() < _ABSENT else 0.0,
        is_abandoned=own.random() < _ABANDONED,
        limits=draw_limits(own_of_messages, features),
        speaks_more=draw_version(own_of_messages),
        calm_at=calm_at,
    )


def _draw_speed(
    rng: Random, own: Random, own_of_messages: Random, features: frozenset[str]
) -> Speed:
    speed = Speed(
        latency_s=rng.choice([0.01, 0.05]) if "slow" in features else 0.0005,
        start_s=rng.choice([0.2, 1.0]) if "slow" in features else 0.05,
        room=rng.choice([64, 300, 1000]) if "small buffers" in features else 65536,
    )
    if _STORM in features:
        # So that changes wait in the control process, too.
        speed = replace(speed, room=own.choice([64, 300]))
    if SMALL in features:
        speed = replace(speed, room=own_of_messages.choice([64, 300]))
    if ASKED_TWICE in features:
        speed = replace(speed, latency_s=0.05)
    return speed


def _draw_workers(rng: Random, own: Random, features: frozenset[str]) -> tuple[int, ...]:
    """Return how many workers each control process has."""
    if _MISSING in features:
        return (3,)
    workers = tuple(
        rng.choice([1, 2, 2, 3] if "failing endpoints" not in features else [2, 2, 3])
        for _ in range(3 if "other numbers of workers" in features else 1)
    )
    return (own.choice([2, 3]),) if SEVERAL in features else workers


def _draw_more(
    rng: Random, services: Sequence[ServicePlan], features: frozenset[str], calm_at: float
) -> Iterator[tuple[str, Iterable[Event]]]:
    """Yield situations that few plans have, by their names, with their events."""
    drawing = partial(_Drawing, rng, services, features, calm_at)
    situations: Sequence[tuple[float, str, Callable[[], Iterable[Event]]]] = (
        (_NETWORKS, "networks", partial(_draw_networks, rng, calm_at)),
        (_STORMS, _STORM, drawing(_FIRST_OF_STORM).storms),
        (_REFUSED, "affinity beside a refusal", drawing().refusal),
        (_LATE_ONES, "late predecessors", drawing().late_predecessors),
        (_LONG, "long connections", drawing(_FIRST_LONG).long_connections),
        (_LAST_WORDS, "last words", drawing(_FIRST_LAST).last_words),
        (_NONE_FOR_LONG, _MISSING, drawing(_FIRST_OF_MISSING).two_missing),
    )
    for share, name, draw in situations:
        if rng.random() < share:
            yield name, draw()


def _draw_networks(rng: Random, calm_at: float) -> Iterator[Event]:
    """Yield networks of clients that keep their addresses, of which no client of a plan is."""
    for _ in range(rng.randint(1, 5)):
        at = round((calm_at + LATE_S - 1.0) * rng.random(), 4)
        places = {f"10.9.{n}.0/24": rng.choice([1, 2]) for n in range(3) if rng.random() < 0.6}
        yield Event(at, NETWORKS, (None if rng.random() < 0.2 else places,))


def _draw_fates(rng: Random, count: int, share: float) -> dict[int, Fate]:
    fates = {}
    for number in range(count):
        if rng.random() < share:
            is_message = rng.random() < 0.7
            fates[number] = Fate(is_message, rng.randint(1, rng.choice([6, 20, 60])))
    return fates


def _draw_service(rng: Random, number: int, features: frozenset[str]) -> ServicePlan:
    is_udp = "UDP" in features and rng.random() < 0.6
    ports = tuple(SocketAddress("10.1.0.1", 30000 + 10 * number + n) for n in range(2))
    serving = _draw_serving(rng, features)
    return ServicePlan(Protocol.UDP if is_udp else Protocol.TCP, ports, serving, _draw_places(rng))


def _draw_failing(rng: Random, planned: ServicePlan) -> ServicePlan:
    """Return a Service that more endpoints serve, of which some fail."""
    endpoints = tuple(rng.sample(ENDPOINTS, rng.randint(2, 4)))
    return replace(planned, serving=structs.replace(planned.serving, endpoints=endpoints))


def _draw_places(rng: Random) -> tuple[int, ...]:
    return rng.choice([(0,), (1,), (0, 1)])


def _draw_serving(rng: Random, features: frozenset[str]) -> Serving:
    count = rng.choice([0, 1, 1, 2, 3])
    affinity = 60 if "affinity" in features and rng.random() < 0.6 else None
    is_holding = "holds" in features and rng.random() < 0.5
    handling = Handling(hold=Hold(_HOLD_S) if is_holding else None)
    return Serving(tuple(rng.sample(ENDPOINTS, count)), affinity, handling=handling)


class _Drawing:
    """Draws the events of one plan."""

    def __init__(
        self,
        rng: Random,
        services: Sequence[ServicePlan],
        features: frozenset[str],
        calm_at: float,
        first_client: int = 0,
    ) -> None:
        self._rng = rng
        self._features = features
        self._calm_at = calm_at
        self._numbers = range(len(services))
        self._clients = count(first_client)

    def events(self) -> Iterator[Event]:
        """Yield them, in any order."""
        for _ in range(self._rng.randint(3, 15)):
            yield self._client(self._at())
        yield from self._changes()
        yield from self._deaths()
        yield from self._shortages()
        yield from self._waits()
        yield from self._late_changes()
        yield from self._failures()

    def _failures(self) -> Iterator[Event]:
        """Yield endpoints that fail while clients of the first Service come all the time."""
        rng = self._rng
        for _ in self._times("failing endpoints", 2):
            at, seconds = self._calm_at * rng.random() * 0.7, rng.choice([0.3, 2.0, 7.0])
            for endpoint in rng.sample(ENDPOINTS, rng.choice([1, 1, 2, 2, 5])):
                how = rng.choice([REFUSES, REFUSES, UNREACHABLE, SILENT, LATE])
                yield Event(at, BREAK, (endpoint, how, seconds))
            for n in range(40):
                # More often than ejections end, of all of which each worker gets a part.
                yield Event(
                    round(at + 0.3 * n + 0.1 * rng.random(), 4),
                    CLIENT,
                    (next(self._clients), 0, 0.0),
                )

    def _at(self) -> float:
        # Many at about the same time.
        rng = self._rng
        return round(rng.choice([0.0, 0.3, rng.random()]) * self._calm_at + rng.random() * 0.2, 4)

    def _times(self, feature: str, most: int) -> range:
        return range(self._rng.randint(1, most) if feature in self._features else 0)

    def _client(self, at: float) -> Event:
        rng = self._rng
        hold_s = rng.choice([0.0, 0.05, 2.0])
        return Event(at, CLIENT, (next(self._clients), rng.choice(self._numbers), hold_s))

    def _serve(self, at: float, numbers: Sequence[int]) -> Event:
        rng = self._rng
        serving = _draw_serving(rng, self._features)
        return Event(at, SERVE, (rng.choice(numbers), serving, _draw_places(rng)))

    def _kill(self, at: float) -> Event:
        return Event(at, KILL, (self._rng.randint(0, 3),))

    def _changes(self) -> Iterator[Event]:
        rng, numbers = self._rng, self._numbers
        for _ in self._times("changes", 10):
            yield self._serve(self._at(), numbers)
        for _ in self._times("removals", 4):
            number, at = rng.choice(numbers), self._at()
            yield Event(at, rng.choice([REMOVE, RENAME]), (number,))
            if rng.random() < 0.7:
                yield self._serve(at + rng.choice([0.0, 0.001, 0.1]), [number])
        for _ in self._times("swaps", 3):
            two, at = (rng.choice(numbers), rng.choice(numbers)), self._at()
            yield Event(at, SWAP, two)
            yield self._serve(at + rng.choice([0.0, 0.001, 0.1]), two)

    def _deaths(self) -> Iterator[Event]:
        rng = self._rng
        for _ in self._times("kills", 4):
            yield self._kill(self._at())
        for _ in self._times("stops", 3):
            is_control, is_hang = rng.random() < 0.3, rng.random() < 0.5
            longest_s = 6.0 if "long stops" in self._features else 3.0
            seconds = rng.choice([0.01, 0.1, 0.5, longest_s])
            yield Event(self._at(), STOP, (is_control, rng.randint(0, 3), seconds, is_hang))
        for feature, what in _ENDS.items():
            for _ in self._times(feature, 2):
                yield Event(self._at(), what)

    def _shortages(self) -> Iterator[Event]:
        rng = self._rng
        for _ in self._times("failed starts", 2):
            at = self._at()
            yield Event(at, NO_START, (rng.choice([1, 4, 8, 8]),))
            yield self._kill(at + 0.001)
            for _ in range(4):
                yield self._client(at + 0.1 + rng.random())
        for _ in self._times("bad endpoints", 3):
            how = rng.choice([REFUSES, UNREACHABLE, SILENT, LATE])
            at, seconds = self._at(), rng.choice([0.1, 1.0, 5.0])
            yield Event(at, BREAK, (rng.choice(ENDPOINTS), how, seconds))
            yield from self._burst(at, seconds)

    def _burst(self, at: float, seconds: float) -> Iterator[Event]:
        """Yield clients that find that an endpoint fails, and that it is back."""
        rng = self._rng
        for _ in range(rng.choice([0, 3, 8])):
            yield self._client(at + 0.001 + 0.05 * rng.random())
        for _ in range(rng.choice([0, 4, 12])):
            yield self._client(at + max(seconds, _EJECTED_S) + rng.random())

    def _waits(self) -> Iterator[Event]:
        """Yield clients that find no endpoint and wait, and deaths of their workers."""
        rng = self._rng
        for _ in self._times("deaths while clients wait", 1):
            at, number = max(0.0, self._calm_at - 7.0) * rng.random(), rng.choice(self._numbers)
            # Workers report every five seconds.
            serving = Serving((), handling=Handling(hold=Hold(8.0)))
            yield Event(at, SERVE, (number, serving, (0, 1)))
            for _ in range(6):
                client = (next(self._clients), number, 0.0)
                yield Event(at + 0.01 + 0.5 * rng.random(), CLIENT, client)
            yield self._kill(at + 1.0 + 5.4 * rng.random())
            if rng.random() < 0.4:
                yield Event(at + 1.0 + 2.0 * rng.random(), REMOVE, (number,))
            yield self._serve(at + 6.5, [number])

    def what_lacks(self) -> Iterator[Event]:
        """Yield shortages, and ports of other programs, while listeners open."""
        rng = self._rng
        if rng.random() < 0.3:
            yield from self._missing_workers()
        for _ in range(rng.randint(1, 4)):
            number, at, seconds = rng.choice(self._numbers), self._at(), rng.choice(_LACKING_S)
            call, error, spared = *rng.choice(_LACKING), rng.choice([0, 0, 1, 2, 3])
            if rng.random() < 0.3:
                yield Event(at, TAKE, (number, rng.randrange(2), seconds))
            else:
                # What refuses, or is gone, has to listen again.
                before = max(0.0, at - 0.3)
                none = Serving((), handling=Handling())
                yield Event(before, SERVE, (number, none, _draw_places(rng)))
                yield Event(at, SHORT, (call, error, spared, seconds))
            if call == "rendezvous":
                yield self._kill(at + 0.01)
            for _ in range(rng.choice([1, 1, 3])):
                yield self._serve(at + 0.02 + 0.3 * rng.random(), [number])
            yield self._client(at + 0.1 + seconds * rng.random())
            yield self._client(at + seconds + 1.5)

    def _missing_workers(self) -> Iterator[Event]:
        """Yield the death of a worker, and of the one that stands in, while none can start."""
        rng = self._rng
        at = max(0.0, self._calm_at - 8.0) * rng.random() + 0.5
        yield Event(at, NO_START, (rng.choice([12, 20]),))
        yield self._kill(at + 0.01)
        yield self._kill(at + rng.choice([0.1, 0.5, 1.0]))
        for _ in range(12):
            yield self._client(at + 0.2 + 1.8 * rng.random())

    def refusal(self) -> Iterator[Event]:
        """Yield that a Service with affinity has no endpoint for a moment, and then nothing."""
        rng = self._rng
        at, number, places = self._calm_at + LATE_S, rng.choice(self._numbers), _draw_places(rng)
        for n in range(3):
            endpoints = () if n == 1 else tuple(rng.sample(ENDPOINTS, 3))
            yield Event(at + 0.3 * n, SERVE, (number, Serving(endpoints, 60), places))

    def late_predecessors(self) -> Iterator[Event]:
        """Yield that a worker is stopped while a control process dies, and the next one asks."""
        at = round(self._calm_at * self._rng.random(), 4)
        yield Event(at, STOP, (False, self._rng.randint(0, 3), 6.0, False))
        yield Event(at + 0.02, CRASH)

    def long_connections(self) -> Iterator[Event]:
        """Yield clients whose connections last over two reports."""
        for _ in range(3):
            client = (next(self._clients), self._rng.choice(self._numbers), _LONG_S)
            yield Event(round((self._calm_at + LATE_S) * self._rng.random(), 4), CLIENT, client)

    def last_words(self) -> Iterator[Event]:
        """Yield that workers find endpoints broken and die, before the control process reads it."""
        rng = self._rng
        at = self._calm_at * rng.random() * 0.9
        yield Event(at, STOP, (True, 0, 1.0, False))
        for endpoint in ENDPOINTS:
            yield Event(at, BREAK, (endpoint, REFUSES, 1.0))
        for n in range(6):
            yield self._client(at + 0.02 + 0.05 * n)
        for n in range(2):
            yield Event(at + 0.5 + 0.1 * n, KILL, (0,))

    def two_missing(self) -> Iterator[Event]:
        """Yield the death of the first worker, and of the next, which stands in for it."""
        at = max(0.0, self._calm_at - 10.0) * self._rng.random() + 0.5
        yield Event(at, NO_START, (20,))
        for n in range(2):
            yield Event(at + 0.01 + 0.3 * n, KILL, (0,))
        two = self._rng.choices(self._numbers, k=2)
        yield Event(at + 0.6, SWAP, (two[0], two[1]))
        for n in range(12):
            yield self._client(at + 0.4 + 0.1 * n)

    def storms(self) -> Iterator[Event]:
        """Yield changes that wait for workers that were stopped, and clients beside them."""
        rng = self._rng
        two = rng.choices(self._numbers, k=2)
        for n in range(rng.choice([1, 2, 3])):
            at = 0.3 + (self._calm_at + LATE_S - 4.0) * (n + rng.random()) / 3
            for number in range(rng.randint(1, 2)):
                yield Event(at, STOP, (False, number, rng.choice([0.1, 0.5, 1.5]), False))
            for n in range(rng.randint(4, 12)):
                soon = round(at + 0.01 + 0.005 * n, 4)
                if rng.random() < 0.4:
                    yield Event(soon, SWAP, (two[0], two[1]))
                else:
                    yield self._serve(soon, two)
                client = (next(self._clients), rng.choice(two), 0.0)
                yield Event(round(soon + 0.2 * rng.random(), 4), CLIENT, client)

    def _late_changes(self) -> Iterator[Event]:
        """Yield changes that the same control process sees the end of, and deaths beside them."""
        rng = self._rng
        for _ in self._times("late changes", 6):
            at = self._calm_at + LATE_S - 1.0 - 0.1 * rng.random()
            if rng.random() < 0.3:
                yield Event(at, REMOVE, (rng.choice(self._numbers),))
            else:
                yield self._serve(at, self._numbers)
            if rng.random() < 0.4:
                yield self._kill(at + rng.choice([0.0, 0.0004, 0.001]))
