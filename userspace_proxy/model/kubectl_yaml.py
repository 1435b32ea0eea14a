"""Reads YAML as kubectl reads its own files: only the first document, and lenient YAML 1.1.

Rule 1: duplicate keys, keys that aren't text and other programs' tags are accepted. A file that
several programs share is parsed no more strictly here.
Rule 2: depth and aliases have the same limits as in ``yaml_builder``.

Source: sigs.k8s.io/yaml, and kubectl 1.36 on the same texts.
"""

from __future__ import annotations

import base64
import contextlib
from typing import Any

from yaml import events

from .document import Document, read_with
from .scalars import read_as_yaml_1_1
from .yaml_builder import NOT_UTF_8_HERE, Reader

_TEXT_TAGS = frozenset(("!", "tag:yaml.org,2002:str"))
_BINARY_TAG = "tag:yaml.org,2002:binary"
_YAML_TAGS = "tag:yaml.org,2002:"


def parse_first(text: str, *, place: str) -> Document | None:
    """Return the first document that isn't empty; None if there is none.

    The rest of the text isn't read.

    Raises:
        InputError: ``{place}:{line}: …``, always one line.
    """
    return next(read_with(_Lenient(place), text, place=place), None)


class _Lenient(Reader):
    """A reader that builds the values that kubectl would build."""

    def _value_of(self, event: events.ScalarEvent, line: int) -> Any:
        tag = event.tag or ""
        if tag == _BINARY_TAG:
            with contextlib.suppress(ValueError):
                return base64.b64decode(event.value, validate=True).decode()
        is_plain = event.implicit[0] and not tag
        if is_plain or (tag.startswith(_YAML_TAGS) and tag not in _TEXT_TAGS):
            return read_as_yaml_1_1(event.value)
        return event.value

    def _key(self, key: Any, line: int, *, is_merge: bool) -> None:
        if key is None:
            self._fail(line, "key null is not text")
        super()._key(key, line, is_merge=is_merge)

    def _note(self, _line: int, _problem: str, _hint: str = "", _key: str = "") -> None:
        """Ignore a mistake, as the other programs that read the file do."""

    def _note_undecoded(self, line: int) -> None:
        self._fail(line, *NOT_UTF_8_HERE)
