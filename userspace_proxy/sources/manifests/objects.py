"""Converts the documents of a manifest file to objects, or describes their errors.

    text ──▶ parts ──▶ documents ──▶ items of lists ──▶ kind ──▶ validated ──▶ Found(key, value)
             └─ unchanged since the last text? not parsed again

Rule 1: every problem is one line with file, line and field, and all problems are found at once.
Rule 2: an object with a problem is left out, and the file's other objects are used, as if each were
sent to an API server. For unsupported objects, only the kind matters.
Rule 3: the last of duplicate keys in labels or annotations wins, as in kubectl; this is a finding.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import intern
from typing import Any, NamedTuple

from ...facts import RejectedFacts
from ...facts.node import NO_OBJECT, ObjectKey
from ...model import EndpointSlice, Node, ServiceKey
from ...model.admission import check_metadata, check_service
from ...model.document import Document, parse_until_error, split_documents
from ...model.fields import convert_strictly
from ...model.mirroring import mirror_endpoints, not_mirrored_reason
from ...model.notes import Note
from ...model.reading import LABEL_SERVICE_NAME, read_node, read_slice
from ...model.similar import NEARLY_EQUAL, did_you_mean
from ...model.slice_admission import check_slice
from ...model.wire import (
    FieldError,
    WireEndpoints,
    WireEndpointSlice,
    WireNode,
    WireService,
)
from ...model.yaml_builder import ALIASED_NODES_MAX, DOCUMENTS_MAX, TOO_MANY_DOCUMENTS, TextError
from .written import WrittenService, read_written


@dataclass(frozen=True, slots=True)
class MirroredEndpoints:
    """The slices that mirror an Endpoints object."""

    service: ServiceKey
    slices: tuple[EndpointSlice, ...]
    none_reason: Note | None = None
    """Why there are no slices, although the object may have endpoints; None if it is mirrored."""


ManifestObject = WrittenService | EndpointSlice | MirroredEndpoints | Node


PROBLEMS_MAX = 100
"""The maximum number of problems per file: log and page contain all of them."""

# Placeholders that Helm, Jinja, envsubst and ytt replace.
_PLACEHOLDER = re.compile(r"\{\{|\{%|\$\{|\$[A-Za-z_]|#@")
_TEMPLATE = "a template: read what `helm template` or `envsubst` makes of it"
_NOTHING: Mapping[str, int] = {}
_LABELS = ("metadata.labels", "metadata.annotations")
_KEYS = frozenset(("kind", "metadata", "spec"))
"""Fields of which each object has at least one, unlike kustomization.yaml, Chart.yaml, values.yaml,
package.json and .sops.yaml in repositories."""

Identity = tuple[str, str]
"""Kind, and ``namespace/name`` or a Node's name."""


class Found(NamedTuple):
    """One object of a file."""

    kind: str
    key: str
    value: ManifestObject
    file: str
    line: int

    @property
    def identity(self) -> Identity:
        """Kind and name, by which duplicates are found."""
        return self.kind, self.key

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class FileObjects:
    """The content of one file."""

    objects: tuple[Found, ...] = ()
    """Objects without problems."""
    rejected: tuple[RejectedFacts, ...] = ()
    """Problems of objects and of the text, ordered by line."""
    ignored: tuple[str, ...] = ()
    """Unsupported kinds, each once, such as ``web.yaml:20: kind Deployment …``, slices without a
    Service, and documents that aren't objects."""
    findings: tuple[str, ...] = ()
    """Findings about keys of labels and annotations, as in rule 3."""

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(item.line for item in self.rejected)


class _Mistake(NamedTuple):
    """A problem of an object, or of a part of a file."""

    line: int
    """The line in the file."""
    problem: str
    object: ObjectKey = NO_OBJECT
    """The object, as in :class:`RejectedFacts`."""
    service: str = ""
    """The Service concerned; empty if it can't be read."""

    @classmethod
    def of(cls, error: TextError, object_: ObjectKey = NO_OBJECT, service: str = "") -> _Mistake:
        problem = f"{error.problem} ({error.hint})" if error.hint else error.problem
        return cls(error.line, problem, object_, service)


