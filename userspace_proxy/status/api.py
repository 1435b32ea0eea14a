"""The JSON responses: ``/api/v1/status`` and ``/configz``."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from .problems import judge, summarise
from .selection import Selection, select
from .view import StatusView

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def render_status(view: StatusView, *, now: float, selection: Selection | None = None) -> bytes:
    """Return a view as JSON: its fields by name, with what the page says in words.

    Beside the fields stand ``now`` (Unix time), ``level``, ``verdict`` and ``problems``,
    and in each Service port its ``state``. Settings are left to ``/configz``.

    Args:
        view: The state at this moment.
        now: Unix time.
        selection: Which Service ports, ignored Services and health checks; None for all. The page
            number is ignored, and the words are about all.
    """
    chosen = select(view, selection or Selection())
    answer = _fields(view)
    del answer["config"]
    answer["ports"] = [{**_fields(port), "state": judge(port)} for port in chosen.ports]
    answer["ignored"] = chosen.ignored
    answer["health_checks"] = chosen.health_checks
    return _encode({"now": now, **_fields(summarise(view, now)), **answer})


def render_configz(view: StatusView) -> bytes:
    """Return the settings in force as JSON, each with its value and where it came from."""
    settings = {
        name: {"value": value, "origin": origin} for name, value, origin in sorted(view.config)
    }
    return _encode({"settings": settings}, indent=2)


def _encode(value: object, *, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, indent=indent)
    except ValueError:
        # JSON has no word for infinity; that is rare, so only then is every value looked at.
        text = json.dumps(_finite(value), indent=indent)
    return text.encode() + b"\n"


def _plain(value: object) -> object:
    """Return what JSON can hold of a value that it has no form for."""
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)


def _fields(value: DataclassInstance) -> dict[str, object]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return _finite(_plain(value))
