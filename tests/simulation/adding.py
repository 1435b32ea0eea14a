"""Adds clients and changes of one Service to a drawn plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from userspace_proxy.model import Protocol

from . import plan as plans
from .actors import Step
from .plan import Event, Plan

# Added clients have higher numbers than this, and drawn clients lower ones.
_FIRST_CLIENT = 200


class Adding:
    """Draws the clients and changes that are added to one plan."""

    def __init__(self, rng: Random, plan: Plan) -> None:
        self.rng = rng
        self.plan = plan
        numbers = (e.args[0] for e in plan.events if e.what == plans.CLIENT)
        self._clients = max(_FIRST_CLIENT, *numbers, 0)

    def number(self, protocol: Protocol) -> int:
        """Return the number of a random Service of a protocol."""
        numbers = [n for n, each in enumerate(self.plan.services) if each.protocol is protocol]
        return self.rng.choice(numbers)

    def two(self) -> tuple[int, int]:
        """Return the numbers of two random TCP Services."""
        services = enumerate(self.plan.services)
        tcp = [n for n, each in services if each.protocol is Protocol.TCP]
        one, other = self.rng.sample(tcp, 2)
        return one, other

    def client(self, number: int, at: float, ip: str, steps: Sequence[Step]) -> Event:
        """Return the event that a client dials a Service."""
        self._clients += 1
        args = (self._clients, number, ip, tuple(steps), "whole")
        return Event(round(at, 4), plans.CLIENT, args)

    def others(self, number: int) -> Sequence[Event]:
        """Return all events of the plan except the clients and changes of a TCP Service."""
        where = {plans.CLIENT: 1, plans.UPDATE: 0}
        events = self.plan.events
        return [e for e in events if e.what not in where or e.args[where[e.what]] != number]

    def with_events(
        self, feature: str, events: Iterator[Event], lasts_s: float, kept: Sequence[Event]
    ) -> Plan:
        """Return the plan with only the given events, and a calm end at ``lasts_s`` or later."""
        plan = self.plan
        return replace(
            plan,
            features=plan.features | {feature},
            events=tuple(sorted((*kept, *events), key=lambda event: event.at)),
            calm_at=max(plan.calm_at, lasts_s),
        )
