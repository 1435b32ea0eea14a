"""Reads a text as kubectl reads its own files: the first document, and YAML 1.1 without complaints.

Rule 1: of two equal keys the last one counts, a key is always text, and tags of other programs are
passed over. A file that people share between programs isn't stricter here than there.
Rule 2: depth and aliases have the same limits as in ``composing``.

Source: sigs.k8s.io/yaml, and kubectl 1.36 on the same texts.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import math
import re
from typing import Any

from yaml import events

from ..errors import InputError
from .composing import Reader
from .document import Document, read_with
from .scalars import Scalar

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = (
    frozenset(form for word in words for form in (word, word.capitalize(), word.upper()))
    for words in (("y", "yes", "on", "true"), ("n", "no", "off", "false"))
)
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0b(?P<b>[01]+)|0x(?P<x>[0-9a-fA-F]+)|0o?(?P<o>[0-7]+)|(?P<d>[1-9]\d*|0))",
    re.ASCII,
)
_BASES = {"b": 2, "x": 16, "o": 8, "d": 10}
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_DIGITS_MAX = 400
_FLOAT_MAX = 10**308
_TEXT_TAGS = frozenset(("!", "tag:yaml.org,2002:str"))
_BINARY_TAG = "tag:yaml.org,2002:binary"
_YAML_TAGS = "tag:yaml.org,2002:"


def decode(content: bytes, *, place: str) -> str:
    """Return a file's text: UTF-8, or what its byte order mark says.

    Raises:
        InputError: It is neither.
    """
    mark, encoding = next((m for m in _MARKS if content.startswith(m[0])), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as exc:
        line = content[: len(mark) + exc.start].count(b"\n") + 1
        raise InputError(
            f"{place}:{line}: not {encoding.upper()}", hint="save it as UTF-8"
        ) from exc


def parse_first(text: str, *, place: str) -> Document | None:
    """Return the first document that isn't empty; None if there is none.

    What follows it isn't read.

    Raises:
        InputError: ``{place}:{line}: …``, always one line.
    """
    return next(read_with(_Lenient(place), text, place=place), None)


class _Lenient(Reader):
    """Builds the values that kubectl would."""

    def _value_of(self, event: events.ScalarEvent, line: int) -> Any:
        tag = event.tag or ""
        if tag == _BINARY_TAG:
            with contextlib.suppress(ValueError):
                return base64.b64decode(event.value, validate=True).decode()
        is_plain = event.implicit[0] and not tag
        if is_plain or (tag.startswith(_YAML_TAGS) and tag not in _TEXT_TAGS):
            return read_plain(event.value)
        return event.value

    def _start(
        self, value: dict[str, Any] | list[Any], event: events.CollectionStartEvent, line: int
    ) -> None:
        event.tag = None
        super()._start(value, event, line)

    def _key(self, key: Any, line: int, *, is_merge: bool) -> None:
        if key is None:
            self._fail(line, "key null is not text", "quote it")
        if isinstance(key, int | float):
            key = str(key).lower()
        if isinstance(key, str) and not is_merge:
            self._open[-1].children.pop(key, None)
        super()._key(key, line, is_merge=is_merge)


def read_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar: YAML 1.1, and the octal numbers of 1.2.

    A number that is too large for a float is text.
    """
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    number = text.replace("_", "")
    if text[0] == "_" or len(number) > _DIGITS_MAX:
        return text
    if whole := _INTEGER.fullmatch(number):
        base = str(whole.lastgroup)
        value = int(whole["sign"] + whole[base], _BASES[base])
        if abs(value) < 1 << 64:
            return value
        return float(value) if abs(value) < _FLOAT_MAX else text
    if _FLOAT.fullmatch(number):
        read = float(number)
        if read.is_integer() and abs(read) < 1 << 53:
            return int(read)
        if math.isfinite(read):
            return read
    return text
