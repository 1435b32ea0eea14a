"""Finds the name that was probably meant by one that doesn't exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

ALIKE = 0.6
"""A similarity, as ``selectr`` and ``selector``."""
NEARLY_EQUAL = 0.85
"""A similarity: one letter of a word of seven is missing or wrong."""
_COMPARED_MAX = 500
"""Names, which takes 30 ms."""


def did_you_mean(
    word: str, known: Iterable[str], *, prefix: str = "", similarity: float = ALIKE
) -> str:
    """Return ``did you mean --kubeconfig?``; empty if nothing is similar."""
    near = nearest(word, known, similarity=similarity)
    return f"did you mean {prefix}{near}?" if near else ""


def alike(word: str, known: Iterable[str], *, most: int, similarity: float = ALIKE) -> list[str]:
    """Return the most similar names, the nearest first; as many as this at most."""
    return difflib.get_close_matches(word, list(known), n=most, cutoff=similarity)


def similar_hosts(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return up to two names, the nearest first; one may lack the domain that the other has."""
    labels = name.count(".") + 1
    cut = {".".join(one.split(".")[:labels]): one for one in islice(known, _COMPARED_MAX)}
    near = alike(name, cut, most=2) or alike(name.partition(".")[0], cut, most=2)
    return tuple(cut[one] for one in near)


def nearest(word: str, known: Iterable[str], *, similarity: float = ALIKE) -> str:
    """Return the most similar name; empty if nothing is similar."""
    near = alike(word, known, most=1, similarity=similarity)
    return near[0] if near else ""
