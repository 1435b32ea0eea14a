"""Defines kinds of settings, which parse values from flags and YAML, and write them.

Rule 1: a file may contain YAML values other than text, and, if ``accepts_text``, a flag's text.
Rule 2: an invalid value raises ConfigError; the caller adds the flag, or file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..model.durations import format_duration, parse_duration
from .values import PortRange, parse_bool, parse_port_range


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value, with its parsers, its writer and its name in help."""

    name: str
    """The kind's name in help and docs: ``DURATION``."""
    parse: Callable[[str], Any]
    """Parses the text of a flag."""
    write: Callable[[Any], object] = lambda value: value
    """Returns a value for files and JSON: text, a number, boolean, list or mapping, or None."""
    expected: str = "text"
    """The accepted content of a file, for error messages."""
    read_plain: Callable[[object], Any] | None = None
    """Converts a YAML value other than text; None if only text is allowed."""
    accepts_text: bool = True
    """Whether a file may contain text; false for numbers and booleans, as in kube-proxy."""
    also_unset: tuple[object, ...] = ()
    """Values that mean "not set", in addition to an empty string or list, zero and false."""
    is_cumulative: bool = False
    """Whether a repeated flag adds to the earlier values instead of replacing them."""

    def read(self, value: object) -> Any:
        """Convert a value of a YAML document.

        Raises:
            ConfigError: The value has the wrong type, or is invalid.
        """
        if isinstance(value, str) and self.accepts_text:
            return self.parse(value)
        if self.read_plain is not None:
            return self.read_plain(value)
        raise wrong_type(value, self.expected)

    def write_text(self, value: Any) -> str:
        plain = self.write(value)
        if isinstance(plain, Mapping):
            return ",".join(f"{name}={str(on).lower()}" for name, on in plain.items())
        if isinstance(plain, list):
            return ",".join(plain)
        return str(plain).lower() if isinstance(plain, bool) else str(plain)

    def is_unset(self, value: object) -> bool:
        """Return whether kubeadm writes this value for "not set"."""
        return value in ("", 0, (), []) or value in self.also_unset


def wrong_type(value: object, expected: str) -> ConfigError:
    """Return the error for a YAML value of the wrong type."""
    if isinstance(value, Mapping):
        shown = "a mapping"
    elif isinstance(value, list):
        shown = "a list"
    elif value is None:
        shown = "null"
    else:
        shown = f"{value!r} ({_TYPE_NAMES.get(type(value), type(value).__name__)})"
    is_scalar = expected == "text" and isinstance(value, int | float)
    return ConfigError(f"{shown} is not {expected}", hint="quote it" if is_scalar else "")


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
    # Reject unprintable characters, because the text appears in logs, on the page and in files.
    if not text.isprintable():
        raise ConfigError(f"{text!r} contains unprintable characters")
    return text


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


def _plain_gates(value: object) -> tuple[tuple[str, bool], ...]:
    if not isinstance(value, Mapping):
        raise wrong_type(value, "a mapping of names to true or false")
    # A null counts as false, because Go reads null as the zero value of any type.
    return tuple((name, is_on is not None and _plain_bool(is_on)) for name, is_on in value.items())


def _share(number: float) -> float:
    if not 0 <= number <= 1:
        raise ConfigError(f"{number:g} is not in 0–1", hint="write 1 for all, 0.01 for 1 %")
    return float(number)


def _parse_gates(text: str) -> tuple[tuple[str, bool], ...]:
    gates: dict[str, bool] = {}
    for item in _items(text):
        name, equals, value = item.partition("=")
        if not equals or not name.strip().isalnum():
            raise ConfigError(f"{item!r} is not a feature gate", hint="write Name=true,Other=false")
        gates[name.strip()] = parse_bool(value.strip())
    return tuple(gates.items())


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def integer(least: int, most: int) -> Kind:
    """Return the kind for integers from ``least`` to ``most``."""

    def check(value: int) -> int:
        if not least <= value <= most:
            raise ConfigError(f"{value} is not in {least}–{most}")
        return value

    def parse(text: str) -> int:
        try:
            return check(int(text))
        except ValueError:
            raise ConfigError(f"{text!r} is not a whole number") from None

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, "a whole number")
        return check(value)

    return Kind("N", parse, expected="a whole number", read_plain=read, accepts_text=False)


def duration(*, least_s: float = 0.0, zero_means: float | None = 0.0) -> Kind:
    """Return the kind for durations in seconds, written as in Go.

    Args:
        zero_means: What ``0`` means instead of 0 s, even below ``least_s``; None means unset.
    """

    def check(seconds: float, shown: str) -> float | None:
        if seconds == 0 and zero_means != 0:
            return zero_means
        if seconds < least_s:
            raise ConfigError(f"{shown} is too short", hint=f"at least {format_duration(least_s)}")
        return seconds

    def read(value: object) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value == 0:
                return check(0.0, "0")
            raise ConfigError(f"{value} has no unit", hint=f"write {value}s")
        raise wrong_type(value, "a duration such as 30s, 250ms or 1m30s")

    return Kind(
        "DURATION",
        lambda text: check(parse_duration(text), text),
        lambda seconds: None if seconds is None else format_duration(seconds),
        expected="a duration",
        read_plain=read,
        also_unset=(zero_means,),
    )


def port_range(default: PortRange) -> Kind:
    """Return the kind for port ranges; ``0``, ``0-0`` and empty strings mean the default."""
    return Kind("RANGE", lambda text: parse_port_range(text) or default, str)


def choice(*choices: str) -> Kind:
    """Return the kind whose values are the given words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ConfigError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return Kind("|".join(choices), parse)


def texts(
    name: str,
    parse_item: Callable[[str], Any],
    *,
    check: Callable[[Sequence[Any]], None] = lambda _items: None,
    accepts_text: bool = True,
) -> Kind:
    """Return the kind for lists, comma-separated in a flag.

    Args:
        parse_item: Parses one item.
        check: Raises ConfigError if the items are invalid together.
        accepts_text: Whether a file may also contain the comma-separated text.
    """

    def parse(text: str) -> tuple[Any, ...]:
        items = tuple(parse_item(item) for item in _items(text))
        check(items)
        return items

    return Kind(
        name,
        parse,
        list,
        expected="a list of strings",
        read_plain=lambda value: parse(_plain_texts(value)),
        accepts_text=accepts_text,
        is_cumulative=True,
    )


TEXT = Kind("TEXT", _parse_text)
PATH = Kind("PATH", _parse_text)
ANY = Kind("VALUE", str, expected="a value", read_plain=lambda value: value, also_unset=("0",))
BOOL = Kind(
    "BOOL", parse_bool, expected="true or false", read_plain=_plain_bool, accepts_text=False,
)  # fmt: skip
NUMBER = Kind(
    "NUMBER", _parse_number, expected="a number", read_plain=_plain_number, accepts_text=False
)
SHARE = Kind(
    "SHARE", lambda text: _share(_parse_number(text)), expected="a number",
    read_plain=lambda value: _share(_plain_number(value)), accepts_text=False,
)  # fmt: skip
GATES = Kind(
    "NAME=BOOL,...", _parse_gates, dict, expected="a mapping", read_plain=_plain_gates,
    accepts_text=False, is_cumulative=True,
)  # fmt: skip
