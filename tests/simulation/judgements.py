"""Counts how often each oracle judged, and how often and why it was excused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

MOST_EXCUSED = 0.05
"""The largest share of judgements that may be excused."""


class Violation(NamedTuple):
    """An event that must not happen."""

    oracle: str
    what: str


class Judgements:
    """How often each oracle judged, and was excused for which reason."""

    def __init__(
        self,
        note: Callable[[str], object] = lambda _text: None,
        violations: list[str] | None = None,
    ) -> None:
        self.judged: Counter[str] = Counter()
        self.excused: Counter[tuple[str, str]] = Counter()
        self.violations: list[Violation] = []
        self._note = note
        self._texts = [] if violations is None else violations

    def right(self, oracle: str) -> None:
        self.judged[oracle] += 1

    def excuse(self, oracle: str, reason: str) -> None:
        self.excused[oracle, reason] += 1

    def violate(self, oracle: str, what: str) -> None:
        self.judged[oracle] += 1
        self._note(f"VIOLATION: {oracle}: {what}")
        self.violations.append(Violation(oracle, what))
        self._texts.append(f"{oracle}: {what}")

    def check(self, oracle: str, is_right: bool, what: Callable[[], str] | str) -> None:
        if is_right:
            self.right(oracle)
        else:
            self.violate(oracle, what if isinstance(what, str) else what())

    def add(self, other: Judgements) -> None:
        """Add the counts of another run."""
        self.judged.update(other.judged)
        self.excused.update(other.excused)
        self.violations += other.violations

    @property
    def counts(self) -> Counts:
        """The counts, as a value that can be sent to another process."""
        return Counts(dict(self.judged), dict(self.excused))


class Counts(NamedTuple):
    """How often each oracle judged, and was excused for each reason."""

    judged: dict[str, int]
    excused: dict[tuple[str, str], int]


def table(judged: Counter[str], excused: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield a line per oracle: how often it judged and was excused, and the usual reasons."""
    reasons: dict[str, Counter[str]] = {}
    for (oracle, reason), count in excused.items():
        reasons.setdefault(oracle, Counter())[reason] += count
    yield f"{'oracle':32} {'judged':>10} {'excused':>9} {'share':>7}  reasons"
    for oracle in sorted({*judged, *reasons}):
        why = reasons.get(oracle, Counter())
        share = 100 * why.total() / max(1, judged[oracle] + why.total())
        words = ", ".join(f"{reason} {count}" for reason, count in why.most_common(3))
        yield f"{oracle:32} {judged[oracle]:10,} {why.total():9,} {share:6.1f}%  {words}".rstrip()


def unused(oracles: Iterable[str], judged: Counter[str]) -> list[str]:
    """Return the names of the oracles that have never judged."""
    return [oracle for oracle in oracles if not judged[oracle]]


def often_excused(judged: Counter[str], excused: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each oracle that is excused too often."""
    sums = Counter[str]()
    for (oracle, _reason), count in excused.items():
        sums[oracle] += count
    for oracle, count in sorted(sums.items()):
        share = count / (judged[oracle] + count)
        if share > MOST_EXCUSED:
            yield f"often excused: {oracle}, {share:.0%} of {judged[oracle] + count}"
