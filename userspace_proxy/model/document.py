"""Parses YAML and JSON text into plain values with line numbers.

    text ──▶ parts ──libyaml──▶ events ──composing──▶ Document: value, and the line of every field

Each part is parsed separately, so after a change only the changed parts are parsed again.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from .yaml_builder import (
    ALIASED_NODES_MAX,
    DOCUMENTS_MAX,
    NOT_UTF_8,
    Place,
    Reader,
    TextError,
    line_at,
)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A JSON escape sequence, or two that form a surrogate pair, which YAML doesn't support.
_ESCAPES = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)")

_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_MARK_INSIDE = re.compile(r"^(---[ \t]*\r?\n)\ufeff", re.MULTILINE)
_JSON = json.JSONDecoder(strict=False)

_UNDECODED = re.compile("[\ud800-\udfff]+")

_BLANKS = ("", " ", "\t", "\r", "\n")
_BREAKS_OF_YAML = ("\x85", "\u2028", "\u2029")
_BREAKS_OF_YAML_ESCAPED = {ord(each): f"\\u{ord(each):04x}" for each in _BREAKS_OF_YAML}
# Text that contains one of these isn't split: directives, which belong to the next document, and
# YAML's other line breaks, which count as lines.
_UNSPLIT = ("\n%", *_BREAKS_OF_YAML)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of YAML or JSON text."""

    value: Any
    """Dicts with text keys, lists, text, numbers, booleans, None. Don't change it: an alias and its
    target are the same object."""
    place: str
    """The file's name, for errors."""
    _root: Place | int = field(repr=False, compare=False)
    aliased_nodes: int = field(default=0, compare=False)
    """The number of values to which aliases refer, in this and all previous documents."""
    mistakes: tuple[TextError, ...] = field(default=(), compare=False)
    """Duplicate keys (the last one is used) and ambiguous values, sorted by line."""

    @property
    def line(self) -> int:
        """The line of the first key or item, counted from 1."""
        return line_at(self._root)

    def line_of(self, path: str) -> int:
        """Return the line of a field such as ``spec.ports[0].port``, counted from 1.

        A missing field has the line of its nearest existing parent.
        """
        here, rest = self._root, path
        while rest and not isinstance(here, int):
            for name in _first_steps(rest):
                if name in here.children:
                    here = here.children[name]
                    rest = rest[len(name) :].removeprefix(".")
                    break
            else:
                break
        return line_at(here)


def decode(data: bytes) -> str:
    """Return the text of a YAML or JSON file: UTF-8, or UTF-16 with a byte order mark.

    Bytes that aren't UTF-8 are replaced by a character that is reported as a mistake in any value.

    Source: YAML 1.2.2, section 5.2.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _UNDECODED.sub(NOT_UTF_8, data.decode(errors="surrogateescape"))


class Part(NamedTuple):
    """A part of YAML or JSON text: one document, or several if it can't be split."""

    text: str
    lines_before: int


def split_documents(text: str) -> list[Part]:
    """Split YAML or JSON text into parts to parse one by one: its documents, or all of the text.

    JSON objects may follow each other without ``---``, as in kubectl. Empty documents are omitted,
    which is 50 times as fast as parsing them.

    Source: YAML 1.2.2, c-forbidden: ``---`` at the start of a line is never part of a value.
    """
    text = _prepared(text)
    has_bare_cr = text.count("\r") != text.count("\r\n")
    if text.startswith("%") or any(map(text.__contains__, _UNSPLIT)) or has_bare_cr:
        return [Part(text, 0)]
    ends = _ends_of_json(text)
    parts: list[Part] = []
    lines_before = 0
    if len(ends) > 1:
        for begin, end in pairwise((0, *ends)):
            parts.append(Part(text[begin:end], lines_before))
            lines_before += text.count("\n", begin, end)
        text = text[ends[-1] :]
    first, *others = text.split("\n---")
    waiting = first
    for other in others:
        if other[:1] not in _BLANKS:
            waiting += "\n---" + other
            continue
        if waiting.removeprefix("---").strip(" \t\r\n"):
            parts.append(Part(waiting + "\n", lines_before))
        lines_before += waiting.count("\n") + 1
        waiting = "---" + other
    return [*parts, Part(waiting, lines_before)]


def parse_documents(text: str, *, place: str) -> list[Document]:
    """Return all documents of YAML or JSON text, except empty documents.

    Raises:
        TextError: ``{place}:{line}: …``, always one line.
    """
    documents, error = parse_until_error(text, place=place)
    if error is not None:
        raise error
    return documents


