"""Reads and writes durations as Go does: ``1m30s``, ``250ms``. All values are in seconds."""

from __future__ import annotations

import re

from ..errors import ConfigError
from .quoting import quoted

# Go's units, in seconds. Source: Go's time.ParseDuration.
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
# The longest duration: Go counts nanoseconds in 63 bits, which is 292 years.
_LONGEST_S = 9223372036.0
_AMOUNT = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(f"(?:{_AMOUNT})+", re.ASCII)
_DIGITS = re.compile(r"\d{1,9}", re.ASCII)


def parse_duration(text: str) -> float:
    """Parse a duration of 0 or more, in seconds; ``0`` needs no unit. Raises ConfigError."""
    text = text.strip().removeprefix("+")
    if text.startswith("-") and _DURATION.fullmatch(text[1:]):
        raise ConfigError(f"{quoted(text)} is negative")
    if text == "0":
        return 0.0
    if _DURATION.fullmatch(text):
        amounts = re.findall(_AMOUNT, text, re.ASCII)
        seconds = sum(float(amount) * _UNITS_S[unit] for amount, unit in amounts)
        if seconds > _LONGEST_S:
            raise ConfigError(f"{quoted(text)} is too long")
        # Round to nanoseconds, so that 9ms is 0.009 and not 0.009000000000000001.
        return round(seconds, 9)
    if _DIGITS.fullmatch(text):
        raise ConfigError(f"{quoted(text)} has no unit", hint=f"write {text}s")
    raise ConfigError(f"{quoted(text)} is not a duration", hint="write 30s, 250ms or 1m30s")


def format_duration(seconds: float) -> str:
    """Write a duration as Go does: ``1h30m0s``, ``250ms``, ``0s``."""
    if seconds == 0:
        return "0s"
    if seconds < 1:
        for unit in ("ms", "µs"):
            if seconds >= _UNITS_S[unit]:
                return f"{_plain(seconds / _UNITS_S[unit])}{unit}"
        return f"{_plain(seconds * 1e9)}ns"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    written = f"{_plain(rest)}s"
    if hours or minutes:
        written = f"{minutes}m{written}"
    return f"{hours}h{written}" if hours else written


def _plain(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
