"""Makes values safe for an archive: treats each string in them according to its field's type.

    AllNodes ──each text: secrets removed, names replaced──▶ AllNodes of the same form

Rule 1: tables and sentences derived from the result need no further treatment.
Rule 2: fields with this program's own words stay, because a Service's name may be one of the words.
Rule 3: equal hashes of names become equal keyed hashes.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import Problem, RejectedFacts, SteeringState
from userspace_proxy.policy.usable import EndpointState
from userspace_proxy.secrets import Secrets

from .pseudonyms import Pseudonyms

_T = TypeVar("_T")

_WORDS = frozenset(
    {
        "balance", "code", "commit", "family", "kind", "level", "path", "policy", "protocol",
        "proxy_protocol", "side", "version", "word",
    }
)  # fmt: skip
"""Fields with words of this program, or with versions."""
_SERVICES = frozenset({"behind", "digests", "keeps", "services"})
"""Fields with names of Services, as ``namespace/name``."""
_HASHES = frozenset({"buckets", "digest", "digests", "id"})
_NAMES = {
    "namespace": "namespace",
    "service": "service",
    "node": "node",
    "host": "host",
    "pod": "pod",
}
"""Fields with names, and the kinds of these names."""
_FIELDS_BY_TYPE: Mapping[tuple[type, str], str] = {
    # Treat the field as text, because it also contains strings such as ``conflict shop/web``.
    (Problem, "kind"): "what",
    (RejectedFacts, "name"): "service",
    (SteeringState, "name"): "kind",
}
"""Fields that are treated like a field of another name."""
_STATES = frozenset(map(str, EndpointState))
"""Fixed states of endpoints; other states are sentences."""
_SHORT_MAX = 200
_KEYED_BY_WORDS = frozenset({"settings"})


class Scrubber:
    """Makes strings safe for an archive.

    Args:
        pseudonyms: The pseudonyms that replace names and addresses; None to keep these.
    """

    def __init__(self, secrets: Secrets, pseudonyms: Pseudonyms | None = None) -> None:
        self.secrets = secrets
        self.pseudonyms = pseudonyms
        # Cached because the answers of a hundred nodes contain the same strings, a million in all.
        self._short = functools.lru_cache(maxsize=1 << 17)(self._safe)
        self._short_word = functools.lru_cache(maxsize=1 << 12)(secrets.remove)

    def text(self, text: str) -> str:
        """Return a text in the form that the archive may contain."""
        return self._short(text) if len(text) <= _SHORT_MAX else self._safe(text)

    def word(self, text: str) -> str:
        """Return a string, which must contain no names, as the archive may contain it."""
        return self._short_word(text) if len(text) <= _SHORT_MAX else self.secrets.remove(text)

    def _safe(self, text: str) -> str:
        text = self.secrets.remove(text)
        return text if self.pseudonyms is None else self.pseudonyms.hide(text)

    def name(self, text: str, kind: str) -> str:
        """Return a name in the form that the archive may contain."""
        text = self.word(text)
        return text if self.pseudonyms is None else self.pseudonyms.name(text, kind)

    def learn(self, value: object) -> None:
        """Register the names in a value, before any string is changed."""
        if self.pseudonyms is not None:
            for kind, name in _names_in(value, ""):
                self.pseudonyms.learn(kind, [name])
            self._short.cache_clear()

    def learn_from(self, text: str) -> None:
        """Register the names that a string's form reveals."""
        if self.pseudonyms is not None:
            self.pseudonyms.hide(text)
            self._short.cache_clear()

    def value(self, value: _T) -> _T:
        """Return a copy of a value with each string made safe."""
        changed: _T = self._changed(value, "")
        return changed

    def _changed(self, value: Any, field: str) -> Any:
        if isinstance(value, str):
            return self._text(value, field) if type(value) is str else value
        if value is None or isinstance(value, bool | int | float | enum.Enum):
            return value
        if isinstance(value, Cause):
            return self._cause(value)
        if isinstance(value, Mapping):
            return self._mapping(value, field)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            pairs = zip(value._fields, value, strict=True)
            return type(value)(*(self._changed(item, name) for name, item in pairs))
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)(self._changed(item, field) for item in value)
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            changes = {
                name: self._changed(getattr(value, name), _field(value, name)) for name in names
            }
            return msgspec.structs.replace(value, **changes)
        if dataclasses.is_dataclass(value):
            names = tuple(field.name for field in dataclasses.fields(value))
            changes = {name: self._changed(getattr(value, name), name) for name in names}
            return dataclasses.replace(value, **changes)  # type: ignore[type-var]
        raise TypeError(f"a report can't contain a {type(value).__name__}")

    def _text(self, text: str, field: str) -> str:
        if field in _WORDS or (field == "state" and text in _STATES):
            return self.word(text)
        if field in _HASHES:
            return text if self.pseudonyms is None else self.pseudonyms.digest(text)
        return self.text(text)

    def _mapping(self, value: Mapping[Any, Any], field: str) -> Mapping[Any, Any]:
        is_by_words = field in _KEYED_BY_WORDS
        made = {}
        for key, item in value.items():
            if type(item) is str and isinstance(key, str):
                item = self.secrets.remove_value(key, item)
            made[key if is_by_words else self._changed(key, "")] = self._changed(item, field)
        return made

    def _cause(self, cause: Cause) -> Cause:
        params = [(name, self._changed(value, "")) for name, value in cause.params]
        modifiers = dict(cause.modifiers())
        for name in ("host", "within", "before"):
            modifiers[name] = self._changed(modifiers[name], "")
        return Cause(cause.row, params, **modifiers)


def _field(value: object, name: str) -> str:
    return _FIELDS_BY_TYPE.get((type(value), name), name)


def _names_in(value: Any, field: str) -> list[tuple[str, str]]:
    """Return the names in a value, as pairs of kind and name."""
    if isinstance(value, str):
        if kind := _NAMES.get(field):
            namespace, slash, name = value.rpartition("/")
            # The field contains namespace and name, as ``shop/web``.
            return [(kind, name), ("namespace", namespace)] if slash else [(kind, value)]
        if field in _SERVICES:
            namespace, _, name = value.partition("/")
            return [("namespace", namespace), ("service", name)] if name else []
        return []
    if isinstance(value, Mapping):
        parts = [(field, item) for item in (*value.keys(), *value.values())]
    elif isinstance(value, Cause):
        parts = [(name, item) for name, item in value.params]
        parts += [("host", value.host), ("", value.before)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [*zip(value._fields, value, strict=True)]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [(field, item) for item in value]
    elif isinstance(value, msgspec.Struct):
        parts = [(_field(value, name), getattr(value, name)) for name in value.__struct_fields__]
    elif dataclasses.is_dataclass(value):
        parts = [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
    else:
        return []
    return [found for name, item in parts for found in _names_in(item, name)]
