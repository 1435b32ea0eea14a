"""Computes a number for the JSON form of types, by which JSON of other types is rejected.

    class Port(NamedTuple):  number: int          ──▶ "[number:int]" ──SHA-256──▶ 48 bits
    @dataclass class Host:   ports: tuple[Port, ...]  "{ports:tuple[[number:int],...]}"

Rule 1: the number depends only on the fields' names and types, in order: not on defaults, names of
classes, docstrings, the process, or the version of Python.
Rule 2: if the meaning of a value changes, the number stays the same, so rename the field.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import types
import typing

# The size of a digest in bytes: a number that any JSON reader represents exactly.
_BYTES = 6


def digest(*kinds: object) -> int:
    """Return a number for types such as dataclasses, named tuples, enums and collections."""
    text = ";".join(map(describe, kinds))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:_BYTES], "big")


def describe(kind: object) -> str:
    """Describe the names and types of all fields within a type, on one line."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"<{','.join(str(member.value) for member in kind)}>"
    if dataclasses.is_dataclass(kind):
        return f"{{{_fields(kind)}}}"
    if hasattr(kind, "_fields"):
        return f"[{_fields(kind)}]"
    if kind is ...:
        return "..."
    parts = [describe(part) for part in typing.get_args(kind)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return "|".join(sorted(parts))
    name = str(getattr(typing.get_origin(kind) or kind, "__name__", kind))
    return f"{name}[{','.join(parts)}]" if parts else name


def _fields(kind: object) -> str:
    hints = typing.get_type_hints(kind)
    return ",".join(f"{name}:{describe(hint)}" for name, hint in hints.items())
