"""Counts the elements in an object's containers, by which tests detect leaks."""

from __future__ import annotations

from collections.abc import Sized


def kept_by(thing: object) -> dict[str, int]:
    """Return the number of elements in each container of an object, and of its parts."""
    found: dict[str, int] = {}
    package = type(thing).__module__.rpartition(".")[0]
    for name, each in vars(thing).items():
        if isinstance(each, Sized):
            found[name] = len(each)
        elif type(each).__module__.rpartition(".")[0] == package and hasattr(each, "__dict__"):
            found |= {f"{name}.{within}": count for within, count in kept_by(each).items()}
    return found
