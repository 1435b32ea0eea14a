"""Finds the existing name that a misspelt name probably meant, at a bounded cost."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

ALIKE = 0.6
"""The minimum similarity of a suggestion: the share of letters that both have in the same order."""
NEARLY_EQUAL = 0.85
"""The similarity of two seven-letter words that differ in one letter."""
COMPARED_MAX = 15_000
"""The maximum number of characters compared with a word, in 2 to 4 ms; other names are skipped."""
_WORD_MAX = 253
"""The maximum length of a host name; no name is similar to a longer word."""


def did_you_mean(
    word: str, known: Iterable[str], *, prefix: str = "", similarity: float = ALIKE
) -> str:
    """Return ``did you mean --kubeconfig?``; empty if nothing is similar."""
    near = nearest(word, known, similarity=similarity)
    return f"did you mean {prefix}{near}?" if near else ""


def alike(word: str, known: Iterable[str], *, most: int, similarity: float = ALIKE) -> list[str]:
    """Return at most ``most`` similar names, ignoring case, the nearest first."""
    # Crochemore et al., "A fast and practical bit-vector algorithm for the longest common
    # subsequence problem" (2001): each letter of a name costs a few operations on one number.
    letters, left = len(word), COMPARED_MAX
    places: dict[str, int] = {}
    for at, letter in enumerate(word.lower()):
        places[letter] = places.get(letter, 0) | 1 << at
    near: list[tuple[float, str]] = []
    for name in known if letters <= _WORD_MAX else ():
        left -= len(name)
        if left < 0:
            break
        row = whole = (1 << letters) - 1
        for letter in name.lower():
            matches = row & places.get(letter, 0)
            row = (row + matches | row - matches) & whole
        ratio = 2 * (letters - row.bit_count()) / (letters + len(name) or 1)
        if ratio >= similarity:
            near.append((ratio, name))
    return [name for _, name in heapq.nlargest(most, near)]


def similar_hosts(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return up to two similar names, the nearest first; one name may lack the other's domain."""
    labels = name.count(".") + 1
    cut = {".".join(one.split(".")[:labels]): one for one in known}
    near = alike(name, cut, most=2) or alike(name.partition(".")[0], cut, most=2)
    return tuple(cut[one] for one in near)


def nearest(word: str, known: Iterable[str], *, similarity: float = ALIKE) -> str:
    """Return the most similar name; empty if nothing is similar."""
    near = alike(word, known, most=1, similarity=similarity)
    return near[0] if near else ""
