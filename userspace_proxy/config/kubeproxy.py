"""Reads a ``--config`` file: kube-proxy's document and this program's document.

Rule 1: in KubeProxyConfiguration, kubeadm's values for "not set" (``""``, ``0s``, null) mean the
default; an unknown field, or a field without effect, causes a warning; a wrong type is an error.
Values that only kube-proxy's second, lenient decoder accepts cause a warning, but are accepted.
Rule 2: in UserspaceProxyConfiguration a zero is a zero, and an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bounded_file import read_bounded
from ..errors import ConfigError, InputError
from ..model.document import Document, decode, parse_documents
from ..model.similar import did_you_mean
from .flags import warn_ignored
from .ignored import FIELDS as IGNORED
from .kinds import Kind, wrong_type
from .settings import TABLE

KUBE_PROXY = ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")
OWN = ("userspace-proxy.io/v1alpha1", "UserspaceProxyConfiguration")

# The maximum size of the file, which usually comes from a ConfigMap of at most 1 MiB.
_BYTES_MAX = 16 << 20
_KUBE_FIELDS = {row.kube_field: name for name, row in TABLE.items() if row.kube_field}
_OWN_FIELDS = {row.own_field: name for name, row in TABLE.items() if row.own_field}
_LEAVES = frozenset((*_KUBE_FIELDS, *IGNORED))
# The paths of objects that contain known fields, such as ``logging`` and ``logging.options.json``.
_BRANCHES = frozenset(
    path[:dot] for path in _LEAVES for dot, letter in enumerate(path) if letter == "."
)


@dataclass(slots=True)
class FileSettings:
    """The settings in a file."""

    values: dict[str, Any] = field(default_factory=dict)
    """The settings' values by name."""
    texts: dict[str, str] = field(default_factory=dict)
    """The place, field and value by name, for messages: ``config.conf:7: mode: ipvs``."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about ignored documents and fields, and about values read as kube-proxy does."""
    is_kube_proxys: bool = False
    """Whether the file contains a KubeProxyConfiguration."""


def read_config_file(path: str) -> FileSettings:
    """Read a file with one or both documents, in either order.

    Raises:
        ConfigError: The file can't be read, isn't YAML, or contains an invalid document or field.
    """
    try:
        text = decode(read_bounded(Path(path), _BYTES_MAX))
    except OSError as exc:
        raise ConfigError(f"cannot read --config={path}: {exc.strerror}") from exc
    return read_config(text, place=path)


def read_config(text: str, *, place: str) -> FileSettings:
    """Read the text of a file; errors start with ``place``.

    Raises:
        ConfigError: The text isn't YAML, or contains neither document, or an invalid one.
    """
    try:
        documents = parse_documents(text, place=place)
    except InputError as exc:
        raise ConfigError(exc.message, hint=exc.hint) from exc
    if not documents:
        raise ConfigError(f"{place}: is empty", hint=_hint())
    settings = FileSettings()
    found: dict[tuple[str, str], Document] = {}
    for document in documents:
        try:
            kind = _kind_of(document)
        except ConfigError as exc:
            # Only warn after kube-proxy's document: kube-proxy reads only the first document.
            if KUBE_PROXY not in found:
                raise
            settings.warnings.append(f"{exc.message}; it is ignored, as by kube-proxy")
            continue
        if kind not in found:
            found[kind] = document
        elif kind == KUBE_PROXY:
            place = f"{document.place}:{document.line}"
            settings.warnings.append(f"{place}: ignored a second {kind[1]}, as kube-proxy does")
        else:
            raise ConfigError(
                f"{document.place}:{document.line}: a second {kind[1]}", hint="join them"
            )
    if KUBE_PROXY in found:
        settings.is_kube_proxys = True
        read = "as in kube-proxy, the last value counts, and numbers are YAML 1.1's"
        settings.warnings += [f"{one.message}; {read}" for one in found[KUBE_PROXY].mistakes]
        _read_kube_proxy(found[KUBE_PROXY], settings)
    if OWN in found:
        for mistake in found[OWN].mistakes:
            raise ConfigError(mistake.message, hint=mistake.hint)
        _read_own(found[OWN], settings)
    return settings


