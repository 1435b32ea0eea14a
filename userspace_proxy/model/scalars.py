"""Decides the value of a plain YAML scalar as kubectl does, which reads YAML 1.1.

``on`` and ``y`` are booleans; ``12:30`` and dates are text. A number that differs between YAML 1.1
and YAML 1.2 (``012``) is an error for :func:`read_plain`.
"""

from __future__ import annotations

import math
import re

from ..errors import InputError

Scalar = str | int | float | bool | None

_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = (
    frozenset(form for word in words for form in (word, word.capitalize(), word.upper()))
    for words in (("y", "yes", "on", "true"), ("n", "no", "off", "false"))
)
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(_NULLS),
    **dict.fromkeys(_TRUE, True),
    **dict.fromkeys(_FALSE, False),
}
_INTEGER_1_1 = re.compile(
    r"(?P<sign>[-+]?)(?:0b(?P<b>[01]+)|0x(?P<x>[0-9a-fA-F]+)|0o?(?P<o>[0-7]+)|(?P<d>[1-9]\d*|0))",
    re.ASCII,
)
_BASES = {"b": 2, "x": 16, "o": 8, "d": 10}
_FLOAT_1_1 = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_DIGITS_MAX = 400
_FLOAT_MAX = 10**308
_MAY_BE_NUMBER = frozenset("0123456789+-.")

INTEGER_BITS = 64
"""The maximum size of integers, as in Kubernetes objects; Python may parse others for minutes."""


def read_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar as kubectl does, but reject ambiguous numbers.

    Raises:
        InputError: The number has a leading zero, or more than 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _MAY_BE_NUMBER:
        return text
    if _DECIMAL.fullmatch(text):
        return _decimal(text)
    if _HEX.fullmatch(text):
        return _fitting(text, 16)
    return read_as_yaml_1_1(text)


def read_as_yaml_1_1(text: str) -> Scalar:
    """Return the value that kubectl reads: YAML 1.1 with YAML 1.2's octal numbers.

    A number that is too large for a float is text.
    """
    if text in _WORDS:
        return _WORDS[text]
    number = text.replace("_", "")
    if text[0] == "_" or len(number) > _DIGITS_MAX:
        return text
    if whole := _INTEGER_1_1.fullmatch(number):
        base = str(whole.lastgroup)
        value = int(whole["sign"] + whole[base], _BASES[base])
        if abs(value) < 1 << 64:
            return value
        return float(value) if abs(value) < _FLOAT_MAX else text
    if _FLOAT_1_1.fullmatch(number):
        read = float(number)
        if read.is_integer() and abs(read) < 1 << 53:
            return int(read)
        if math.isfinite(read):
            return read
    return text


def _decimal(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0":
        raise _leading_zero(text, digits)
    return _fitting(text, 10)


def _leading_zero(text: str, digits: str) -> InputError:
    sign = "-" if text[0] == "-" else ""
    decimal = sign + (digits.lstrip("0") or "0")
    if len(digits) > INTEGER_BITS or not set(digits) <= set("01234567"):
        shown = _short(text)
        return InputError(
            f"{shown} has a leading zero", hint=f"quote it, or write {_short(decimal)}"
        )
    octal = sign + str(int(digits, 8))
    if octal == decimal:
        return InputError(f"{text} has a leading zero", hint=f"quote it, or write {decimal}")
    return InputError(
        f"{text} is {octal} in YAML 1.1 and {decimal} in YAML 1.2",
        hint=f"quote it, or write {octal} or {decimal}",
    )


def _fitting(text: str, base: int) -> int:
    # Check the length first: int() of a very long text is slow or refused.
    if len(text) <= INTEGER_BITS + 2:
        number = int(text, base)
        if number.bit_length() <= INTEGER_BITS:
            return number
    raise InputError(
        f"{_short(text)} is a number of more than {INTEGER_BITS} bits", hint="quote it"
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}…"
