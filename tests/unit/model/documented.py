"""Reads the fields in docs/services.md, the Kubernetes API and wire.py.

The API's fields come from kubernetes-asyncio's generated models. Their source is parsed, because
importing them takes 1.2 s.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from userspace_proxy import model
from userspace_proxy.model.annotations import ANNOTATIONS
from userspace_proxy.model.wire import (
    Metadata,
    WireEndpoints,
    WireEndpointSlice,
    WireNode,
    WireService,
)

PAGE = Path(__file__).parents[3] / "docs" / "services.md"
KINDS = {
    "Service": ("V1Service", WireService),
    "EndpointSlice": ("V1EndpointSlice", WireEndpointSlice),
    "Endpoints": ("V1Endpoints", WireEndpoints),
    "Node": ("V1Node", WireNode),
}
METADATA = "Metadata of all of them"
# The page has no rows for these fields: two identify a kind, and metadata has its own section.
_OF_ALL = ("apiVersion", "kind", "metadata")
# Only lists have this field.
_OF_LISTS = ("continue",)
_ROW = re.compile(
    r"^\|(?P<names>[^|]+)\|(?:[^|]+\|)?\s*(?P<word>supported|ignored)\s*\|(?P<why>.+)\|"
)


def documented() -> dict[str, dict[str, str]]:
    """Return ``supported`` or ``ignored`` for each field, by section of the page.

    Labels, annotations and taints are among the fields of the metadata.

    Raises:
        ValueError: A field occurs twice in a section, or has no reason.
    """
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = sections.setdefault(line.removeprefix("## "), {})
        elif row := _ROW.match(line):
            for name in re.findall(r"`([^`]+)`", row["names"]):
                if name in section or not row["why"].strip():
                    raise ValueError(f"{name} occurs twice, or has no reason")
                section[name] = row["word"]
    return sections


def named_values() -> set[str]:
    """Return the labels, annotations and taints that the model reads."""
    return {annotation.key for annotation in ANNOTATIONS} | {
        value
        for module in pkgutil.iter_modules(model.__path__, f"{model.__name__}.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if name.startswith(("LABEL_", "ANNOTATION_", "TAINT_")) and isinstance(value, str)
    }


def fields_of(kind: str) -> dict[str, str]:
    """Return ``supported`` or ``ignored`` for each field of an API kind, according to wire.py.

    Args:
        kind: A section of the page.

    Raises:
        ValueError: The fields in wire.py differ from the fields in the API.
    """
    if kind == METADATA:
        return dict(_walk("V1ObjectMeta", Metadata, "metadata."))
    name, struct = KINDS[kind]
    return dict(_walk(name, struct, ""))


def _walk(api_type: str, struct: Any, path: str) -> Iterator[tuple[str, str]]:
    api = _fields_of_type(api_type)
    read = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    if strange := read.keys() - api.keys() - set(_OF_LISTS):
        raise ValueError(f"{api_type} has no {', '.join(sorted(strange))}")
    if struct.IGNORED is not None:
        if others := (struct.IGNORED | read.keys()) ^ {*api, *(set(_OF_LISTS) & read.keys())}:
            others -= set() if path else set(_OF_ALL)
        if others:
            raise ValueError(f"{struct.__name__}.IGNORED differs in {', '.join(sorted(others))}")
    for name, type_ in api.items():
        if not path and name in _OF_ALL:
            continue
        inner = _struct_in(read.get(name))
        if inner is None:
            is_used = name in read and name not in struct.CHECKED
            yield path + name, "supported" if is_used else "ignored"
            continue
        is_list = type_.startswith("list[")
        item = type_.removeprefix("list[").removesuffix("]")
        yield from _walk(item, inner, f"{path}{name}{'[]' if is_list else ''}.")


def _struct_in(type_: object) -> type[msgspec.Struct] | None:
    """Return the struct in ``Struct | None`` or ``list[Struct] | None``, if any."""
    if isinstance(type_, types.GenericAlias | types.UnionType):
        return next(filter(None, map(_struct_in, typing.get_args(type_))), None)
    return type_ if isinstance(type_, type) and issubclass(type_, msgspec.Struct) else None


@functools.cache
def _fields_of_type(api_type: str) -> dict[str, str]:
    """Return the type of each field of a generated model, by its name in JSON."""
    spec = importlib.util.find_spec("kubernetes_asyncio")
    assert spec is not None
    assert spec.origin is not None
    file_name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", api_type).lower()
    source = Path(spec.origin).parent / "client" / "models" / f"{file_name}.py"
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("openapi_types", "attribute_map")
    }
    return {name: tables["openapi_types"][key] for key, name in tables["attribute_map"].items()}
