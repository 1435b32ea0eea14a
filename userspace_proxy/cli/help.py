"""Renders ``--help`` from the tables of commands and settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from ..config.kinds import BOOL
from ..config.setting_table import Setting, Topic
from ..config.settings import TABLE, Settings
from .command import PROGRAM, WRONG_USAGE, Command, CommandFlag

_WIDTH = 96
_INDENT = 34


def program_help(summary: str, commands: Sequence[Command]) -> str:
    """Return the program's help: its purpose and its commands."""
    rows = "\n".join(_row(f"  {command.name}", command.summary, 14) for command in commands)
    return f"""\
{PROGRAM}: {summary}

Usage:
  {PROGRAM} [COMMAND] [flags]

Commands:
{rows}

Examples:
  {PROGRAM} --manifests=services.yaml --steering=none
  {PROGRAM} --kubeconfig=/etc/kubernetes/proxy.conf
  {PROGRAM} status

{PROGRAM} COMMAND --help shows the flags of a command, {PROGRAM} --version the version."""


def command_help(command: Command) -> str:
    """Return the help of one command."""
    parts = [
        _wrap(f"{PROGRAM} {command.name}: {command.summary}", 0),
        _section("Usage", [f"  {PROGRAM} {command.usage}"]),
    ]
    if command.details:
        parts.append("\n".join(_wrap(paragraph, 0) for paragraph in command.details))
    if command.flags:
        parts.append(_section("Flags", map(_flag, command.flags)))
    if command.name == "run":
        parts += [_section(topic, map(_flag, flags)) for topic, flags in setting_flags()]
    elif command.takes_settings:
        parts.append(f"It takes the flags of run as well: {PROGRAM} run --help lists them.")
    if command.examples:
        title = "Example" if len(command.examples) == 1 else "Examples"
        parts.append(_section(title, (f"  {PROGRAM} {words}" for words in command.examples)))
    exits = (f"  {status}  {meaning}" for status, meaning in exits_of(command))
    parts.append(_section("Exit codes", exits))
    return "\n\n".join(parts)


def exits_of(command: Command) -> list[tuple[int, str]]:
    """Return a command's exit statuses and their meanings, including wrong usage."""
    return sorted([*command.exits, (WRONG_USAGE, "wrong usage")])


def setting_flags() -> Iterator[tuple[Topic, list[CommandFlag]]]:
    """Yield the flags of settings, which ``run`` accepts, by topic."""
    for topic in Topic:
        yield topic, [_as_flag(name, row) for name, row in TABLE.items() if row.topic is topic]


def all_flags(command: Command) -> list[CommandFlag]:
    """Return all flags that a command accepts."""
    help_flag = CommandFlag("help", "show the help of the command", short="h")
    settings = [flag for _, flags in setting_flags() for flag in flags]
    return [*command.flags, *(settings if command.takes_settings else ()), help_flag]


def left_of(flag: CommandFlag) -> str:
    """Return a flag with its value: ``-o, --output text|json``."""
    short = f"-{flag.short}, " if flag.short else ""
    return f"{short}--{flag.name}{' ' + flag.value if flag.value else ''}"


def _as_flag(name: str, row: Setting) -> CommandFlag:
    if row.kind is BOOL:
        return CommandFlag(row.flag, row.help)
    default = row.shown_default or row.kind.write_text(getattr(Settings(), name))
    text = f"{row.help} ({default})" if default else row.help
    return CommandFlag(row.flag, text, row.kind.name, short="v" if row.flag == "v" else "")


def _flag(flag: CommandFlag) -> str:
    return _row(f"  {left_of(flag)}", flag.help)


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{title}:", *lines])


def _row(left: str, text: str, indent: int = _INDENT) -> str:
    """Return a name and its wrapped text, beside the name if there is room."""
    wrapped = _wrap(text, indent)
    if len(left) >= indent - 1:
        return f"{left}\n{wrapped}"
    return left + wrapped[len(left) :]


def _wrap(text: str, indent: int) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
