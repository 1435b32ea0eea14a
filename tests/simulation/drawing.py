"""Draws a plan from a seed.

Each seed has only some features, so that rare features are combined in small worlds. Every third
seed has only one feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from userspace_proxy.model import Balance, Handling, Hold, Protocol, ProxyProtocol, SocketAddress
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .actors import CLOSE, FINISH, READ, RESET, SEND, STALL, URGENT, Step
from .families import with_families
from .kernel import FAULTS
from .network import ANSWERS, LATE, REFUSES, SILENT, UNREACHABLE, UNROUTABLE
from .plan import Event, Node, Plan, ServicePlan
from .situations import SCRIPTS, SITUATIONS, Situations
from .tcp_situations import with_tcp_situations
from .udp_situations import with_udp_situation

FEATURES = (
    "affinity",
    "bulk",
    "churn",
    "dead endpoints",
    "hold",
    "lacking",
    "late",
    "limit",
    "memory",
    "preserve",
    "proxy header",
    "read header",
    "removal",
    "shedding",
    "sides",
    "stop",
    "udp",
    "urgent",
    "weights",
)
_SHARE = 0.35
# One seed of this many has a single feature.
_ALONE_EVERY = 3
# The shortest timeout of idle connections.
_LONG_S = 15.0
# Situations need many clients, so they are rarer than features.
_SITUATION_SHARE = 0.15
_INSIDE = (
    ("10.3.0.0/17",),
    ("10.3.200.0/24",),
    ("198.51.100.0/30", "10.3.0.0/30"),
    ("10.3.0.1/32", "10.3.200.1/32"),
    ("10.3.0.0/16", "198.51.100.0/24"),
    (),
)
"""The networks whose clients are inside the cluster, of which each Service gets one set."""

Pool = tuple[SocketAddress, ...]


def make_plan(seed: int) -> Plan:
    return with_families(with_udp_situation(with_tcp_situations(_Drawing(seed).plan())))


class _Drawing:
    """The choices for one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = Random(seed)
        self._features = frozenset(
            [name for name in FEATURES if self._is(_SHARE)]
            + [name for name in SITUATIONS if self._is(_SITUATION_SHARE)]
        )
        if seed % _ALONE_EVERY == 0:
            self._features = frozenset((self._rng.choice((*FEATURES, *SITUATIONS)),))
        self._node = self._draw_node()
        self._lasts_s = self._rng.choice((2.0, 5.0, 15.0, 40.0))
        if "return" in self._features:
            # The pause lasts as long as two ejections.
            self._lasts_s = self._rng.choice((12.0, 20.0))
        if "slow" in self._features:
            self._lasts_s = 20.0
        self._ips = [
            f"10.3.{self._rng.choice((0, 200))}.{n}" for n in range(1, self._rng.randint(2, 6))
        ]

    def plan(self) -> Plan:
        rng = self._rng
        numbers = range(rng.choice((1, 1, 2, 2, 3)))
        services = [self._draw_service(number, Protocol.TCP) for number in numbers]
        if "udp" in self._features:
            services.append(self._draw_service(len(services), Protocol.UDP))
        events = [
            *self._draw_clients(services),
            *self._draw_changes(services),
            *self._draw_failures(services),
            *self._draw_troubles(),
            *Situations(
                rng, self._features, services, self._ips, self._lasts_s, self._draw_steps
            ).events(),
        ]
        scripts = {
            endpoint: tuple(self._draw_steps() for _ in range(rng.randint(1, 4)))
            for service in services
            for endpoint in service.pool
        }
        for name in sorted(SCRIPTS.keys() & self._features):
            scripts.update(dict.fromkeys(services[0].pool, (SCRIPTS[name],)))
        return Plan(
            self._seed,
            self._features,
            self._node,
            tuple(services),
            tuple(sorted(events, key=lambda event: event.at)),
            scripts,
            {
                endpoint: (rng.choice((0.5, 2.5, 20.0)), rng.choice((0, 0, 1, 6)))
                for service in services
                for endpoint in service.pool
                if service.protocol is Protocol.UDP
            },
            self._lasts_s,
        )

    def _is(self, share: float) -> bool:
        return self._rng.random() < share

    def _moment(self) -> float:
        return round(self._lasts_s * self._rng.random(), 4)

    def _times(self, feature: str, most: int) -> range:
        return range(self._rng.randint(1, most) if feature in self._features else 0)

    def _draw_node(self) -> Node:
        rng, features = self._rng, self._features
        # A socket buffer can hold at least one datagram.
        buffer_bytes = rng.choice((64, 100, 400, 2000))
        is_bulk = "bulk" in features
        processes = rng.choice((1, 1, 1, 2, 3))
        return Node(
            buffer_bytes=buffer_bytes,
            # Smaller than a socket buffer, as in the data plane, which reads again after a full
            # read.
            bulk_bytes=max(8, buffer_bytes // 4),
            pipe_bytes=rng.choice((64, 300, 1500)),
            max_pipes=rng.choice((1, 2, 8)) if is_bulk else 0,
            descriptor_limit=rng.choice((24, 34, 50)) if "shedding" in features else 1000,
            inbox_bytes=rng.choice((50, 400, 3000)),
            outbox_bytes=rng.choice((60, 500, 3000)),
            segment_bytes=rng.choice((10, 200, 1500)),
            delay_s=rng.choice((0.0002, 0.002, 0.02)),
            loss=rng.choice((0.0, 0.0, 0.1)),
            preemption=rng.choice((0.0, 0.05, 0.3)),
            spurious=rng.choice((0.0, 0.1)),
            timers_first=self._is(0.5),
            tcp_idle_s=rng.choice((15.0, 30.0, 400.0)),
            half_closed_s=rng.choice((10.0, 400.0)),
            udp_idle_s=rng.choice((None, 3.0)),
            max_flows=rng.choice((3, 16, 1000)),
            is_preserving="preserve" in features,
            reads_headers="read header" in features,
            rounds=rng.choice((1, 2, 8)),
            finishes_first=rng.choice(("client", "endpoint", "both")),
            resets_every=rng.choice((0, 0, 2, 3)),
            ends=rng.choice(("calm",) * 6 + ("drain", "abrupt")),
            processes=processes,
            index=rng.randrange(processes),
        )

    def _draw_service(self, number: int, protocol: Protocol) -> ServicePlan:
        count = self._rng.randint(1, 4)
        pool = tuple(SocketAddress(f"10.2.{number}.{n + 1}", 80 + n) for n in range(count))
        is_wildcard = protocol is Protocol.UDP and self._is(0.5)
        address = ("0.0.0.0" if is_wildcard else f"10.96.0.{number + 1}", 1000 + number)
        return ServicePlan(protocol, address, pool, self._draw_serving(pool, protocol))

    def _draw_serving(self, pool: Pool, protocol: Protocol) -> Serving:
        rng, features = self._rng, self._features
        count = len(pool) if self._is(0.6) else rng.randint(0, len(pool))
        endpoints = tuple(rng.sample(pool, count)) if count < len(pool) else pool
        has_weights = "weights" in features and self._is(0.7)
        has_standbys = "weights" in features and self._is(0.3)
        has_sides = "sides" in features and self._is(0.8)
        return Serving(
            endpoints,
            affinity_timeout_s=rng.choice((1, 5, 100)) if "affinity" in features else None,
            outside=tuple(e for e in endpoints if self._is(0.6)) if has_sides else None,
            inside=rng.choice(_INSIDE) if has_sides else (),
            handling=self._draw_handling(protocol),
            weights=tuple((e, rng.choice((1, 2, 5))) for e in endpoints) if has_weights else (),
            standbys=tuple((e, 1) for e in endpoints if has_standbys and self._is(0.4)),
        )

    def _draw_handling(self, protocol: Protocol) -> Handling:
        rng, features = self._rng, self._features
        holds = "hold" in features and self._is(0.8)
        has_limit = "limit" in features and self._is(0.8)
        is_tcp = protocol is Protocol.TCP
        sends_header = "proxy header" in features and is_tcp and self._is(0.7)
        balance = rng.choice((Balance.ROUND_ROBIN, *Balance))
        starts_slowly = "weights" in features and balance is not Balance.SOURCE_HASH
        return Handling(
            balance=balance,
            keeps_clients=self._is(0.8),
            seed=rng.randrange(4),
            hold=Hold(rng.choice((1.0, 5.0, 30.0)), rng.choice((1, 2, 5, 100))) if holds else None,
            slow_start_s=rng.choice((0.0, 0.0, 4.0, 10.0)) if starts_slowly else 0.0,
            max_connections=rng.choice((1, 2, 3)) if has_limit else None,
            removal_s=rng.choice((0.0, 1.0, 5.0)) if "removal" in features else None,
            proxy_protocol=rng.choice(tuple(ProxyProtocol)) if sends_header else None,
        )

    def _draw_steps(self) -> tuple[Step, ...]:
        """Return the script of a party; most scripts close in an orderly way."""
        rng = self._rng
        if self._lasts_s > _LONG_S and self._is(0.06):
            # The party pauses between sends, for longer than the idle timeout.
            return tuple((round(9 * rng.random(), 3), SEND, rng.randint(1, 9)) for _ in range(9))
        largest = rng.choice((20, 300, 3 * self._node.buffer_bytes, 4000))
        pace_s = rng.choice((0.001, 0.01, 0.2))
        whats = [SEND] * 5 + [READ] * 3 + [STALL] + [FINISH] * self._is(0.5)
        if self._is(0.3):
            whats += [RESET, CLOSE]
        if "urgent" in self._features:
            whats += [URGENT] * 2
        steps = []
        for _ in range(rng.randint(0, 9)):
            what = rng.choice(whats)
            gap_s = rng.choice((0.3, 3.0, 20.0)) if what == STALL else pace_s * 2 * rng.random()
            steps.append((round(gap_s, 5), what, rng.randint(1, largest)))
        return tuple(steps)

    def _draw_clients(self, services: Sequence[ServicePlan]) -> Iterator[Event]:
        rng, ips = self._rng, self._ips
        tcp = [n for n, service in enumerate(services) if service.protocol is Protocol.TCP]
        udp = [n for n, service in enumerate(services) if service.protocol is Protocol.UDP]
        is_burst = "shedding" in self._features or self._is(0.4)
        begins = [self._moment() for _ in range(rng.randint(1, 4))]
        for number in range(rng.randint(8, 26) if is_burst else rng.randint(1, 8)):
            at = rng.choice(begins) + number * 0.0005 if is_burst else self._moment()
            how = rng.choice(("whole", "whole", "split", "bad", "none"))
            args = (number, rng.choice(tcp), rng.choice(ips), self._draw_steps(), how)
            yield Event(at, plans.CLIENT, args)
        for number in udp:
            for _ in range(rng.randint(1, 25)):
                client = rng.choice(ips), rng.choice((40000, 40001))
                hops = rng.choice((1, 2)) if self._is(0.05) else rng.choice((64, 64, 63))
                yield Event(
                    self._moment(), plans.ASK, (number, client, hops, rng.choice((1, 1, 2)))
                )

    def _draw_changes(self, services: Sequence[ServicePlan]) -> Iterator[Event]:
        rng = self._rng
        for _ in self._times("churn", 8):
            number = rng.randrange(len(services))
            serving = self._draw_serving(services[number].pool, services[number].protocol)
            yield Event(self._moment(), plans.UPDATE, (number, serving))
        if "churn" in self._features and self._is(0.4):
            number, at = rng.randrange(len(services)), self._moment()
            yield Event(at, plans.CLOSE_LISTENER, (number,))
            yield Event(at + rng.choice((0.0, 0.5)), plans.OPEN_LISTENER, (number,))

    def _draw_failures(self, services: Sequence[ServicePlan]) -> Iterator[Event]:
        rng, features = self._rng, self._features
        bad = [REFUSES, UNREACHABLE, SILENT, UNROUTABLE] if "dead endpoints" in features else []
        bad += [LATE] if "late" in features else []
        for _ in range(rng.randint(1, 8) if bad else 0):
            number = rng.randrange(len(services))
            endpoint = rng.choice(services[number].pool)
            mix = tuple(rng.choice((ANSWERS, *bad)) for _ in range(rng.randint(1, 3)))
            yield Event(self._moment() * self._is(0.5), plans.BEHAVE, (endpoint, mix))
            if self._is(0.5):
                yield Event(self._moment(), plans.BEHAVE, (endpoint, (ANSWERS,)))
            if self._is(0.3):
                how = rng.choice(("failed", "silent", "answered"))
                yield Event(self._moment(), plans.ELSEWHERE, (number, endpoint, how))

    def _draw_troubles(self) -> Iterator[Event]:
        rng = self._rng
        for _ in range(3):
            yield Event(self._moment(), plans.REPORT)
        for _ in self._times("lacking", 4):
            args = rng.choice(tuple(FAULTS)), rng.choice((0.001, 0.05, 1.0))
            yield Event(self._moment(), plans.LACK, args)
        for _ in self._times("stop", 3):
            what = rng.choice((plans.STOP, plans.SKIP))
            yield Event(self._moment(), what, (rng.choice((0.05, 1.5, 6.0)),))
        for _ in self._times("memory", 3):
            yield Event(self._moment(), plans.MEMORY, (rng.choice((0.5, 0.88, 0.95, 1.0)),))
