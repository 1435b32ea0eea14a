"""A cause: why clients of a Service aren't served, or an endpoint isn't used, for all observers.

    row, declared once: code, words, remedies ──called with typed parameters──▶ Cause ──say──▶ text

Rule 1: a cause is a value: equal facts are equal causes. It has no text: ``say`` is the only place
where a row's words are read.
Rule 2: a row is a function, whose parameters are those of its causes, and whose body is its
sentence. Other texts are templates, or functions with the same parameters.
Rule 3: when it was, whether others are answered, and what an endpoint gets first are modifiers of a
cause, not causes of their own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeAlias

from ..model import CauseCode

Param: TypeAlias = str | int | float | bool | tuple[str, ...]
"""A parameter: what JSON can express, so that another process can read it."""
Text: TypeAlias = str | Callable[..., str]
"""A template with the names of parameters, or a function of them; empty: there is none."""
P = ParamSpec("P")


class When(enum.StrEnum):
    """The time that a cause is about."""

    NOW = "now"
    LATELY = "lately"
    """A moment ago; it may have answered since."""
    PAST = "past"
    """A while ago; nothing has tried since."""


class Parameters:
    """The parameters of a function; values are bound to them as by its call, but without one."""

    __slots__ = ("_defaults", "_function", "_rest", "names")

    def __init__(self, function: Callable[..., str]) -> None:
        made, defaults = function.__code__, function.__defaults__ or ()
        last = made.co_argcount
        given = zip(made.co_varnames[last - len(defaults) : last], defaults, strict=True)
        self._function = function.__name__
        self.names = made.co_varnames[: last + made.co_kwonlyargcount]
        self._defaults = {**dict(given), **(function.__kwdefaults__ or {})}
        last_of = range(len(self.names) - len(self._defaults), len(self.names) + 1)
        values = tuple(self._defaults.values())
        # A parameter by keyword without a default is missing after any number of values.
        are_last = self.names[last_of[0] :] == tuple(self._defaults)
        self._rest = {n: values[n - last_of[0] :] for n in last_of} if are_last else {}
        """By how many values are given, the defaults of the others."""

    def bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[object, ...]:
        """Return the values in the order of the names; raises TypeError if they don't fit."""
        # Cost: a view of 10,000 Service ports makes as many, mostly so.
        rest = None if kwargs else self._rest.get(len(args))
        if rest is not None:
            return (*args, *rest)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        bound = {**self._defaults, **given}
        if len(given) != len(args) + len(kwargs) or bound.keys() != {*self.names}:
            raise TypeError(f"{self._function} takes {', '.join(self.names) or 'no parameters'}")
        return tuple([bound[name] for name in self.names])


