"""A clause: a part of what is said of a Service port; by value, as causes are.

    row, declared once ──called with typed parameters──▶ Clause ──sentence_of──▶ "Served by …; …"

Rule 1: a rule decides which clauses are said, and in which order; what they say is in their rows
(``clauses``). Nothing looks into a text.
Rule 2: what changes with time alone (how long ago, how often) is added where it is shown, at the
clause that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, ParamSpec

from ..causes.cause import Cause, Parameters
from ..causes.say import Form, say
from ..facts.units import capitalised

P = ParamSpec("P")


class Clause(NamedTuple):
    """One clause; equal facts give equal clauses."""

    row: ClauseRow[...]
    values: tuple[object, ...] = ()
    """Those of the row's parameters, in order."""

    @property
    def params(self) -> Mapping[str, object]:
        """The same by name."""
        return dict(zip(self.row.names, self.values, strict=True))

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that it states as a whole."""
        found: list[Cause] = []
        for value in self.values if self.row.states else ():
            if isinstance(value, Cause):
                found.append(value)
            elif isinstance(value, Clause):
                found += value.causes
        return tuple(found)

    @property
    def text(self) -> str:
        """Its words, without a capital letter that only the begin of a sentence has."""
        return self.row.words(*self.values)

    @property
    def planned(self) -> str:
        """The same of clients who aren't there yet."""
        return (self.row.planned or self.row.words)(*self.values)

    @property
    def hint(self) -> str:
        """What to do about it; empty if nothing is known."""
        hint = self.row.hint
        own = hint if isinstance(hint, str) else hint(**self.params)
        parts = (value.hint for value in self.values if isinstance(value, Clause))
        return own or next(filter(None, parts), "")


@dataclass(frozen=True, eq=False)
class ClauseRow(Generic[P]):
    """What is known of one clause; called with its parameters, it returns a :class:`Clause`."""

    words: Callable[..., str]
    """Its words."""
    hint: str | Callable[..., str] = ""
    """What to do about it, where no cause decides that."""
    planned: Callable[..., str] | None = None
    """Its words in a plan; None: the same."""
    is_dated: bool = False
    """It is about a moment, whose age is shown with it."""
    states: bool = True
    """It states a cause as a whole, if it has one."""

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.words)

    @property
    def names(self) -> Sequence[str]:
        """The names of its parameters; words take them by position, too."""
        return self._parameters.names

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Clause:
        """Return the clause with these parameters."""
        return Clause(self, self._parameters.bound(args, kwargs))

    def __repr__(self) -> str:
        return self.words.__name__


def clause(**columns: Any) -> Callable[[Callable[P, str]], ClauseRow[P]]:
    """Return a decorator that makes a function the row of a clause; see :class:`ClauseRow`."""

    def make(words: Callable[P, str]) -> ClauseRow[P]:
        return ClauseRow[P](words, **columns)

    return make


def fixed(name: str, text: str) -> ClauseRow[[]]:
    """Return the row of a clause without parameters."""

    def words() -> str:
        return text

    words.__name__ = name
    return ClauseRow(words)


def before_cause(name: str, text: str) -> ClauseRow[[Cause]]:
    """Return the row of a clause that ends with a cause."""

    def words(cause: Cause) -> str:
        return f"{text}{say(cause)}"

    words.__name__ = name
    return ClauseRow(words)


def joined(texts: Iterable[str]) -> str:
    """Return clauses as a sentence without a full stop."""
    return capitalised("; ".join(texts))


@clause()
def stated(cause: Cause) -> str:
    """A cause as a whole."""
    return say(cause)


@clause(states=False)
def stated_in_short(cause: Cause) -> str:
    """A further cause, without what may be its reason."""
    return say(cause, Form.SHORT)


def sentence_of(clauses: Sequence[Clause], lead: Clause | None = None) -> str:
    """Return clauses as a sentence; the lead stands before all of them."""
    return joined(texts_of(clauses, lead))


def planned_of(clauses: Sequence[Clause]) -> str:
    """Return clauses about clients who aren't there yet, as the end of a sentence."""
    return "; ".join(one.planned for one in clauses)


def texts_of(clauses: Sequence[Clause], lead: Clause | None = None) -> list[str]:
    """Return the text of each clause; the lead is in the first one."""
    texts = [one.text for one in clauses]
    return texts if lead is None else [f"{lead.text}: {texts[0]}", *texts[1:]]
