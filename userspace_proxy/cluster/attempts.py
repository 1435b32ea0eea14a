"""Confines a bug to the Service that meets it, so that the others of a batch go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..model import ServiceKey
from ..model.quoting import quoted

_T = TypeVar("_T")
_R = TypeVar("_R")


class Attempts:
    """The steps of one batch, each for one Service."""

    def __init__(self) -> None:
        self.raised: dict[ServiceKey, str] = {}
        """The Services for which a step raised, and what and where."""

    def attempt(self, key: ServiceKey, step: Callable[[_T], _R], value: _T) -> _R | None:
        """Return the result of a step; None: it raised."""
        try:
            return step(value)
        except Exception as exc:  # noqa: BLE001 - the other Services must go on
            self.raised[key] = _described(exc)
            return None


def _described(exc: Exception) -> str:
    at = exc.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_globals.get('__name__')}:{at.tb_lineno}" if at is not None else "?"
    return f"{quoted(exc)} at {where}"
