"""Formats numbers for people: ``1.4 MB``, ``3 h 5 min``, ``12,345``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .figures import Times

_SHORT_UNITS = "kMG"
_DIGITS = re.compile(r"([0-9]+)")
_BYTE_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def format_bytes(count: float) -> str:
    """Return bytes in decimal units (1 kB is 1000 B); ``unknown`` if negative or not finite."""
    if not math.isfinite(count) or count < 0:
        return "unknown"
    if count < 1000:
        return f"{int(count)} B"
    value, power = count / 1000, 0
    # 999.5 would be rounded to 1000, which is 1.0 of the next unit.
    while value >= 999.5 and power < len(_BYTE_UNITS) - 1:
        value, power = value / 1000, power + 1
    figure = f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"
    return f"{figure} {_BYTE_UNITS[power]}"


def format_seconds(seconds: float) -> str:
    """Return a duration such as ``3 h 5 min``; ``unknown`` if it is negative or not finite."""
    if not math.isfinite(seconds) or seconds < 0:
        return "unknown"
    # 0.9995 would be rounded to 1000 ms, and 59.5 to 60 s.
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(max(1, int(seconds) // 60), 60)
    days, hours = divmod(hours, 24)
    if days:
        return _two(days, "d", hours, "h")
    return _two(hours, "h", minutes, "min") if hours else f"{minutes} min"


def format_count(count: float) -> str:
    """Return a number with thousands separated by commas; ``unknown`` if it isn't finite."""
    return f"{count:,.0f}" if math.isfinite(count) else "unknown"


def format_waits(times: Times) -> str:
    """Return the median and the 99th percentile of waits; empty if there were none.

    They are given as bounds, ``≤ 5 ms``, because only the counts between bounds are known.
    """
    total = sum(times.counts)
    if not total:
        return ""
    half, most = (_bound(times, share * total) for share in (0.5, 0.99))
    return f"{half} (median), {most} (99 %)"


def format_ejected(seconds: float) -> str:
    """Return how long an endpoint stays ejected; after that, a client or a probe dials it.

    Args:
        seconds: The time until that dial; 0 or less once it is due.
    """
    return f"ejected for {format_seconds(seconds)}" if seconds > 0 else "ejected until it answers"


def _bound(times: Times, number: float) -> str:
    waited = 0
    for bound, count in zip(times.bounds, times.counts, strict=False):
        waited += count
        if waited >= number:
            return f"≤ {format_seconds(bound)}"
    return f"> {format_seconds(times.bounds[-1])}" if times.bounds else "unknown"


def format_rate(rate: float) -> str:
    """Return a rate per second, with one decimal from 0.05 to 9.95; ``unknown`` if not finite."""
    if not math.isfinite(rate):
        return "unknown"
    return f"{rate:.1f}" if 0.05 <= rate < 9.95 else f"{rate:,.0f}"


def count_in_short(count: float) -> str:
    """Return a count below 10^13 in up to six characters (``123k``); ``unknown`` if not finite."""
    if not math.isfinite(count):
        return "unknown"
    if count < 99_999.5:
        return f"{count:,.0f}"
    power = 1
    # 999.5 would be rounded to 1000, which is 1.0 of the next unit.
    while count / 1000**power >= 999.5 and power < len(_SHORT_UNITS):
        power += 1
    value = count / 1000**power
    figure = f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"
    return figure + _SHORT_UNITS[power - 1]


def in_order(name: str) -> tuple[str | tuple[int, str], ...]:
    """Return the sort key for names with numbers: node-9 comes before node-10."""
    parts = enumerate(_DIGITS.split(name))
    return tuple([(len(part), part) if at % 2 else part for at, part in parts])


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 endpoint``, ``2 endpoints``; ``nouns`` is for plurals without an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def format_limit(max_connections: int | None) -> str:
    """Return the limit on connections of one node to an endpoint; empty if there is none."""
    if max_connections is None:
        return ""
    return f"at most {plural(max_connections, 'connection')} per endpoint"


def format_times(count: int, last_at: float, now: float) -> str:
    """Return `` (3 times, last 2 s ago)``; empty if the count is 0.

    Args:
        last_at: Unix time of the last occurrence; 0 if unknown.
    """
    if not count:
        return ""
    times = "once" if count == 1 else f"{count:,} times"
    last = f", last {format_seconds(max(0.0, now - last_at))} ago" if last_at else ""
    return f" ({times}{last})"


def capitalised(text: str) -> str:
    """Return a string with its first letter in upper case, unless it begins with a name.

    The first word is a name if there is ``/``, ``.``, ``:`` or ``=`` before its last character.
    """
    first = text.partition(" ")[0][:-1]
    return text if any(mark in first for mark in "/.:=") else text[:1].upper() + text[1:]


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    text = f"{first} {first_unit}"
    return f"{text} {second} {second_unit}" if second else text