class _Read(NamedTuple):
    """The contents of a part of a file."""

    objects: tuple[tuple[str, str, ManifestObject, int], ...] = ()
    """Objects with their lines, counted from the part's first line."""
    problems: tuple[_Mistake, ...] = ()
    findings: tuple[str, ...] = ()
    ignored: Mapping[str, int] = _NOTHING
    """Ignored kinds with their lines, counted from the part's first line."""
    aliased_nodes: int = 0


class ManifestReader:
    """Parses the texts of one file, and keeps the objects of unchanged parts without problems."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._parts: dict[bytes, _Read] = {}
        """Parts without line numbers in messages, by a digest of their text: 16 MB for 10,000."""

    def read(self, text: str) -> FileObjects:
        """Return the objects and problems in YAML or JSON text.

        Parts of the last text that had no problems or findings aren't parsed again.
        """
        parts: dict[bytes, _Read] = {}
        objects: list[Found] = []
        mistakes: list[_Mistake] = []
        findings: list[str] = []
        ignored: dict[str, int] = {}
        aliased_nodes = 0
        file = self._place
        for number, (part, before) in enumerate(split_documents(text)):
            if number == DOCUMENTS_MAX:
                mistakes.append(_Mistake.of(TextError(file, before + 1, *TOO_MANY_DOCUMENTS)))
                break
            digest = hashlib.blake2b(part.encode(errors="surrogatepass"), digest_size=16).digest()
            read = self._parts.get(digest)
            if read is None or aliased_nodes + read.aliased_nodes > ALIASED_NODES_MAX:
                read = _read_part(part, before, file, ALIASED_NODES_MAX - aliased_nodes)
            if not read.problems and not read.findings:
                parts[digest] = read
            aliased_nodes += read.aliased_nodes
            for kind, key, value, line in read.objects:
                objects.append(Found(kind, key, value, file, before + line))
            mistakes += read.problems
            findings += read.findings
            for what, line in read.ignored.items():
                ignored.setdefault(what, before + line)
        self._parts = parts
        return FileObjects(
            tuple(objects),
            _rejected(file, sorted(mistakes)),
            tuple(f"{file}:{at}: {what}" for what, at in ignored.items()),
            tuple(findings[:PROBLEMS_MAX]),
        )


def _rejected(file: str, mistakes: Sequence[_Mistake]) -> tuple[RejectedFacts, ...]:
    found = [
        RejectedFacts.at(
            f"{file}:{one.line}", one.problem, one.object, (one.service,) if one.service else ()
        )
        for one in mistakes[:PROBLEMS_MAX]
    ]
    if len(mistakes) > PROBLEMS_MAX:
        line = mistakes[PROBLEMS_MAX].line
        more = len(mistakes) - PROBLEMS_MAX
        found.append(RejectedFacts.at(f"{file}:{line}", f"{more} more problems from here on"))
    return tuple(found)


def _read_part(text: str, before: int, place: str, aliased_nodes_max: int) -> _Read:
    objects: list[tuple[str, str, ManifestObject, int]] = []
    problems: list[_Mistake] = []
    findings: list[str] = []
    ignored: dict[str, int] = {}
    # As in kubectl, only the first document of a part is read.
    documents, broken = parse_until_error(
        text, place=place, lines_before=before, aliased_nodes_max=aliased_nodes_max
    )
    if broken is not None:
        problems.append(_Mistake.of(broken))
    for document, item in ((one, item) for one in documents for item in _items(one)):
        if item.is_list:
            problems += (
                _Mistake.of(one) for one in document.mistakes if not one.path.startswith("items[")
            )
            continue
        if not item.path and not _may_be_object(item.value):
            ignored.setdefault("not a Kubernetes object", item.line_of())
            continue
        try:
            kind, read = _reader_of(item)
            if read is None:
                ignored.setdefault(f"kind {kind} is not supported", item.line_of())
                continue
            harmless, mistakes = item.mistakes
            if mistakes:
                problems += (_Mistake.of(one, *item.about) for one in mistakes)
                continue
            found = read(_named(item.value))
            findings += (f"{one}: read as by kubectl" for one in harmless)
        except FieldError as exc:
            about = item.about
            for error in (exc, *exc.others):
                path = ".".join(part for part in (item.path, error.path) if part)
                problem = f"{path}: {error.problem}" if path else error.problem
                line = before + item.line_of(error.path)
                problems.append(_Mistake(line, problem, *about))
            continue
        line = item.line_of()
        for _, value in found:
            if isinstance(value, EndpointSlice) and not value.service.name:
                # An API server would accept this slice, but it belongs to no Service, so report it
                # as ignored.
                what = f"EndpointSlice {value.key} has no label {LABEL_SERVICE_NAME}"
                ignored.setdefault(what, line)
        objects += ((intern(kind), key, value, line) for key, value in found)
    aliased_nodes = documents[-1].aliased_nodes if documents else 0
    if problems and _PLACEHOLDER.search(text):
        lines = ["", *text.splitlines()] if broken is None else []
        problems = [_of_template(one, lines[one.line - before :]) for one in problems]
    found_wrong = tuple(problems), tuple(findings), ignored or _NOTHING
    return _Read(tuple(objects), *found_wrong, aliased_nodes)


def _of_template(mistake: _Mistake, lines: Sequence[str]) -> _Mistake:
    """Return a mistake, with a note if its line isn't known, or contains a placeholder."""
    if lines and not _PLACEHOLDER.search(lines[0]):
        return mistake
    return mistake._replace(problem=f"{mistake.problem} ({_TEMPLATE})")


