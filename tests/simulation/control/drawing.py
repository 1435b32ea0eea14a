"""Draws plans of the control half: everything about a run that is decided before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from random import Random

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Handling, Hold
from userspace_proxy.model.serving import Serving

from ..network import REFUSES, UNREACHABLE
from .machine import Speed
from .plan import (
    BREAK,
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
    SWAP,
    Event,
    Fate,
    Plan,
    ServicePlan,
)

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
    "bad endpoints",
    "removals",
    "swaps",
    "affinity",
    "holds",
    "UDP",
    "slow",
    "small buffers",
    "few descriptors",
    "other numbers of workers",
    "long stops",
)


# Less than clients of a node at rest have.
_HOLD_S = 2.0


def make_plan(seed: int) -> Plan:
    """Draw a plan."""
    rng = Random(seed)
    features = frozenset(f for f in _FEATURES if rng.random() < 0.4)
    calm_at = rng.choice([2.0, 6.0, 20.0])
    services = tuple(_draw_service(rng, n, features) for n in range(rng.randint(1, 4)))
    has_fates = "deaths of workers" in features
    speed = Speed(
        latency_s=rng.choice([0.01, 0.05]) if "slow" in features else 0.0005,
        start_s=rng.choice([0.2, 1.0]) if "slow" in features else 0.05,
        room=rng.choice([64, 300, 1000]) if "small buffers" in features else 65536,
    )
    return Plan(
        seed,
        features,
        workers=tuple(
            rng.choice([1, 2, 2, 3])
            for _ in range(3 if "other numbers of workers" in features else 1)
        ),
        descriptors=rng.choice([10, 16, 24]) if "few descriptors" in features else 1000,
        drain_s=rng.choice([0.0, 1.0, 5.0]),
        speed=speed,
        services=services,
        events=tuple(sorted(_draw_events(rng, services, features, calm_at), key=lambda e: e.at)),
        worker_fates=_draw_fates(rng, 8, 0.5) if has_fates else {},
        control_fates=_draw_fates(rng, 4, 0.7) if "deaths of control processes" in features else {},
        calm_at=calm_at,
    )


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


def _draw_places(rng: Random) -> tuple[int, ...]:
    return rng.choice([(0,), (1,), (0, 1)])


def _draw_serving(rng: Random, features: frozenset[str]) -> Serving:
    count = rng.choice([0, 1, 1, 2, 3])
    affinity = 60 if "affinity" in features and rng.random() < 0.6 else None
    is_holding = "holds" in features and rng.random() < 0.5
    handling = Handling(hold=Hold(_HOLD_S) if is_holding else None)
    return Serving(tuple(rng.sample(ENDPOINTS, count)), affinity, handling=handling)


def _draw_events(
    rng: Random, services: Sequence[ServicePlan], features: frozenset[str], calm_at: float
) -> list[Event]:
    def at() -> float:
        # Many at about the same time.
        return round(rng.choice([0.0, 0.3, rng.random()]) * calm_at + rng.random() * 0.2, 4)

    def drawn(feature: str, most: int) -> range:
        return range(rng.randint(1, most) if feature in features else 0)

    numbers, clients = range(len(services)), count()

    def draw_client(when: float) -> Event:
        args = (next(clients), rng.choice(numbers), rng.choice([0.0, 0.05, 2.0]))
        return Event(when, CLIENT, args)

    events = [draw_client(at()) for _ in range(rng.randint(3, 15))]
    for _ in drawn("changes", 10):
        args = (rng.choice(numbers), _draw_serving(rng, features), _draw_places(rng))
        events.append(Event(at(), SERVE, args))
    for _ in drawn("removals", 4):
        number, when = rng.choice(numbers), at()
        events.append(Event(when, rng.choice([REMOVE, RENAME]), (number,)))
        if rng.random() < 0.7:
            args = (number, _draw_serving(rng, features), _draw_places(rng))
            events.append(Event(when + rng.choice([0.0, 0.001, 0.1]), SERVE, args))
    for _ in drawn("swaps", 3):
        numbers_of_two, when = (rng.choice(numbers), rng.choice(numbers)), at()
        events.append(Event(when, SWAP, numbers_of_two))
        args = (rng.choice(numbers_of_two), _draw_serving(rng, features), _draw_places(rng))
        events.append(Event(when + rng.choice([0.0, 0.001, 0.1]), SERVE, args))
    events += [Event(at(), KILL, (rng.randint(0, 3),)) for _ in drawn("kills", 4)]
    for _ in drawn("stops", 3):
        is_control, is_hang = rng.random() < 0.3, rng.random() < 0.5
        seconds = rng.choice([0.01, 0.1, 0.5, 6.0 if "long stops" in features else 3.0])
        events.append(Event(at(), STOP, (is_control, rng.randint(0, 3), seconds, is_hang)))
    events += [
        Event(at(), CRASH, (rng.choice([0.001, 0.1, 1.0, 5.0]),)) for _ in drawn("crashes", 2)
    ]
    events += [
        Event(at(), HAND_OVER, (rng.choice([0.0, 0.01, 0.2]),)) for _ in drawn("hand-overs", 3)
    ]
    events += [Event(at(), END) for _ in drawn("orderly ends", 2)]
    for _ in drawn("failed starts", 2):
        when = at()
        events += [
            Event(when, NO_START, (rng.randint(1, 8),)),
            Event(when + 0.001, KILL, (rng.randint(0, 3),)),
            *(draw_client(when + 0.1 + rng.random()) for _ in range(4)),
        ]
    for _ in drawn("bad endpoints", 3):
        how, seconds = rng.choice([REFUSES, UNREACHABLE]), rng.choice([0.1, 1.0, 5.0])
        events.append(Event(at(), BREAK, (rng.choice(ENDPOINTS), how, seconds)))
    return events
