"""The search of lists other than Service ports: words, all of which must match."""

from __future__ import annotations

from collections.abc import Iterable


def has_words(q: str, texts: Iterable[str]) -> bool:
    """Return whether all words of a search are in some texts."""
    text = "\n".join(texts).lower()
    return all(word in text for word in q.lower().split())