@dataclass(frozen=True, slots=True)
class _WrittenObject:
    """One object as it is written: a document, or an item in a list."""

    value: Any
    document: Document
    path: str = ""
    """The path within the document, such as ``items[3]``; empty for the document itself."""
    default_kind: str = ""
    default_version: str = ""

    is_list: bool = False
    """Whether the object is a list, whose items follow."""

    def line_of(self, path: str = "") -> int:
        return self.document.line_of(".".join(part for part in (self.path, path) if part))

    def text(self, *path: str) -> str:
        """Return a field's text, such as ``kind``; empty if there is none."""
        value = self.value
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""

    @property
    def mistakes(self) -> tuple[list[TextError], list[TextError]]:
        """The mistakes in keys of labels or annotations, and all other mistakes."""
        found: tuple[list[TextError], list[TextError]] = [], []
        for one in self.document.mistakes:
            if one.path.startswith(self.path):
                path = one.path.removeprefix(self.path).removeprefix(".")
                is_label = path in _LABELS or f"{path}.{one.key}" in _LABELS
                found[not (one.key and is_label)].append(one)
        return found

    @property
    def about(self) -> tuple[ObjectKey, str]:
        """The object's key and its Service; parts that can't be read are empty."""
        kind, name = self.text("kind") or self.default_kind, self.text("metadata", "name")
        namespace = self.text("metadata", "namespace") or "default"
        if not kind or not name:
            return NO_OBJECT, ""
        if kind == "Node":
            return ObjectKey(kind, "", name), ""
        is_slice = kind == "EndpointSlice"
        service = self.text("metadata", "labels", LABEL_SERVICE_NAME) if is_slice else name
        return ObjectKey(kind, namespace, name), f"{namespace}/{service}" if service else ""


def _items(document: Document) -> Iterator[_WrittenObject]:
    """Yield the objects of a document: the document itself, or a ``List`` and then its items."""
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
        if kind == "List" and not item.path:
            yield replace(item, is_list=True)
        waiting.extend(
            _WrittenObject(value, document, f"{prefix}[{i}]", kind.removesuffix("List"), version)
            for i, value in reversed(list(enumerate(items)))
        )


