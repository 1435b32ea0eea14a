"""Measures the product's objects: the lengths of their tables, and their counters.

Follows references from some roots, so tables that are added to the product are found too.
"""

from __future__ import annotations

import enum
import types
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_PRODUCT = "userspace_proxy"
# Value types: a number in them is part of an address, or a counter that only grows.
_NOUNS = ("userspace_proxy.model", "userspace_proxy.facts", "userspace_proxy.config")
_TABLES = (dict, list, set, deque, bytearray)
# Types to skip: text and numbers have no references, classes and modules outlive a run.
_LEAVES = (
    *(str, bytes, bytearray, memoryview, range, int, float, complex),
    *(enum.Enum, type, types.ModuleType),
)


def holdings(*roots: object) -> Counter[str]:
    """Return the length of each table, and each counter, by class and attribute.

    Each sum is over all objects of a class. Objects of other packages, such as an event loop, are
    followed only if they are containers or functions.
    """
    sums: Counter[str] = Counter()
    waiting, seen = list(roots), {id(root): root for root in roots}
    while waiting:
        one = waiting.pop()
        for name, value in _parts_of(one):
            if name and isinstance(value, _TABLES):
                sums[name] += len(value)
            elif name and type(value) is int:
                sums[name] += value
            if value is not None and not isinstance(value, _LEAVES) and id(value) not in seen:
                seen[id(value)] = value
                waiting.append(value)
    return sums


def _parts_of(one: Any) -> Iterator[tuple[str, Any]]:
    """Yield an object's references, each with a name if it is an attribute of the product."""
    if isinstance(one, Mapping):
        for pair in list(one.items()):
            yield from (("", part) for part in pair)
    elif isinstance(one, Collection) and type(one).__module__ in ("builtins", "collections"):
        yield from (("", part) for part in list(one))
    elif isinstance(one, types.MethodType):
        yield "", one.__self__
    elif isinstance(one, types.FunctionType):
        for cell in one.__closure__ or ():
            yield "", cell.cell_contents
    elif any(each.__module__.partition(".")[0] == _PRODUCT for each in type(one).__mro__):
        kind = type(one)
        is_noun = kind.__module__.startswith(_NOUNS)
        for name in (*getattr(one, "__dict__", ()), *_slots_of(kind)):
            if (value := getattr(one, name, None)) is not None:
                yield "" if is_noun else f"{kind.__name__}.{name}", value


def _slots_of(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            yield f"_{each.__name__.lstrip('_')}{name}" if is_private else name


def differences(found: Counter[str], fresh: Counter[str], exempted: str) -> Iterator[str]:
    """Yield the differences between objects that have served clients and new objects.

    Args:
        exempted: Attributes and classes that only count, or that are bounded in another way.
    """
    names = frozenset(exempted.split())
    for name in sorted({*found, *fresh}):
        is_exempted = name in names or name.partition(".")[0] in names
        # Additional free slots refer to no objects.
        is_exempted |= name.endswith("._free") and found[name] > fresh[name]
        if found[name] != fresh[name] and not is_exempted:
            yield f"{name} is {found[name]}, not {fresh[name]}"
