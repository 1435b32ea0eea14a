"""Finds the name that was probably meant by one that doesn't exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SIMILARITY = 0.6


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return ``did you mean --kubeconfig?``; empty if nothing is similar."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=_SIMILARITY)
    return f"did you mean {prefix}{near[0]}?" if near else ""
