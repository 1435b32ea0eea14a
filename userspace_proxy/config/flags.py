"""Parses the flags of ``run``: this proxy's settings, and kube-proxy's other flags.

Rule 1: every flag of kube-proxy is known, so its command line works here. A flag without effect
causes a warning with the reason, even at its old default: today's kube-proxy may reject it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..model import SocketAddress
from ..model.similar import did_you_mean
from .ignored import FLAGS as IGNORED
from .kinds import BOOL
from .settings import TABLE, Settings
from .values import parse_port

# kube-proxy's older flags, which set only the port; 0 disables the server.
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
    """The settings' values by name."""
    texts: Mapping[str, str]
    """A flag with its value for each setting, for messages: ``--udp-idle-timeout=5s``."""
    warnings: tuple[str, ...]
    """Sentences about flags without effect, one for each reason."""


def read_flags(words: Sequence[str], *, command: str = "") -> Flags:
    """Parse the arguments after the command.

    Raises:
        ConfigError: A flag is unknown, a value is missing or invalid, or a word isn't a flag.
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
            parsed(flag, text, row.kind.parse)
            ignored.append((dashed(flag), row.reason))
    values = _values_of(texts)
    shown = {name: f"{dashed(TABLE[name].flag)}={texts[name]}" for name in values}
    for flag, name in _PORT_FLAGS.items():
        if name in ports and name not in values:
            values[name] = _at_port(name, parsed(flag, ports[name], parse_port))
            shown[name] = f"{dashed(flag)}={ports[name]}"
    return Flags(
        values=values,
        texts=shown,
        warnings=tuple(warn_ignored(ignored)),
    )


def _values_of(texts: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in texts.items():
        row = TABLE[name]
        try:
            values[name] = parsed(row.flag, text, row.kind.parse)
        except ConfigError:
            # As in kube-proxy's file, an empty string means the default unless it is a valid value.
            if text or not (row.kube_field and row.kind.accepts_text):
                raise
    return values


def warn_ignored(ignored: Iterable[tuple[str, str]], *, place: str = "") -> list[str]:
    """Return one warning per reason.

    Args:
        ignored: Pairs of a flag or field and the reason why it has no effect.
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
    """Parse the text of a flag.

    Raises:
        ConfigError: The text is invalid; the message starts with the flag.
    """
    try:
        return parse(text)
    except ConfigError as exc:
        raise ConfigError(f"{dashed(flag)}: {exc.message}", hint=exc.hint) from exc


def split_words(
    words: Sequence[str], flags: Mapping[str, bool], *, command: str = ""
) -> tuple[list[tuple[str, str]], list[str]]:
    """Split words into (flag, value) pairs, in order, and the other words.

    Args:
        words: The command line without the program and the command.
        flags: Whether a flag needs a value, by name without dashes; a switch's value is ``true``.
        command: The command, for the hint about an unknown flag.

    Raises:
        ConfigError: A flag is unknown, or lacks its value.
    """
    given: list[tuple[str, str]] = []
    others: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            others.extend(reversed(rest))
            break
        if len(word) < 2 or not word.startswith("-"):
            others.append(word)
            continue
        name, equals, value = _name_and_value(word, flags, command)
        if not equals:
            if not flags[name]:
                value = "true"
            elif rest:
                value = rest.pop()
            else:
                raise ConfigError(f"{dashed(name)} needs a value")
        given.append((name, value))
    return given, others


def dashed(name: str) -> str:
    """Return a flag with its dashes."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def _name_and_value(word: str, flags: Mapping[str, bool], command: str) -> tuple[str, str, str]:
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
    else:
        name = word[1:].partition("=")[0]
        is_joined = flags.get(word[1], False) and name.replace("_", "-") not in flags
        if word[1] not in flags or not (len(name) == 1 or is_joined):
            raise _unknown(word, name, flags, command)
        name, value, equals = word[1], word[2:].removeprefix("="), word[2:3]
    normal = name.replace("_", "-")
    if normal not in flags:
        raise _unknown(word, normal, flags, command)
    return normal, equals, value


def _unknown(word: str, name: str, flags: Mapping[str, bool], command: str) -> ConfigError:
    shown = word.partition("=")[0]
    known = [flag for flag in flags if len(flag) > 1]
    name = name.replace("_", "-")
    hint = f"did you mean --{name}?" if name in known else did_you_mean(name, known, prefix="--")
    called = " ".join(filter(None, ("userspace-proxy", command, "--help")))
    return ConfigError(f"unknown flag {shown}", hint=hint or f"{called} lists them")
