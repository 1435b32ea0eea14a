"""Generates docs/api.md's tables and docs/api.schema.json from the types of the answer.

Descriptions are the docstrings of the types and of their fields, or, for a number without a
docstring, its help text in ``/metrics``.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import ModuleType
from typing import Any

import msgspec

from userspace_proxy import causes, facts
from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy.facts.encoding import CauseFacts

from .markdown import replace_part, table
from .settings_pages import DOCS

PAGE = DOCS / "api.md"
SCHEMA = DOCS / "api.schema.json"

_REF = "#/$defs/{name}"
_SUFFIX = "Facts"

_MODULES = (
    facts.figures, facts.last_minute, facts.port, facts.processes, facts.node,
    facts.connection, facts.edges, facts.encoding, causes.cause,
)  # fmt: skip

SHARED_FROM_WORDS = 5
"""Descriptions of at least this many words that several fields share are printed only once."""


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of the status, whose parts are shared with other answers."""
    root, parts = described((StatusFacts, ConnectionFacts, EdgesFacts, CauseFacts))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The answer of /api/v1/status of userspace-proxy",
        **root,
        "$defs": parts,
    }


def described(
    written: Sequence[type], *more: ModuleType
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the first type's schema, and the schemas of all types to which it refers, by name.

    Args:
        more: Modules with types that aren't part of the status.
    """
    (root, *_), parts = msgspec.json.schema_components(
        written, ref_template=_REF, schema_hook=_schema_of
    )
    descriptions = _descriptions((*_MODULES, *more))
    for name, part in parts.items():
        if text := part.get("description"):
            part["description"] = _worded(text)
        for field, content in part.get("properties", {}).items():
            # Only the code needs the defaults, because an answer contains every field.
            content.pop("default", None)
            if text := descriptions[name].get(field):
                content["description"] = _worded(text)
        if "properties" in part:
            part["required"] = list(part["properties"])
    return root, parts


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the schema of ``Cause``, the only type in the JSON that msgspec doesn't support."""
    if kind is Cause:
        return {"$ref": _REF.format(name=CauseFacts.__name__)}
    raise NotImplementedError(f"a {kind.__name__} isn't part of the JSON")


def _worded(text: str) -> str:
    """Return a docstring as one line for readers of JSON."""
    text = re.sub(r":class:`(\w+)`", lambda match: _title(match[1]), " ".join(text.split()))
    return re.sub(r"\bNone\b", "null", text).replace("``", "`")


def make_tables(schema: Mapping[str, Any]) -> str:
    """Return a table of the fields of each object in a schema, the answer's table first."""
    parts = schema["$defs"]
    first = schema["$ref"].rpartition("/")[2]
    return sections(parts, (first, *(name for name in parts if name != first)))


def sections(parts: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    """Return a table of the fields of each of these objects."""
    lines: list[str] = []
    known: dict[tuple[str, str], str] = {}
    for name in names:
        lines += _section(name, parts[name], known)
    return "\n".join(lines).rstrip()


def make_schema_text() -> str:
    """Return the content of docs/api.schema.json."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def make_page(page: str) -> str:
    """Return docs/api.md with tables that are up to date."""
    return replace_part(page, make_tables(make_schema()))


def _section(
    name: str, part: Mapping[str, Any], known: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Yield the lines about an object.

    Args:
        known: The title of the first object with each field, by field and description; this
            object's fields are added.
    """
    title = _title(name)
    yield f"### {title}"
    yield ""
    if text := part.get("description"):
        yield text
        yield ""
    if "enum" in part:
        yield ", ".join(f"`{value}`" for value in part["enum"] if value)
        yield ""
        return
    rows = []
    shared: dict[str, list[str]] = {}
    for field, content in part["properties"].items():
        text = content.get("description", "")
        where = known.setdefault((field, text), title)
        if where == title or len(text.split()) < SHARED_FROM_WORDS:
            rows.append((f"`{field}`", _type(content), text))
        else:
            shared.setdefault(where, []).append(f"`{field}`")
    yield table(("field", "type", "what it is"), rows)
    yield ""
    for where, fields in shared.items():
        yield f"As in [{where}](#{where.lower()}): {', '.join(fields)}."
        yield ""


def _type(content: Mapping[str, Any]) -> str:
    if "$ref" in content:
        name = _title(content["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower()})"
    if "anyOf" in content:
        return " or ".join(_type(choice) for choice in content["anyOf"])
    if content["type"] == "array" and "items" in content and content["items"] is not False:
        return f"list of {_type(content['items'])}"
    return str(content["type"])


def _title(name: str) -> str:
    return name.removesuffix(_SUFFIX)


def _descriptions(modules: Iterable[ModuleType]) -> dict[str, dict[str, str]]:
    """Return the docstrings of fields, by class and field."""
    found: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                inherited = (found.get(base, {}).items() for base in bases)
                found[node.name] = {**dict(chain.from_iterable(inherited)), **dict(_fields(node))}
    return found


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        match item, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text
            case (
                ast.AnnAssign(
                    target=ast.Name(id=name),
                    annotation=ast.Subscript(
                        slice=ast.Tuple(
                            elts=[
                                ast.Name(id="int" | "float"),
                                ast.Call(
                                    func=ast.Name(id="counter" | "gauge" | "histogram"),
                                    args=[_, _, ast.Constant(value=str(text)), *_],
                                ),
                            ]
                        )
                    ),
                ),
                _,
            ):
                yield name, f"{text}."
