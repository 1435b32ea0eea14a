"""Kinds of setting: how a value is read from a flag or from YAML, and written again.

Rule 1: what a flag takes as text, a file takes as text too. Numbers, booleans, lists
and mappings may also stand in the file as YAML's own.
Rule 2: a value that can't be raises :class:`BadValueError`; the caller knows the flag,
or the file and line, and says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .values import (
    BadValueError,
    PortRange,
    format_duration,
    parse_bool,
    parse_duration,
    parse_port_range,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    Args:
        name: As help and docs show it: ``DURATION``.
        parse: Reads the text of a flag.
        write: Makes the value plain (text, number, boolean, list, mapping) for files and JSON.
        wants: What a file may hold, as the error says it.
        read_plain: Reads what YAML holds, text aside; None where only text will do.
        takes_text: Whether a file may hold text; not for a boolean, as in kube-proxy.
        also_unset: Values that mean "not set", besides an empty text or list, zero and false.
        adds_up: Whether a repeated flag adds to the first instead of replacing it.
    """

    name: str
    parse: Callable[[str], Any]
    write: Callable[[Any], object] = lambda value: value
    wants: str = "text"
    read_plain: Callable[[object], Any] | None = None
    takes_text: bool = True
    also_unset: tuple[object, ...] = ()
    adds_up: bool = False

    def read(self, value: object) -> Any:
        """Read a value of a YAML document.

        Raises:
            BadValueError: It has a wrong type, or can't be.
        """
        if isinstance(value, str) and self.takes_text:
            return self.parse(value)
        if self.read_plain is not None:
            return self.read_plain(value)
        raise wrong_type(value, self.wants)

    def write_text(self, value: Any) -> str:
        """Write a value as a flag takes it."""
        plain = self.write(value)
        if isinstance(plain, Mapping):
            return ",".join(f"{name}={str(on).lower()}" for name, on in plain.items())
        if isinstance(plain, list):
            return ",".join(plain)
        return str(plain).lower() if isinstance(plain, bool) else str(plain)

    def is_unset(self, value: object) -> bool:
        """Tell whether a value that was read is kubeadm's way to say "not set"."""
        return value in ("", 0, (), []) or value in self.also_unset


def wrong_type(value: object, wants: str) -> BadValueError:
    """Describe a YAML value of a type that doesn't fit."""
    if isinstance(value, Mapping):
        shown = "a mapping"
    elif isinstance(value, list):
        shown = "a list"
    elif value is None:
        shown = "null"
    else:
        shown = f"{value!r} ({_TYPE_NAMES.get(type(value), type(value).__name__)})"
    return BadValueError(f"{shown} is not {wants}")


_TYPE_NAMES = {str: "text", int: "a number", float: "a number", bool: "a boolean"}


def _plain_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong_type(value, "true or false")


def _plain_texts(value: object) -> str:
    if not isinstance(value, list):
        raise wrong_type(value, "a list of strings")
    for item in value:
        if not isinstance(item, str):
            raise wrong_type(item, "text")
    return ",".join(value)


def _plain_number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise wrong_type(value, "a number")


def _parse_text(text: str) -> str:
    # It is shown in logs and on the page, and written to files.
    if not text.isprintable():
        raise BadValueError(f"{text!r} contains unprintable characters")
    return text


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadValueError(f"{text!r} is not a number") from None


def _plain_gates(value: object) -> tuple[tuple[str, bool], ...]:
    if not isinstance(value, Mapping):
        raise wrong_type(value, "a mapping of names to true or false")
    return tuple((name, _plain_bool(is_on)) for name, is_on in value.items())


def _parse_gates(text: str) -> tuple[tuple[str, bool], ...]:
    gates: dict[str, bool] = {}
    for item in _items(text):
        name, equals, value = item.partition("=")
        if not equals or not name.strip().isalnum():
            raise BadValueError(f"{item!r} is not a feature gate", "write Name=true,Other=false")
        gates[name.strip()] = parse_bool(value.strip())
    return tuple(gates.items())


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def integer(least: int, most: int) -> Kind:
    """Make a kind of whole numbers between two bounds, both included."""

    def check(value: int) -> int:
        if not least <= value <= most:
            raise BadValueError(f"{value} is not in {least}–{most}")
        return value

    def parse(text: str) -> int:
        try:
            return check(int(text))
        except ValueError:
            raise BadValueError(f"{text!r} is not a whole number") from None

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, "a whole number")
        return check(value)

    return Kind("N", parse, wants="a whole number", read_plain=read, takes_text=False)


def duration(*, least_s: float = 0.0, zero_means: float | None = 0.0) -> Kind:
    """Make a kind of lengths of time in seconds, written as Go does.

    Args:
        least_s: The shortest that makes sense, in seconds.
        zero_means: What ``0`` stands for, when it isn't a length: None is "the default".
    """

    def check(seconds: float, shown: str) -> float | None:
        if seconds == 0 and zero_means != 0:
            return zero_means
        if seconds < least_s:
            raise BadValueError(f"{shown} is too short", f"at least {format_duration(least_s)}")
        return seconds

    def read(value: object) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value == 0:
                return check(0.0, "0")
            raise BadValueError(f"{value} has no unit", f"write {value}s")
        raise wrong_type(value, "a duration such as 30s, 250ms or 1m30s")

    return Kind(
        "DURATION",
        lambda text: check(parse_duration(text), text),
        lambda seconds: None if seconds is None else format_duration(seconds),
        wants="a duration",
        read_plain=read,
        also_unset=(zero_means,),
    )


def port_range(default: PortRange) -> Kind:
    """Make a kind of port ranges; ``0``, ``0-0`` and nothing mean the default."""
    return Kind("RANGE", lambda text: parse_port_range(text) or default, str)


def choice(*choices: str) -> Kind:
    """Make a kind that is one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise BadValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return Kind("|".join(choices), parse)


def texts(
    name: str,
    parse_item: Callable[[str], Any],
    *,
    check: Callable[[Sequence[Any]], None] = lambda _items: None,
    takes_text: bool = True,
) -> Kind:
    """Make a kind of lists, comma-separated in a flag.

    Args:
        name: As help shows it.
        parse_item: Reads one item.
        check: Raises BadValueError when the items don't go together.
        takes_text: Whether a file may hold the comma-separated text as well.
    """

    def parse(text: str) -> tuple[Any, ...]:
        items = tuple(parse_item(item) for item in _items(text))
        check(items)
        return items

    return Kind(
        name,
        parse,
        list,
        wants="a list of strings",
        read_plain=lambda value: parse(_plain_texts(value)),
        takes_text=takes_text,
        adds_up=True,
    )


TEXT = Kind("TEXT", _parse_text)
PATH = Kind("PATH", _parse_text)
ANY = Kind("VALUE", str, wants="a value", read_plain=lambda value: value, also_unset=("0",))
BOOL = Kind(
    "BOOL", parse_bool, wants="true or false", read_plain=_plain_bool, takes_text=False,
)  # fmt: skip
NUMBER = Kind("NUMBER", _parse_number, wants="a number", read_plain=_plain_number, takes_text=False)
GATES = Kind(
    "NAME=BOOL,...", _parse_gates, dict, wants="a mapping", read_plain=_plain_gates,
    takes_text=False, adds_up=True,
)  # fmt: skip