def parse_until_error(
    text: str, *, place: str, lines_before: int = 0, aliased_nodes_max: int = ALIASED_NODES_MAX
) -> tuple[list[Document], TextError | None]:
    """Parse like :func:`parse_documents`; return the documents, and the error after them, if any.

    Args:
        lines_before: The number of lines before this part, added to line numbers in errors only.
    """
    reader = Reader(place, lines_before=lines_before, aliased_nodes_max=aliased_nodes_max)
    documents: list[Document] = []
    try:
        documents.extend(read_with(reader, text, place=place, lines_before=lines_before))
    except TextError as exc:
        return documents, exc
    return documents, None


def read_with(
    reader: Reader, text: str, *, place: str, lines_before: int = 0
) -> Iterator[Document]:
    """Yield the documents of a text from a given reader; see :func:`parse_documents`.

    Raises:
        TextError: See parse_documents. A document is only read when it is requested.
    """
    text = _prepared(text)
    try:
        text.encode()
        loader = _Loader(text)
        # Cost: a tenth less than yaml.parse, which requests each event twice.
        for value, root in reader.documents(iter(loader.get_event, None)):
            mistakes = tuple(reader.mistakes)
            yield Document(value, place, root, reader.aliased_nodes, mistakes)
    except UnicodeEncodeError as exc:
        line = _line_after(text[: exc.start]) + lines_before
        raise TextError(place, line, "the text isn't valid Unicode") from exc
    except yaml.reader.ReaderError as exc:
        line, problem = _unreadable(exc, text)
        raise TextError(place, line + lines_before, problem) from exc
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(exc, text, place, lines_before) from exc


def _ends_of_json(text: str, begin: str = "{") -> list[int]:
    """Return the ends of the JSON values at the start of a text, at most ``DOCUMENTS_MAX`` + 1.

    Args:
        begin: The characters with which a value may begin.
    """
    ends: list[int] = []
    end = 0
    with contextlib.suppress(ValueError, RecursionError):
        while found := _NOT_BLANK.search(text, end):
            if found[0] not in begin or len(ends) > DOCUMENTS_MAX:
                break
            _, end = _JSON.raw_decode(text, found.start())
            ends.append(end)
    return ends


def _prepared(text: str) -> str:
    text = text.removeprefix("\ufeff")
    if "\ufeff" in text:
        text = _MARK_INSIDE.sub(r"\1", text)
    if text.lstrip()[:1] in ("{", "["):
        text = _ESCAPES.sub(_join_surrogates, text)
        if any(map(text.__contains__, _BREAKS_OF_YAML)):
            # Escape these characters, which are ordinary in JSON strings.
            end = max(_ends_of_json(text, "{["), default=0)
            text = text[:end].translate(_BREAKS_OF_YAML_ESCAPED) + text[end:]
    return text


def _first_steps(path: str) -> Iterator[str]:
    """Yield the possible first keys (or index) of a path, shortest first."""
    if path.startswith("["):
        yield path[: path.find("]") + 1]
        return
    for step in re.finditer(r"[.\[]", path):
        yield path[: step.start()]
    yield path


def _join_surrogates(escape: re.Match[str]) -> str:
    high, low = escape.groups()
    if high is None:
        return escape[0]
    return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))


def _unreadable(exc: yaml.reader.ReaderError, text: str) -> tuple[int, str]:
    """Return the line and the description of a character that YAML doesn't allow."""
    before = text[: exc.position]
    if exc.encoding != "unicode":  # The C parser counts bytes, the Python parser characters.
        before = text.encode()[: exc.position].decode(errors="ignore")
    return _line_after(before), f"not YAML: character U+{exc.character:04X}: {exc.reason}"


def _syntax_error(exc: yaml.MarkedYAMLError, text: str, place: str, lines_before: int) -> TextError:
    mark = exc.problem_mark or exc.context_mark
    lines = text.splitlines()
    # The parser counts the end of the text as another line, which doesn't exist.
    line = min(mark.line + 1, len(lines)) if mark else 1
    begun = min(exc.context_mark.line + 1, len(lines)) if exc.context_mark else line
    context = exc.context or ""
    if begun != line:
        context += f" begun in line {begun + lines_before}"
    words = ", ".join(" ".join(part.split()) for part in (context, exc.problem) if part)
    # Mention tabs: the parser calls a tab a "character that cannot start any token".
    written = lines[line - 1]
    indent = written[: len(written) - len(written.lstrip())]
    hint = "indent with spaces, not tabs" if "\t" in indent else ""
    return TextError(place, line + lines_before, f"not YAML: {words}", hint)


def _line_after(text: str) -> int:
    return text.count("\n") + 1
