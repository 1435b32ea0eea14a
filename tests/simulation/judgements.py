"""Counts the judgements of each oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Violation(NamedTuple):
    """An event that must not happen."""

    oracle: str
    what: str


class Judgements:
    """The number of judgements of each oracle, and the violations found."""

    def __init__(
        self,
        note: Callable[[str], object] = lambda _text: None,
        violations: list[str] | None = None,
    ) -> None:
        self.judged: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self._note = note
        self._texts = [] if violations is None else violations

    def right(self, oracle: str) -> None:
        self.judged[oracle] += 1

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
        """Add the counts and violations of another run."""
        self.judged.update(other.judged)
        self.violations += other.violations

    @property
    def counts(self) -> dict[str, int]:
        """The counts, as a value that can be sent to another process."""
        return dict(self.judged)


def table(judged: Counter[str]) -> Iterator[str]:
    """Yield a header and a line per oracle, with the number of its judgements."""
    yield f"{'oracle':32} {'judged':>10}"
    for oracle in sorted(judged):
        yield f"{oracle:32} {judged[oracle]:10,}"


def unused(oracles: Iterable[str], judged: Counter[str]) -> list[str]:
    """Return the names of the oracles that have never judged."""
    return [oracle for oracle in oracles if not judged[oracle]]