@dataclass(frozen=True, eq=False)
class CauseRow(Generic[P]):
    """All that is known of one cause; called with its parameters, it returns a :class:`Cause`."""

    code: CauseCode
    """Its name in metrics and docs; several rows may share it."""
    words: Callable[P, str]
    """Its sentence, or what follows the object in it (``is_predicate``)."""
    about: Text = ""
    """Its object."""
    is_predicate: bool = False
    """The sentence begins with the object, which ``words``, ``past`` and ``short`` leave out."""
    past: Text = ""
    """The same about the past; empty: the same."""
    short: Text = ""
    """The same without what it may be; empty: all of it."""
    hint: Text = ""
    """What to do about it; empty if the sentence contains it."""
    outside: Text = ""
    """The same for an endpoint by name, which is no pod: ``{host}``, ``{ip}``."""
    at_times: Text = ""
    """The same where others are answered; empty: the same."""
    at_times_outside: Text = ""
    """Both."""
    is_of_slices: bool = False
    """It is about a Service's slices, not its pods."""
    is_of_host: bool = False
    """All endpoints of a host that is gone fail so."""
    kubectl: str = ""
    """Words after ``kubectl`` that show more; empty: those of its code."""
    shared: Sequence[str] | None = None
    """The parameters by which it is one cause of all Services that it touches; None: the endpoint
    that it is about, without one it is its Service's own."""
    name: str = ""
    """Its key; empty: that of the function."""

    @cached_property
    def key(self) -> str:
        """Its name among all rows."""
        return self.name or self.words.__name__

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.words)

    @cached_property
    def places(self) -> Sequence[int] | None:
        """The places of the parameters of ``shared``; None: it is its Service's own."""
        names = self._parameters.names
        if self.shared is not None:
            return [names.index(name) for name in self.shared]
        return [names.index("at")] if "at" in names else None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Cause:
        """Return the cause with these parameters; objects are kept as they are written."""
        values = map(_plain, self._parameters.bound(args, kwargs))
        return Cause(self, tuple(zip(self._parameters.names, values, strict=True)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_row, (self.key, self.code)

    def __repr__(self) -> str:
        return self.key


ROWS: dict[str, CauseRow[...]] = {}
"""All rows, by the names of their functions."""


def _find_row(key: str, code: CauseCode) -> CauseRow[...]:
    return ROWS.get(key) or _row_as_read(code)


def cause(code: CauseCode, **columns: Any) -> Callable[[Callable[P, str]], CauseRow[P]]:
    """Return a decorator that makes a function the row of a cause; see :class:`CauseRow`."""

    def make(words: Callable[P, str]) -> CauseRow[P]:
        made = CauseRow(code, words, **columns)
        if made.key in ROWS:
            raise ValueError(f"two causes are called {made.key}")
        ROWS[made.key] = made
        return made

    return make


class Cause:
    """One cause, by value. :meth:`replace` makes another one: none is changed.

    Args:
        params: The row's, in its order.
        when: The time that it is about.
        answers_others: The endpoint answers others, so it fails at times.
        host: The name by which the endpoint was found; empty: it is an address, as of pods.
        has_header: The endpoint gets a PROXY header first.
        before: How the endpoint failed before; None: it didn't.
        more: How many further ones like it aren't listed.
        count: How often it was seen; 0 for a state, which isn't counted.
        within: What contains what it is about, if that isn't the Service; empty: it is.
        first_at: Unix time at which it was first seen; 0 if unknown.
        last_at: Unix time at which it was last seen; 0 if unknown.
    """

    __slots__ = (
        "_shared", "answers_others", "before", "count", "fact", "first_at", "has_header", "host",
        "last_at", "more", "params", "row", "when", "within", "written",
    )  # fmt: skip

    def __init__(
        self,
        row: CauseRow[...],
        params: Sequence[tuple[str, Param]] = (),
        *,
        when: When = When.NOW,
        answers_others: bool = False,
        host: str = "",
        has_header: bool = False,
        before: Cause | None = None,
        more: int = 0,
        within: str = "",
        count: int = 0,
        first_at: float = 0.0,
        last_at: float = 0.0,
    ) -> None:
        self.row, self.params = row, tuple(params)
        self.when, self.answers_others = when, answers_others
        self.host, self.has_header, self.before, self.more = host, has_header, before, more
        self.within = within
        self.count, self.first_at, self.last_at = count, first_at, last_at
        past: object = None if before is None else before.fact
        self.fact: tuple[object, ...] = (
            row.key, self.params, when, has_header, past, more, within,
        )  # fmt: skip
        """What its sentence states, by value; not how often it was seen, nor what to do."""
        self._shared: tuple[object, ...] = ()
        self.written: object = None
        """What was last written of it, as most causes are written again unchanged."""

    @property
    def code(self) -> CauseCode:
        """Its name for programs."""
        return self.row.code

    @property
    def shared(self) -> tuple[object, ...] | None:
        """What makes it one cause of all Services that it touches; None: it is its Service's own.

        The endpoint's address, where it is about one, whatever else is known of how it fails.
        """
        places = self.row.places
        if places is None:
            return None
        # Cost: a page of ten thousand Services may group as many, again and again.
        if not self._shared:
            self._shared = (self.code, *[self.params[place][1] for place in places])
        # One that may have a chain to blame, and has none.
        return None if self._shared[-1] == "" else self._shared

    def get(self, name: str, default: Param = "") -> Param:
        """Return a parameter; the default where the row has none of this name."""
        return next((value for known, value in self.params if known == name), default)

    def replace(self, **changes: Any) -> Cause:
        """Return a copy with other modifiers, or another count."""
        return Cause(self.row, self.params, **{**self.modifiers(), **changes})

    def modifiers(self) -> Mapping[str, Any]:
        """Return all but the row and its parameters."""
        return {name: getattr(self, name) for name in MODIFIERS}

    def _given(self) -> list[str]:
        return [name for name in MODIFIERS if getattr(self, name) not in (When.NOW, 0, "", None)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cause):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        params = [f"{name}={value!r}" for name, value in self.params]
        given = [f"{name}={getattr(self, name)!r}" for name in self._given()]
        return f"{self.row}({', '.join([*params, *given])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.row, self.params, dict(self.modifiers()))

    def _key(self) -> tuple[object, ...]:
        of_remedy = self.answers_others, self.host
        return self.fact, of_remedy, self.count, self.first_at, self.last_at


MODIFIERS = (
    "when", "answers_others", "host", "has_header", "before", "more", "within", "count",
    "first_at", "last_at",
)  # fmt: skip
"""The names of what :meth:`Cause.replace` changes."""


def _make(row: CauseRow[...], params: Sequence[tuple[str, Param]], modifiers: Any) -> Cause:
    return Cause(row, params, **modifiers)


def _plain(value: object) -> Param:
    """Return a parameter as JSON can express it; an address, or the name of an object, as text."""
    if isinstance(value, bool | int | float):
        return value
    # A name of several parts is a tuple of another type.
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return tuple(map(str, value))
    return str(value)


def as_read(code: CauseCode, sentence: str = "", about: str = "", hint: str = "") -> Cause:
    """Return a cause in the words of another proxy, whose row is unknown here."""
    return _row_as_read(code)(sentence, about, hint)


def _row_as_read(code: CauseCode) -> CauseRow[...]:
    # Named after the code, as causes are compared by the names of their rows.
    return CauseRow(code, _as_read, about="{about}", hint="{hint}", name=f"as-read {code}")


# What it has beside these is what a newer proxy knows.
def _as_read(sentence: str, about: str, hint: str, **_: Param) -> str:
    del about, hint
    return sentence