def _may_be_object(value: Any) -> bool:
    """Return whether a document may be an incomplete object, unlike the values of a chart."""
    if isinstance(value, list):
        keys = {*_KEYS, "apiVersion"}
        return any(isinstance(one, dict) and not keys.isdisjoint(one) for one in value)
    return not isinstance(value, dict) or not _KEYS.isdisjoint(value)


_Reader = Callable[[Any], list[tuple[str, ManifestObject]]]


def _reader_of(item: _WrittenObject) -> tuple[str, _Reader | None]:
    """Return the kind of an object, and its reader; None for an unsupported kind.

    Raises:
        FieldError: The object is no mapping, its kind or apiVersion is missing or misspelt, or the
            version of its kind isn't supported.
    """
    if not isinstance(item.value, dict):
        raise FieldError("", "an object must be a mapping with apiVersion, kind and metadata")
    kind = item.text("kind") or item.default_kind
    version = item.text("apiVersion") or item.default_version
    if not kind:
        raise FieldError("kind", "is missing")
    if kind.endswith("List") and item.value.get("items", "") is None:
        return kind, lambda _: []  # A list that is null is an empty list.
    if not version:
        raise FieldError("apiVersion", "is missing")
    if (version, kind) in _READERS:
        return kind, _READERS[version, kind]
    for supported, name in _READERS:
        if name == kind and _group(supported) == _group(version):
            raise FieldError("apiVersion", f"{version} of {kind} is not read: write {supported}")
    # A kind that nearly equals a supported kind is a typo: no known CRD has such a name.
    for supported, name in _READERS:
        hint = ""
        if supported == version:
            hint = did_you_mean(kind, [name], similarity=NEARLY_EQUAL)
        elif name == kind:
            hint = did_you_mean(version, [supported], similarity=NEARLY_EQUAL)
        if hint:
            field = "kind" if supported == version else "apiVersion"
            raise FieldError(field, f"there is no kind {kind} of {version} ({hint})")
    return f"{version} {kind}", None


def _named(value: Any) -> Any:
    """Return an object, named after its content if it has generateName instead of a name."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name"):
        return value
    prefix = metadata.get("generateName")
    if not isinstance(prefix, str) or not prefix:
        return value
    digest = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
    return {**value, "metadata": {**metadata, "name": prefix + digest[:5]}}


def _group(version: str) -> str:
    return version.rpartition("/")[0]


def _read_service(value: Any) -> list[tuple[str, ManifestObject]]:
    written = read_written(convert_strictly(value, WireService, check_service))
    return [(str(written.service.key), written)]


def _read_slice(value: Any) -> list[tuple[str, ManifestObject]]:
    item = read_slice(convert_strictly(value, WireEndpointSlice, check_slice), with_headless=True)
    return [(str(item.key), item)]


def _read_endpoints(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert_strictly(value, WireEndpoints, lambda wire: check_metadata(wire.metadata))
    slices, none_reason = mirror_endpoints(wire), not_mirrored_reason(wire)
    service = ServiceKey(wire.metadata.namespace or "default", wire.metadata.name or "")
    mirrored = MirroredEndpoints(service, () if none_reason else tuple(slices), none_reason)
    return [(str(service), mirrored)]


def _read_node(value: Any) -> list[tuple[str, ManifestObject]]:
    wire = convert_strictly(
        value, WireNode, lambda wire: check_metadata(wire.metadata, is_namespaced=False)
    )
    node = read_node(wire)
    return [(node.name, node)]


_READERS: dict[tuple[str, str], _Reader] = {
    ("v1", "Service"): _read_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): _read_slice,
    ("v1", "Endpoints"): _read_endpoints,
    ("v1", "Node"): _read_node,
}
