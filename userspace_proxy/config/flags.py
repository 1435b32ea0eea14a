"""Reads flags of ``run``: this proxy's settings, and kube-proxy's other flags.

Rule 1: no flag of kube-proxy is unknown, so its command line works here. For flags without effect
there are warnings with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..model import SocketAddress
from .ignored import FLAGS as IGNORED
from .kinds import BOOL
from .settings import TABLE, Settings
from .values import parse_port
from .words import dashed, split_words

# kube-proxy's older flags for the port alone; 0 switches the server off.
_PORT_FLAGS = {
    "healthz-port": "healthz_bind_address",
    "metrics-port": "metrics_bind_address",
}
_NAMES = {flag: name for name, row in TABLE.items() for flag in (row.flag, *row.aliases)}
KNOWN: Mapping[str, bool] = {
    **{flag: TABLE[name].kind is not BOOL for flag, name in _NAMES.items()},
    **dict.fromkeys(_PORT_FLAGS, True),
    **{flag: row.kind is not BOOL for flag, row in IGNORED.items()},
}
"""Whether a flag needs a value, by name without dashes."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The settings on a command line."""

    values: Mapping[str, Any]
    """By name."""
    texts: Mapping[str, str]
    """Flags as written by name, for messages: ``--udp-timeout=5s``."""
    warnings: tuple[str, ...]
    """Sentences about flags without effect, one for each reason."""


def read_flags(words: Sequence[str], *, command: str = "") -> Flags:
    """Read the words after the command.

    Raises:
        ConfigError: An unknown flag, an invalid value, or a word that isn't a flag.
    """
    given, others = split_words(words, KNOWN, command=command)
    if others:
        raise ConfigError(
            f"unexpected argument {others[0]!r}", hint="write a value with its flag: --flag=value"
        )
    texts: dict[str, str] = {}
    ports: dict[str, str] = {}
    ignored: list[tuple[str, str]] = []
    for flag, text in given:
        if name := _NAMES.get(flag):
            is_cumulative = TABLE[name].kind.is_cumulative and name in texts
            texts[name] = f"{texts[name]},{text}" if is_cumulative else text
        elif name := _PORT_FLAGS.get(flag):
            ports[name] = text
        else:
            row = IGNORED[flag]
            if not row.is_harmless(parsed(flag, text, row.kind.parse)):
                ignored.append((dashed(flag), row.reason))
    values = {n: parsed(TABLE[n].flag, text, TABLE[n].kind.parse) for n, text in texts.items()}
    shown = {name: f"{dashed(TABLE[name].flag)}={text}" for name, text in texts.items()}
    for flag, name in _PORT_FLAGS.items():
        if name in ports and name not in values:
            values[name] = _at_port(name, parsed(flag, ports[name], parse_port))
            shown[name] = f"{dashed(flag)}={ports[name]}"
    return Flags(
        values=values,
        texts=shown,
        warnings=tuple(warn_ignored(ignored)),
    )


def warn_ignored(ignored: Iterable[tuple[str, str]], *, place: str = "") -> list[str]:
    """Return one sentence for each reason.

    Args:
        ignored: (flag or field, reason).
        place: The file; empty for flags.
    """
    names: dict[str, list[str]] = {}
    for name, reason in ignored:
        names.setdefault(reason, []).append(name)
    prefix = f"{place}: " if place else ""
    return [
        f"{prefix}ignored {', '.join(dict.fromkeys(shown))}: {reason}"
        for reason, shown in names.items()
    ]


def _at_port(name: str, port: int) -> SocketAddress | None:
    default = getattr(Settings(), name)
    return default._replace(port=port) if port else None


def parsed(flag: str, text: str, parse: Callable[[str], Any]) -> Any:
    """Read the text of a flag.

    Raises:
        ConfigError: It is invalid; the message starts with the flag.
    """
    try:
        return parse(text)
    except ConfigError as exc:
        raise ConfigError(f"{dashed(flag)}: {exc.message}", hint=exc.hint) from exc
