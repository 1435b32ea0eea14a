"""Generates docs/api.md's tables and docs/api.schema.json from the types of the answer.

Run it as ``make docs``; a test checks that both are up to date. Descriptions are the docstrings of
the types and the texts below their fields.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from userspace_proxy import model
from userspace_proxy.status import answer, counted, paths, port_state, problems, view

from .settings_pages import DOCS, replace_tables

PAGE = DOCS / "api.md"
SCHEMA = DOCS / "api.schema.json"

_REF = "#/$defs/{name}"
_SUFFIXES = ("Answer", "View")


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of the answer."""
    (root,), parts = msgspec.json.schema_components((answer.StatusAnswer,), ref_template=_REF)
    descriptions = _descriptions()
    for name, part in parts.items():
        if text := part.get("description"):
            part["description"] = _worded(text)
        for field, content in part.get("properties", {}).items():
            # A default is that of the code; the answer contains every field.
            content.pop("default", None)
            if text := descriptions[name].get(field):
                content["description"] = _worded(text)
        if "properties" in part:
            part["required"] = list(part["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The answer of /api/v1/status of userspace-proxy",
        **root,
        "$defs": parts,
    }


def _worded(text: str) -> str:
    """Return a docstring as one line for readers of JSON."""
    text = re.sub(r":class:`(\w+)`", lambda match: _title(match[1]), " ".join(text.split()))
    return re.sub(r"\bNone\b", "null", text).replace("``", "`")


def make_tables(schema: Mapping[str, Any]) -> str:
    """Return a table of the fields of each object in a schema, the answer's first."""
    parts = schema["$defs"]
    first = schema["$ref"].rpartition("/")[2]
    lines: list[str] = []
    for name in (first, *(name for name in parts if name != first)):
        lines += _section(name, parts[name])
    return "\n".join(lines).rstrip()


def make_schema_text() -> str:
    """Return the content of docs/api.schema.json."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def make_page(page: str) -> str:
    """Return docs/api.md with tables that are up to date."""
    return replace_tables(page, make_tables(make_schema()))


def _section(name: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {_title(name)}"
    yield ""
    if text := part.get("description"):
        yield text
        yield ""
    if "enum" in part:
        yield ", ".join(f"`{value}`" for value in part["enum"])
    else:
        yield "| field | type | what it is |"
        yield "|---|---|---|"
        for field, content in part["properties"].items():
            text = content.get("description", "").replace("|", "\\|")
            yield f"| `{field}` | {_type(content)} | {text} |"
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
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _descriptions() -> dict[str, dict[str, str]]:
    """Return the texts below fields, by class and field."""
    modules = (answer, counted, paths, port_state, problems, view, model.causes)
    found: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = dict(_fields(node))
    return found


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, after in zip(node.body, node.body[1:], strict=False):
        match item, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text


def main() -> None:
    """Write the page and the schema."""
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(make_schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
