"""Finds all invalid fields of an object in a file: unknown fields, and values of a wrong type.

    value, struct ──▶ spec.selectr: unknown field (did you mean selector?)
                      spec.ports[0].port: expected int, got str

The API server rejects both if the client requests it, as ``kubectl apply`` does by default
(``--validate=strict``).

Rule 1: a struct of ``wire`` defines which fields are read, and in ``IGNORED`` which others exist.
"""

from __future__ import annotations

import functools
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import msgspec

from .quoting import shown
from .similar import did_you_mean
from .wire import FieldError, WireObject, convert

UNKNOWN_MAX = 100
"""The maximum number of unknown fields reported for one object."""

_OF_ALL = frozenset({"apiVersion", "kind"})


@dataclass(slots=True)
class FieldErrors:
    """The errors of several checks of one object, which are reported together.

    Each ``with errors:`` contains one check.
    """

    found: list[FieldError] = field(default_factory=list)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, FieldError):
            return False
        self.found += [error, *error.others]
        return True

    def raise_found(self) -> None:
        """Raise all collected errors as one; do nothing if there are none."""
        if self.found:
            raise join_errors(self.found)


def join_errors(errors: Sequence[FieldError]) -> FieldError:
    """Return the first error with the others attached."""
    first, *others = errors
    return FieldError(first.path, first.problem, others)


def convert_strictly(
    value: Any, type_: type[WireObject], check: Callable[[WireObject], None]
) -> WireObject:
    """Convert plain values to a struct like :func:`convert`, but check all fields.

    Args:
        check: Validates the struct; called only if all types are right.

    Raises:
        FieldError: Lists up to UNKNOWN_MAX unknown fields, and all wrong types or ``check`` errors.
    """
    struct: Any = type_
    unknown = _unknown_fields(value, struct, _places_of(struct))
    errors = FieldErrors(list(itertools.islice(unknown, UNKNOWN_MAX)))
    try:
        wire = convert(value, type_)
    except FieldError as exc:
        errors.found += _wrong_types(value, struct) if isinstance(value, dict) else [exc]
        raise join_errors(errors.found) from exc
    with errors:
        check(wire)
    errors.raise_found()
    return wire


@dataclass(frozen=True, slots=True)
class _Table:
    """The fields of one struct."""

    types: Mapping[str, Any]
    """The types of the fields that are read."""
    inner: Mapping[str, Any]
    """The structs in these fields."""
    known: frozenset[str]
    is_open: bool
    """Whether other fields are allowed, and not checked."""


@functools.cache
def _table(struct: Any) -> _Table:
    types = {item.encode_name: item.type for item in msgspec.structs.fields(struct)}
    inner = {name: found for name, type_ in types.items() if (found := _struct_in(type_))}
    known = frozenset((*types, *(struct.IGNORED or ())))
    return _Table(types, inner, known, struct.IGNORED is None)


def _struct_in(type_: object) -> Any:
    """Return the struct in ``Struct | None`` or ``list[Struct] | None``, if there is one."""
    if isinstance(type_, types.GenericAlias | types.UnionType):
        return next(filter(None, map(_struct_in, typing.get_args(type_))), None)
    return type_ if isinstance(type_, type) and issubclass(type_, msgspec.Struct) else None


@functools.cache
def _places_of(struct: Any) -> Mapping[str, str]:
    """Return the path of each field by its name, such as ``spec.ports[].targetPort``."""
    places: dict[str, str] = {}
    waiting = [("", struct)]
    for path, here in waiting:
        table = _table(here)
        for name in sorted(table.known):
            places.setdefault(name, path + name)
        for name, inner in table.inner.items():
            types = table.types[name], *typing.get_args(table.types[name])
            is_list = any(typing.get_origin(item) is list for item in types)
            waiting.append((f"{path}{name}{'[]' if is_list else ''}.", inner))
    return places


def _items(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield an object, or each object of a list, with its path."""
    if isinstance(value, list):
        yield from ((item, f"{path}[{i}]") for i, item in enumerate(value))
    else:
        yield value, path


def _unknown_fields(
    value: Any, struct: Any, places: Mapping[str, str], path: str = ""
) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        return
    table = _table(struct)
    prefix = f"{path}." if path else ""
    known = table.known if path else table.known | _OF_ALL
    if not (table.is_open or value.keys() <= known):
        for name in value:
            if name not in known:
                hint = did_you_mean(name, known)
                if not hint and name in places:
                    hint = f"did you mean {places[name]}?"
                yield FieldError(prefix + shown(name), f"unknown field{hint and f' ({hint})'}")
    for name, inner in table.inner.items():
        if name in value:
            for item, place in _items(value[name], f"{prefix}{name}"):
                yield from _unknown_fields(item, inner, places, place)


def _wrong_types(value: dict[str, Any], struct: Any, path: str = "") -> Iterator[FieldError]:
    """Yield an error for each field of a wrong type."""
    table = _table(struct)
    prefix = f"{path}." if path else ""
    for name, type_ in table.types.items():
        if name not in value:
            continue
        try:
            convert(value[name], type_)
        except FieldError as exc:
            here = f"{prefix}{name}"
            inner = table.inner.get(name)
            if exc.path and inner is not None:
                for item, place in _items(value[name], here):
                    yield from _wrong_items(item, inner, place)
                continue
            if exc.path == "[...]":
                yield from _wrong_values(value[name], here)
                continue
            joint = "." if exc.path and not exc.path.startswith("[") else ""
            yield FieldError(f"{here}{joint}{exc.path}", exc.problem)


def _wrong_values(texts: dict[str, Any], path: str) -> Iterator[FieldError]:
    """Yield an error for each label or annotation whose value isn't text."""
    type_: Any = str | None
    for key, value in texts.items():
        try:
            convert(value, type_)
        except FieldError as exc:
            hint = " (quote it)" if isinstance(value, int | float) else ""
            yield FieldError(f"{path}.{shown(key)}", f"{exc.problem}{hint}")


def _wrong_items(item: Any, struct: Any, place: str) -> Iterator[FieldError]:
    if isinstance(item, dict):
        yield from _wrong_types(item, struct, place)
        return
    try:
        convert(item, struct)
    except FieldError as exc:
        yield FieldError(place, exc.problem)
