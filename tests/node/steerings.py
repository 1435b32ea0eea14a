"""Under which steerings a test runs that passes under each for the same reasons."""

from __future__ import annotations

import pytest


def steerings(first: str, *others: str) -> list[object]:
    """Return parameters: the first for every run, the others for ``make test-all`` alone."""
    return [first, *(pytest.param(other, marks=pytest.mark.long) for other in others)]
