"""Builds values, and the line of each key and item, from the events of a YAML parser.

Errors about a key or item name its line.

Rule 1: duplicates and ambiguous values are reported as mistakes with the line and a remedy, because
a parser that guesses serves the wrong port. The caller decides whether a mistake matters: a mistake
in a skipped object doesn't. The value is the one that kubectl would read.
Rule 2: the length of the text bounds the work: depth and aliases are limited, and no function
recurses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from yaml import events

from ..errors import InputError
from .quoting import quoted
from .scalars import read_as_yaml_1_1, read_plain

DEPTH_MAX = 100
"""The maximum depth of containers; a Service needs 8, and readers of values are recursive."""
ALIASED_NODES_MAX = 100_000
"""The maximum number of values that aliases in one text refer to, so that a small file can't become
a huge object."""
DOCUMENTS_MAX = 100_000
"""The maximum number of documents in one text: each takes 20 µs, and at least three characters."""
TOO_MANY_DOCUMENTS = f"it has more than {DOCUMENTS_MAX:,} documents", "split the file"
"""The error for a text with more documents, and its remedy."""
MISTAKES_MAX = 10_000
"""The maximum number of mistakes in one document; a document with more mistakes is rejected."""
NOT_UTF_8 = "\ufdd0"
"""Replaces bytes that aren't UTF-8: a Unicode noncharacter, which no valid text contains."""
NOT_UTF_8_HERE = "it is not UTF-8 here", "save the file as UTF-8"
"""The error for bytes that aren't UTF-8, and its remedy."""

_TAGS_OF_TEXT = ("!", "tag:yaml.org,2002:str")
_TAGS_OF_SCALARS: Mapping[str, tuple[type, ...]] = {
    "tag:yaml.org,2002:int": (int,),
    "tag:yaml.org,2002:float": (int, float),
    "tag:yaml.org,2002:bool": (bool,),
    "tag:yaml.org,2002:null": (type(None),),
}
_TAGS_OF_CONTAINERS = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class TextError(InputError):
    """A text is invalid: ``web.yaml:9: key 'port' is given twice, first in line 7``."""

    def __init__(
        self, place: str, line: int, problem: str, hint: str = "", *, path: str = "", key: str = ""
    ) -> None:
        super().__init__(f"{place}:{line}: {path}{': ' if path else ''}{problem}", hint=hint)
        self.line = line
        self.problem = f"{path}: {problem}" if path else problem
        self.path = path
        """The container or key with the error: ``spec.ports[0]``; empty for the document."""
        self.key = key
        """The key in ``path`` that is given twice, or isn't text, and that kubectl accepts."""


class Place(NamedTuple):
    """The line of a container, and the places of its children by key or by index (``[0]``).

    A scalar's place is just its line.
    """

    line: int
    children: Mapping[str, Place | int]


def line_at(place: Place | int) -> int:
    """Return the line of a place, counted from 1."""
    return place if isinstance(place, int) else place.line


@dataclass(slots=True)
class _Value:
    """A complete value."""

    value: Any
    place: Place | int
    nodes: int = 1
    """The number of values in it, including itself; an alias counts each time it is used."""
    height: int = 0
    """The depth of its containers: 0 for a scalar, 1 for a container of scalars."""


@dataclass(slots=True)
class _Open:
    """A container whose end hasn't been reached."""

    value: dict[str, Any] | list[Any]
    line: int
    anchor: str | None
    children: dict[str, Place | int] = field(default_factory=dict)
    nodes: int = 1
    height: int = 1
    key: str | None = None
    """The key of the next value; None before a key, and in a list."""
    is_merge: bool = False
    """Whether the key is an unquoted ``<<``."""
    merged: set[str] | None = None
    """The keys that ``<<`` has added and the mapping hasn't replaced; None without ``<<``."""