def _kind_of(document: Document) -> tuple[str, str]:
    value = document.value
    if not isinstance(value, Mapping):
        problem = wrong_type(value, "a configuration").message
        raise ConfigError(f"{document.place}:{document.line}: {problem}", hint=_hint())
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), str):
            problem = "is missing" if value.get(name) is None else "is not text"
            raise _error(document, name, problem, _hint())
    kind = (value["apiVersion"], value["kind"])
    if kind not in (KUBE_PROXY, OWN):
        raise _error(
            document, "kind", f"{' '.join(kind)} is not a known configuration kind", _hint()
        )
    return kind


def _hint() -> str:
    return f"write {' '.join(KUBE_PROXY)} or {' '.join(OWN)}"


def _read_kube_proxy(document: Document, settings: FileSettings) -> None:
    ignored: list[tuple[str, str]] = []
    for path, value in _leaves(document, document.value, "", settings.warnings):
        name = _KUBE_FIELDS.get(path)
        row = IGNORED.get(path)
        kind: Kind = TABLE[name].kind if name else IGNORED[path].kind
        if value is None or (value == "" and kind.accepts_text):
            continue
        read = _read(document, path, value, kind)
        if row is not None:
            if not row.is_harmless(read):
                ignored.append((path, row.reason))
        elif name is not None and not kind.is_unset(read):
            _keep(document, path, name, read, settings)
    settings.warnings += warn_ignored(ignored, place=document.place)


def _leaves(
    document: Document, value: Mapping[str, Any], prefix: str, warnings: list[str]
) -> Iterator[tuple[str, Any]]:
    """Yield each known field's path and value; append a warning about each unknown field."""
    for key, item in value.items():
        path = f"{prefix}{key}"
        if path in ("apiVersion", "kind"):
            continue
        if path in _LEAVES:
            yield path, item
        elif path not in _BRANCHES:
            hint = did_you_mean(key, _names_in(prefix))
            line = document.line_of(path)
            warnings.append(
                f"{document.place}:{line}: ignored {path}: KubeProxyConfiguration has no such field"
                + (f" ({hint})" if hint else "")
            )
        elif isinstance(item, Mapping):
            yield from _leaves(document, item, f"{path}.", warnings)
        elif item is not None:
            raise _error(document, path, wrong_type(item, "a mapping").message)


def _names_in(prefix: str) -> set[str]:
    """Return the fields' names in one mapping, such as ``syncPeriod`` in ``iptables.``."""
    inside = (path[len(prefix) :] for path in _LEAVES if path.startswith(prefix))
    return {path.partition(".")[0] for path in inside}


def _read_own(document: Document, settings: FileSettings) -> None:
    for key, value in document.value.items():
        if key in ("apiVersion", "kind"):
            continue
        if key not in _OWN_FIELDS:
            raise _error(document, key, "is not a field of UserspaceProxyConfiguration", _near(key))
        if value is not None:
            name = _OWN_FIELDS[key]
            _keep(document, key, name, _read(document, key, value, TABLE[name].kind), settings)


def _near(key: str) -> str:
    if key in _LEAVES or key in _BRANCHES:
        return "it belongs in the KubeProxyConfiguration document"
    return did_you_mean(key, _OWN_FIELDS) or f"known: {', '.join(_OWN_FIELDS)}"


def _read(document: Document, path: str, value: Any, kind: Kind) -> Any:
    try:
        return kind.read(value)
    except ConfigError as exc:
        raise _error(document, path, exc.message, exc.hint) from exc


def _keep(document: Document, path: str, name: str, value: Any, settings: FileSettings) -> None:
    settings.values[name] = value
    written = TABLE[name].kind.write_text(value)
    settings.texts[name] = f"{document.place}:{document.line_of(path)}: {path}: {written}"


def _error(document: Document, path: str, problem: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{document.place}:{document.line_of(path)}: {path}: {problem}", hint=hint)
