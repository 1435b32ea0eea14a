"""What each way of balancing promises about the order of its choices (docs/services.md, Balancing).

    round-robin           the next one in the order of the plan; with weights, shares of all turns
    least-connections     none has fewer connections, for its weight; equal ones in turn
    power-of-two-choices  another one has as many, unless it is the only one
    random                each has its share
    source-hash           the one that hashes prefer, which are part of the interface (ADR 0041)

Rule 1: a change of what there is to choose from begins a new count; it excuses no choice that can
be judged alone.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from typing import NamedTuple

from userspace_proxy.model import Balance, SocketAddress

from .model import Kind, Model, Option, Side, Span

# With more of them in a list, the order changes as ejected ones return (ADR 0051, ``level``).
_SHORT = 16
# So many rounds of others' turns are too many, with some for one that returns to the end of a list.
_ROUNDS = 2.0 + 1e-6
# A share of all that many draws has no endpoint with a smaller chance than this.
_IMPOSSIBLE = 1e-9
_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio."""


class Verdict(NamedTuple):
    """What an oracle finds about a choice; ``is_right`` is None if it can't judge it."""

    oracle: str
    is_right: bool | None
    why: str = ""


class _Count:
    """Turns since the last change of what there is to choose from."""

    def __init__(self) -> None:
        self.among: object = None
        self.turns: Counter[SocketAddress] = Counter()
        self.expected: dict[SocketAddress, Span] = {}
        self.parts: dict[SocketAddress, float] = {}
        """Each one's part of the weights at the last turn."""
        self.changes: dict[SocketAddress, float] = {}
        """By how much the parts have changed from turn to turn, all in all."""