class Reader:
    """Builds the values of one text's documents.

    Args:
        lines_before: The number of lines before the text, added to line numbers in errors only.
        aliased_nodes_max: The maximum number of values to which aliases may refer.
    """

    def __init__(
        self, place: str, *, lines_before: int = 0, aliased_nodes_max: int = ALIASED_NODES_MAX
    ) -> None:
        self._place = place
        self._lines_before = lines_before
        self._aliased_nodes_max = aliased_nodes_max
        self._open: list[_Open] = []
        self._anchors: dict[str, _Value | None] = {}
        """The values of anchors; None while a value is incomplete."""
        self.aliased_nodes = 0
        """The number of values to which aliases have referred so far."""
        self.mistakes: list[TextError] = []
        """Mistakes in the document that :meth:`documents` yielded last."""
        self._root: _Value | None = None

    def documents(self, stream: Iterator[events.Event]) -> Iterator[tuple[Any, Place | int]]:
        """Yield the value and the place of each document that isn't empty.

        Raises:
            TextError: A limit is exceeded, a key is a container, or an alias is invalid.
        """
        count = 0
        for event in stream:
            line = event.start_mark.line + 1 if event.start_mark else 1
            match event:
                case events.ScalarEvent():
                    self._scalar(event, line)
                case events.MappingStartEvent():
                    self._start({}, event, line)
                case events.SequenceStartEvent():
                    self._start([], event, line)
                case events.MappingEndEvent() | events.SequenceEndEvent():
                    self._end()
                case events.AliasEvent():
                    self._alias(event, line)
                case events.DocumentStartEvent():
                    count += 1
                    if count > DOCUMENTS_MAX:
                        self._fail(line, *TOO_MANY_DOCUMENTS)
                    self._anchors.clear()
                    self.mistakes = []
                case events.DocumentEndEvent():
                    if self._root is not None and self._root.value is not None:
                        yield self._root.value, self._root.place

    def _scalar(self, event: events.ScalarEvent, line: int) -> None:
        value = self._value_of(event, line)
        if NOT_UTF_8 in event.value:
            self._note_undecoded(line)
        made = _Value(value, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = made
        if self._wants_key():
            self._key(value, line, is_merge=event.implicit[0] and value == "<<")
        else:
            self._add(made)

    def _value_of(self, event: events.ScalarEvent, line: int) -> Any:
        tag = event.tag
        if event.implicit[0] and tag is None:
            return self._plain(event.value, line)
        if tag is None or tag in _TAGS_OF_TEXT:
            return event.value
        if tag not in _TAGS_OF_SCALARS:
            self._note_tag(tag, line)
            return event.value
        value = self._plain(event.value, line)
        if type(value) not in _TAGS_OF_SCALARS[tag]:
            self._note(line, f"{quoted(event.value)} is not what its tag {_shown(tag)} says")
        return value

    def _plain(self, text: str, line: int) -> Any:
        try:
            return read_plain(text)
        except InputError as exc:
            self._note(line, exc.message, exc.hint)
            return read_as_yaml_1_1(text)

    def _start(
        self, value: dict[str, Any] | list[Any], event: events.CollectionStartEvent, line: int
    ) -> None:
        if self._wants_key():
            self._fail(line, "a key must be text, not a mapping or list")
        if event.tag not in _TAGS_OF_CONTAINERS:
            self._note_tag(event.tag or "", line)
        if len(self._open) >= DEPTH_MAX:
            self._fail(line, f"nested more than {DEPTH_MAX} deep")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(value, self._line_of_next(line), event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        made = _Value(done.value, Place(done.line, done.children), done.nodes, done.height)
        if done.anchor is not None:
            self._anchors[done.anchor] = made
        self._add(made)

    def _alias(self, event: events.AliasEvent, line: int) -> None:
        name = event.anchor
        if name not in self._anchors:
            # The alias isn't quoted, because it may be a password.
            self._fail(line, "the alias is not defined", "quote a text that begins with *")
        target = self._anchors[name]
        if target is None:
            self._fail(line, f"alias *{name} is part of the value that it refers to")
        self.aliased_nodes += target.nodes
        if self.aliased_nodes > self._aliased_nodes_max:
            self._fail(line, f"aliases expand to more than {self._aliased_nodes_max} values")
        if len(self._open) + target.height > DEPTH_MAX:
            self._fail(line, f"alias *{name} nests more than {DEPTH_MAX} deep")
        if self._wants_key():
            self._key(target.value, line, is_merge=False)
            return
        here = self._line_of_next(line)
        place = here if isinstance(target.place, int) else Place(here, target.place.children)
        self._add(_Value(target.value, place, target.nodes, target.height))

    def _wants_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and not (self._open[-1].is_merge or self._open[-1].key is not None)
        )

    def _key(self, key: Any, line: int, *, is_merge: bool) -> None:
        here = self._open[-1]
        if not isinstance(key, str):
            if isinstance(key, dict | list):
                self._fail(line, "a key must be text, not a mapping or list")
            is_read, key = key is not None, _yaml_word(key)
            self._note(line, f"key {key} is not text", "quote it", key if is_read else "")
        if is_merge:
            if here.merged is not None:
                self._note(line, "<< is given twice", "merge a list of aliases")
            here.is_merge = True
            return
        if here.merged and key in here.merged:
            here.merged.remove(key)
        elif key in here.children:
            first = line_at(here.children[key]) + self._lines_before
            self._note(line, f"key {quoted(key)} is given twice, first in line {first}", "", key)
        # Intern keys, because objects share them; a key that occurs once is freed like any text.
        here.key = key = sys.intern(key)
        here.children[key] = line

    def _add(self, made: _Value) -> None:
        """Add a complete value to the innermost container."""
        if not self._open:
            self._root = made
            return
        here = self._open[-1]
        here.nodes += made.nodes
        here.height = max(here.height, made.height + 1)
        if isinstance(here.value, list):
            here.children[f"[{len(here.value)}]"] = made.place
            here.value.append(made.value)
        elif here.is_merge:
            here.is_merge = False
            self._merge(here, made)
        elif here.key is not None:
            if not isinstance(made.place, int):
                here.children[here.key] = made.place
            here.value[here.key] = made.value
            here.key = None

    def _merge(self, here: _Open, made: _Value) -> None:
        """Add the keys of ``<<``; as in kubectl, they replace earlier keys."""
        place = made.place
        places = {} if isinstance(place, int) else place.children
        sources = (
            [(v, places[f"[{i}]"]) for i, v in enumerate(made.value)]
            if isinstance(made.value, list)
            else [(made.value, place)]
        )
        merged = here.merged = here.merged or set()
        # If several mappings contain a key, the first mapping's value is used, so add the first
        # mapping last.
        for value, source in reversed(sources):
            if not isinstance(value, dict) or isinstance(source, int):
                self._note(line_at(source), "<< takes a mapping or a list of mappings")
                continue
            for key, item in value.items():
                if key in here.children and key not in merged:
                    self._note_replaced(here, key, line_at(place))
                if isinstance(here.value, dict):
                    here.value[key] = item
                    here.children[key] = source.children[key]
                    merged.add(key)

    def _note_replaced(self, here: _Open, key: str, line: int) -> None:
        first = line_at(here.children[key]) + self._lines_before
        problem = f"<< replaces key {quoted(key)} of line {first}"
        self._note(line, problem, "write << before it", key)

    def _line_of_next(self, line: int) -> int:
        """Return the line of the next value: its key's line if it has a key."""
        if self._open and (key := self._open[-1].key) is not None:
            return line_at(self._open[-1].children[key])
        return line

    def _note_undecoded(self, line: int) -> None:
        self._note(line, *NOT_UTF_8_HERE)

    def _note_tag(self, tag: str, line: int) -> None:
        self._note(line, f"tag {_shown(tag)} is not understood", "leave it out")

    def _note(self, line: int, problem: str, hint: str = "", key: str = "") -> None:
        self.mistakes.append(self._error(line, problem, hint, key))
        if len(self.mistakes) > MISTAKES_MAX:
            self._fail(line, f"there are more than {MISTAKES_MAX:,} such mistakes before this one")

    def _fail(self, line: int, problem: str, hint: str = "") -> NoReturn:
        raise self._error(line, problem, hint)

    def _error(self, line: int, problem: str, hint: str, key: str = "") -> TextError:
        path = ""
        for container in self._open:
            if isinstance(container.value, list):
                path += f"[{len(container.value)}]"
            elif container.key is not None:
                path += f".{container.key}" if path else container.key
        line += self._lines_before
        return TextError(self._place, line, problem, hint, path=path, key=key)


def _shown(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _yaml_word(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
