"""What objects of the product hold: the lengths of their tables, and their counts.

It finds them by itself, from some roots on, so a new table is among them.
"""

from __future__ import annotations

import enum
import types
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_PRODUCT = "userspace_proxy"
# Values: a number in one is an address's, or a figure, which only grows.
_NOUNS = ("userspace_proxy.model", "userspace_proxy.facts", "userspace_proxy.config")
_TABLES = (dict, list, set, deque, bytearray)
# Text and numbers refer to nothing, and classes and modules aren't of one run.
_LEAVES = (
    *(str, bytes, bytearray, memoryview, range, int, float, complex),
    *(enum.Enum, type, types.ModuleType),
)


def holdings(*roots: object) -> Counter[str]:
    """Return the length of each table, and each count, by the class and the attribute that has it.

    Those of several objects of a class are one sum. What isn't of the product, such as an event
    loop, is followed only if it is a container or a function.
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
    """Yield what an object refers to, with a name if it is an attribute of the product's."""
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
    """Yield what objects hold that have served much, and new ones don't.

    Args:
        exempted: Attributes, and classes, that only count, or have a bound of their own.
    """
    names = frozenset(exempted.split())
    for name in sorted({*found, *fresh}):
        is_exempted = name in names or name.partition(".")[0] in names
        # More that is free is nothing that is held.
        is_exempted |= name.endswith("._free") and found[name] > fresh[name]
        if found[name] != fresh[name] and not is_exempted:
            yield f"{name} is {found[name]}, not {fresh[name]}"