class Turns:
    """The turns of one side's strategy.

    Args:
        model: Has the loads and the weights.
        side: Whose turns they are.
    """

    def __init__(self, model: Model, side: Side) -> None:
        self._model = model
        self._side = side
        self._last: set[tuple[tuple[SocketAddress, ...], SocketAddress]] = set()
        """What may have been the last turn: the endpoints of its priority, and whose it was."""
        self._count = _Count()
        self._missed: dict[SocketAddress, float] = {}
        """Rounds of others' turns since each was usable, or had its own."""
        self._level: tuple[SocketAddress, ...] = ()
        """The list whose turns these are."""

    def restart(self) -> None:
        """Begin anew: another strategy, or turns that can't be seen."""
        self._last = set()
        self._count = _Count()
        self._missed.clear()

    @property
    def is_weighted(self) -> bool:
        """Whether turns depend on weights, now or later."""
        serving = self._model.serving
        return bool(serving.weights) or serving.handling.slow_start_s > 0

    @property
    def _balance(self) -> Balance:
        handling = self._model.serving.handling
        if handling.max_connections is not None and handling.balance is Balance.ROUND_ROBIN:
            # The place that becomes free is then that of the endpoint with the most room.
            return Balance.LEAST_CONNECTIONS
        return handling.balance

    def judge(self, client: str, option: Option, chosen: SocketAddress, at: Span) -> list[Verdict]:
        """Return what is promised about a choice, before it is noted."""
        usable = [endpoint for endpoint in option.level if endpoint in option.endpoints]
        if len(usable) < 2:
            return []
        if len(option.level) > _SHORT:
            self._last = set()
        if self._balance is Balance.SOURCE_HASH:
            return [self._judge_preference(client, usable, chosen, at)]
        if self._balance is Balance.RANDOM or (
            self._balance is Balance.ROUND_ROBIN and self.is_weighted
        ):
            return []
        if self._balance is Balance.ROUND_ROBIN:
            return self._judge_turn(option.level, usable, chosen)
        least = {e: self._least(e, at) for e in usable}
        most = {e: self._most(e, at) for e in usable}
        if self._balance is Balance.POWER_OF_TWO_CHOICES:
            is_right = any(least[chosen] <= most[e] for e in usable if e != chosen)
            return [Verdict("less loaded of two", is_right, f"{chosen} has the most")]
        return self._judge_least(option.level, usable, chosen, least, most)

    def may_have_taken(self, options: list[Option], chosen: SocketAddress) -> None:
        """Note a choice that was a turn in some of the options."""
        turns = {(option.level, chosen) for option in options if option.kind is Kind.TURN}
        if len(turns) == len(options):
            self._last = turns
        elif self._last:
            self._last |= turns
        self._count = _Count()
        self._missed.pop(chosen, None)

    def took(self, client: str, option: Option, chosen: SocketAddress, at: Span) -> list[Verdict]:
        """Note a choice; return what is promised about the number of turns."""
        usable = [endpoint for endpoint in option.level if endpoint in option.endpoints]
        self._last = {(option.level, chosen)}
        is_weighted_turn = self._balance is Balance.ROUND_ROBIN and self.is_weighted
        if self._balance is Balance.ROUND_ROBIN and not is_weighted_turn:
            return self._judge_missed(usable, chosen, option.level)
        self._missed.clear()
        if not is_weighted_turn and self._balance is not Balance.RANDOM:
            return []
        count = self._count
        among = tuple(usable), self._model.serving.weights, self._balance
        if count.among != among:
            count = self._count = _Count()
            count.among = among
        weights = {e: self._model.weight_of(e, at) for e in usable}
        count.turns[chosen] += 1
        for endpoint, (least, most) in weights.items():
            others = [weights[e] for e in usable if e != endpoint]
            low = least / (least + sum(w[1] for w in others))
            high = most / (most + sum(w[0] for w in others))
            before = count.expected.get(endpoint, (0.0, 0.0))
            count.expected[endpoint] = before[0] + low, before[1] + high
            change = abs(high - count.parts.get(endpoint, high))
            count.changes[endpoint] = count.changes.get(endpoint, 0.0) + change
            count.parts[endpoint] = high
        if len(usable) < 2:
            return []
        return [self._judge_shares(usable, is_exact=is_weighted_turn)]

    # -- the promises ------------------------------------------------------------------------------

    def _judge_turn(
        self, level: tuple[SocketAddress, ...], usable: list[SocketAddress], chosen: SocketAddress
    ) -> list[Verdict]:
        return self._judge_following("turn", self._following(level, usable), chosen)

    @staticmethod
    def _judge_following(
        oracle: str, following: set[SocketAddress], chosen: SocketAddress
    ) -> list[Verdict]:
        if not following:
            # The first turn of all, or of another list, may be that of any.
            return []
        if len(following) > 1 and chosen in following:
            return [Verdict(oracle, None, "the last turn is unsure")]
        why = f"{chosen}, and it was the turn of {sorted(following)}"
        return [Verdict(oracle, chosen in following, why)]

    def _following(
        self, level: tuple[SocketAddress, ...], among: list[SocketAddress]
    ) -> set[SocketAddress]:
        """Return whose turn may be next; empty if that isn't known."""
        following = set()
        for known, last in self._last:
            if known != level:
                return set()
            begin = level.index(last) + 1
            following.add(next(e for e in (*level[begin:], *level[:begin]) if e in among))
        return following

    def _judge_least(
        self,
        level: tuple[SocketAddress, ...],
        usable: list[SocketAddress],
        chosen: SocketAddress,
        least: dict[SocketAddress, float],
        most: dict[SocketAddress, float],
    ) -> list[Verdict]:
        bound = min(most[e] for e in usable)
        is_right = least[chosen] <= bound + 1e-9
        why = f"{chosen} has {least[chosen]:g}, and another one {bound:g}"
        verdicts = [Verdict("least connections", is_right, why)]
        equal = [e for e in usable if least[e] == most[e] == bound]
        if self.is_weighted or least != most or len(equal) < 2 or not is_right:
            return verdicts
        following = self._following(level, equal)
        return [*verdicts, *self._judge_following("turn among equals", following, chosen)]

    def _judge_missed(
        self, usable: list[SocketAddress], chosen: SocketAddress, level: tuple[SocketAddress, ...]
    ) -> list[Verdict]:
        """Each has its turn, in any order, also one that has just returned.

        A turn is a part of a round, which is as long as the list is at that time. The turn is a
        position: in another list one may miss what is left of the round.
        """
        missed = self._missed
        if level != self._level:
            self._level = level
            missed = {e: max(0.0, rounds - 1.0) for e, rounds in missed.items()}
        part = 1 / len(level)
        self._missed = {e: missed.get(e, 0.0) + part for e in usable if e != chosen}
        late = [e for e, rounds in self._missed.items() if rounds > _ROUNDS]
        return [Verdict("turn of each", not late, f"{late} had no turn in {_ROUNDS:g} rounds")]

    def _judge_preference(
        self, client: str, usable: list[SocketAddress], chosen: SocketAddress, at: Span
    ) -> Verdict:
        weights = {endpoint: self._model.weight_of(endpoint, at)[0] for endpoint in usable}
        preferred = max(usable, key=lambda e: _preference(client, str(e), weights[e]))
        return Verdict("source hash", chosen == preferred, f"{client} got {chosen}")

    def _judge_shares(self, usable: list[SocketAddress], *, is_exact: bool) -> Verdict:
        count, total = self._count, sum(self._count.turns.values())
        for endpoint in usable:
            turns, (low, high) = count.turns[endpoint], count.expected[endpoint]
            if not is_exact:
                chance = 1.0 - low / total
                if not turns and total and chance**total < _IMPOSSIBLE:
                    return Verdict("share", False, f"{endpoint} has none of {total} turns")
                continue
            # Each has a turn every 1/weight of a time that all share: none is off by more than one
            # turn, but the number of turns in a time is off by up to one for each of them, also
            # before each change of a weight.
            others = max(0, len(usable) - 2) * count.parts[endpoint]
            off = 1.0 + others + len(usable) * count.changes[endpoint] + 1e-6
            if not low - off <= turns <= high + off:
                why = f"{endpoint} has {turns} of {total} turns, not {low:.1f} to {high:.1f}"
                return Verdict("share", False, why)
        return Verdict("share", True)

    # -- figures -----------------------------------------------------------------------------------

    def _least(self, endpoint: SocketAddress, at: Span) -> float:
        return self._model.loads.of(endpoint)[0] / self._model.weight_of(endpoint, at)[1]

    def _most(self, endpoint: SocketAddress, at: Span) -> float:
        return self._model.loads.of(endpoint)[1] / self._model.weight_of(endpoint, at)[0]


@functools.cache
def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _preference(client: str, endpoint: str, weight: float) -> float:
    """Return how much a client prefers an endpoint, for its weight: rendezvous hashing."""
    differing = _hash_of(client) ^ _hash_of(endpoint)
    part = (differing * _GOLDEN % 2**64 + 0.5) / 2**64
    return math.log(part) / weight
