"""Decides the value of a plain YAML scalar: YAML 1.2's core schema, without guessing.

``on``, ``yes``, ``12:30`` and dates are text. A number that differs between YAML 1.1, which kubectl
reads, and YAML 1.2 (``012``) is an error.
"""

from __future__ import annotations

import re

from ..errors import InputError

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float("inf") for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **{word: float("-inf") for word in ("-.inf", "-.Inf", "-.INF")},
}
_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_OCTAL = re.compile(r"0o[0-7]+")
_MAY_BE_NUMBER = frozenset("0123456789+-.")

INTEGER_BITS = 64
"""Kubernetes objects contain no larger ones; Python would take minutes for a very long one."""


def read_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar.

    Raises:
        InputError: A number with a leading zero, or one of more than 64 bits.

    Source: YAML 1.2.2, section 10.3.2 (core schema).
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _MAY_BE_NUMBER:
        return text
    if _DECIMAL.fullmatch(text):
        return _decimal(text)
    if _HEX.fullmatch(text):
        return _fitting(text, 16)
    if _OCTAL.fullmatch(text):
        return _fitting(text, 8)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read_as_yaml_1_1(text: str) -> Scalar:
    """Return the value that YAML 1.1 gives a number that :func:`read_plain` refuses.

    Text if it has none there, or is too long.
    """
    digits = text.lstrip("+-")
    if len(digits) > INTEGER_BITS or not set(digits) <= set("01234567") or digits[0] != "0":
        return text
    return int(digits, 8) * (-1 if text[0] == "-" else 1)


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
    # Checked by length first: int() of a very long text is slow or refused.
    if len(text) <= INTEGER_BITS + 2:
        number = int(text, base)
        if number.bit_length() <= INTEGER_BITS:
            return number
    raise InputError(
        f"{_short(text)} is a number of more than {INTEGER_BITS} bits", hint="quote it"
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}…"
