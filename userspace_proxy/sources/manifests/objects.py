"""Converts the documents of a manifest file to objects, or describes their errors.

    text ──▶ documents ──▶ items of lists ──▶ kind ──▶ validated ──▶ Found(key, value, place)

Rule 1: every problem is one line with file, line and field.
Rule 2: a file with a problem contributes no objects, because its author intended all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...model import EndpointSlice, Node, ServiceKey
from ...model.admission import check_metadata, check_service
from ...model.document import Document, parse_documents
from ...model.mirroring import is_mirrored, mirror_endpoints
from ...model.reading import read_node, read_slice
from ...model.slice_admission import check_slice
from ...model.wire import (
    FieldError,
    WireEndpoints,
    WireEndpointSlice,
    WireNode,
    WireService,
    convert,
)
from .written import WrittenService, read_written


@dataclass(frozen=True, slots=True)
class MirroredEndpoints:
    """The slices that mirror an Endpoints object."""

    service: ServiceKey
    slices: tuple[EndpointSlice, ...]


ManifestObject = WrittenService | EndpointSlice | MirroredEndpoints | Node


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a file."""

    kind: str
    key: str
    """``namespace/name``, or the name of a Node."""
    value: ManifestObject
    place: str
    """File and line, as ``web.yaml:14``."""


@dataclass(frozen=True, slots=True)
class FileObjects:
    """The content of one file."""

    objects: tuple[Found, ...] = ()
    """Empty if there are problems."""
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Kinds that aren't supported, each once, as ``web.yaml:20: kind Deployment …``."""


def read_manifest(text: str, *, place: str) -> FileObjects:
    """Read the YAML or JSON text of one file; problems start with ``place``."""
    try:
        documents = parse_documents(text, place=place)
    except InputError as exc:
        return FileObjects(problems=(str(exc),))
    objects: list[Found] = []
    problems: list[str] = []
    ignored: dict[str, str] = {}
    for item in (item for document in documents for item in _items(document)):
        try:
            kind, read = _reader_of(item)
            if read is None:
                ignored.setdefault(kind, f"{item.at()}: kind {kind} is not supported")
                continue
            objects.extend(Found(kind, key, value, item.at()) for key, value in read(item.value))
        except FieldError as exc:
            field = ".".join(part for part in (item.path, exc.path) if part)
            problem = f"{field}: {exc.problem}" if field else exc.problem
            problems.append(f"{item.at(exc.path)}: {problem}")
    if problems:
        return FileObjects(problems=tuple(problems), ignored=tuple(ignored.values()))
    return FileObjects(tuple(objects), (), tuple(ignored.values()))


@dataclass(frozen=True, slots=True)
class _WrittenObject:
    """One object as written: a document, or an item of a list in it."""

    value: Any
    document: Document
    path: str = ""
    """``items[3]`` within the document; empty for the document itself."""
    default_kind: str = ""
    default_version: str = ""

    def at(self, path: str = "") -> str:
        """Return file and line of a field."""
        whole = ".".join(part for part in (self.path, path) if part)
        return f"{self.document.place}:{self.document.line_of(whole)}"

    def text(self, name: str) -> str:
        """Return the text of ``kind`` or ``apiVersion``; empty if there is none."""
        value = self.value.get(name) if isinstance(self.value, dict) else None
        return value if isinstance(value, str) else ""


def _items(document: Document) -> Iterator[_WrittenObject]:
    """Yield the objects of a document: itself, or the items of its lists."""
    waiting = [_WrittenObject(document.value, document)]
    while waiting:
        item = waiting.pop()
        kind, items = item.text("kind"), None
        if kind.endswith("List") and isinstance(item.value, dict):
            items = item.value.get("items")
        if not isinstance(items, list):
            yield item
            continue
        prefix = f"{item.path}.items" if item.path else "items"
        version = "" if kind == "List" else item.text("apiVersion")
        waiting.extend(
            _WrittenObject(value, document, f"{prefix}[{i}]", kind.removesuffix("List"), version)
            for i, value in reversed(list(enumerate(items)))
        )


_Read = Callable[[Any], list[tuple[str, ManifestObject]]]


def _reader_of(item: _WrittenObject) -> tuple[str, _Read | None]:
    """Return the kind of an object, and how to read it; None for an unsupported kind.

    Raises:
        FieldError: It has no kind, or another version of a supported kind.
    """
    if not isinstance(item.value, dict):
        raise FieldError("", "an object must be a mapping with apiVersion, kind and metadata")
    kind = item.text("kind") or item.default_kind
    version = item.text("apiVersion") or item.default_version
    if not kind:
        raise FieldError("kind", "is missing")
    if kind.endswith("List") and item.value.get("items", "") is None:
        return kind, lambda _: []  # A null list is an empty one.
    if not version:
        raise FieldError("apiVersion", "is missing")
    if (version, kind) in _READERS:
        return kind, _READERS[version, kind]
    for supported, name in _READERS:
        if name == kind and _group(supported) == _group(version):
            raise FieldError("apiVersion", f"{version} of {kind} is not read: write {supported}")
    return f"{version} {kind}", None


def _group(version: str) -> str:
    return version.rpartition("/")[0]


def _read_service(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert(value, WireService)
    check_service(wire)
    written = read_written(wire)
    return [(str(written.service.key), written)]


def _read_slice(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert(value, WireEndpointSlice)
    check_slice(wire)
    item = read_slice(wire)
    return [] if item is None else [(str(item.key), item)]


def _read_endpoints(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert(value, WireEndpoints)
    check_metadata(wire.metadata)
    slices = mirror_endpoints(wire)
    if not is_mirrored(wire):
        return []
    service = ServiceKey(wire.metadata.namespace or "default", wire.metadata.name or "")
    return [(str(service), MirroredEndpoints(service, tuple(slices)))]


def _read_node(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert(value, WireNode)
    check_metadata(wire.metadata, is_namespaced=False)
    node = read_node(wire)
    return [(node.name, node)]


_READERS: dict[tuple[str, str], _Read] = {
    ("v1", "Service"): _read_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): _read_slice,
    ("v1", "Endpoints"): _read_endpoints,
    ("v1", "Node"): _read_node,
}
