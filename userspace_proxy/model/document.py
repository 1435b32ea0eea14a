"""Parses YAML and JSON text into plain values with line numbers.

text ──libyaml──▶ events ──composing──▶ Document: value, and the line of every field
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import InputError
from .composing import Place, Reader, line_at

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# An escape sequence in JSON; two of them may be one character outside the BMP, which YAML writes
# in another way.
_ESCAPES = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a text."""

    value: Any
    """Dicts with text keys, lists, text, numbers, booleans, None. Don't change it: an alias and its
    target are the same object."""
    place: str
    """The file, for errors."""
    _root: Place | int = field(repr=False, compare=False)

    @property
    def line(self) -> int:
        """The line of its first key or item, counted from 1."""
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


def parse_documents(text: str, *, place: str) -> list[Document]:
    """Read all documents of YAML or JSON text except empty ones.

    Raises:
        InputError: ``{place}:{line}: …``, always one line.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        text = _ESCAPES.sub(_join_surrogates, text)
    try:
        text.encode()
        made = Reader(place).documents(yaml.parse(text, Loader=_Loader))
        return [Document(value, place, root) for value, root in made]
    except UnicodeEncodeError as exc:
        problem = "the text isn't valid Unicode"
        raise InputError(f"{place}:{_line_after(text[: exc.start])}: {problem}") from exc
    except yaml.reader.ReaderError as exc:
        raise InputError(f"{place}:{_unreadable(exc, text)}") from exc
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(exc, text, place) from exc


def _first_steps(path: str) -> Iterator[str]:
    """Yield the possible first keys (or the index) of a path, shortest first."""
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


def _unreadable(exc: yaml.reader.ReaderError, text: str) -> str:
    """Describe a character that YAML doesn't allow, starting with its line."""
    before = text[: exc.position]
    if exc.encoding != "unicode":  # The C parser counts bytes, the Python one characters.
        before = text.encode()[: exc.position].decode(errors="ignore")
    return f"{_line_after(before)}: not YAML: character U+{exc.character:04X}: {exc.reason}"


def _syntax_error(exc: yaml.MarkedYAMLError, text: str, place: str) -> InputError:
    mark = exc.problem_mark or exc.context_mark
    lines = text.splitlines()
    # For the parser, the end of the text is a line of its own.
    line = min(mark.line + 1, len(lines)) if mark else 1
    context = exc.context or ""
    if exc.context_mark and exc.context_mark.line + 1 != line:
        context += f" begun in line {exc.context_mark.line + 1}"
    words = ", ".join(" ".join(part.split()) for part in (context, exc.problem) if part)
    # The parser calls a tab a "character that cannot start any token".
    written = lines[line - 1]
    indent = written[: len(written) - len(written.lstrip())]
    hint = "indent with spaces, not tabs" if "\t" in indent else ""
    return InputError(f"{place}:{line}: not YAML: {words}", hint=hint)


def _line_after(text: str) -> int:
    return text.count("\n") + 1
