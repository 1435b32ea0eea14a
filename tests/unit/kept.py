"""What an object keeps, so that a test finds what isn't given back."""

from __future__ import annotations

from collections.abc import Sized


def kept_by(thing: object) -> dict[str, int]:
    """Return the number of elements in each container of an object."""
    return {name: len(each) for name, each in vars(thing).items() if isinstance(each, Sized)}
