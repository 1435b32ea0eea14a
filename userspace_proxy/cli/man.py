"""Writes the manual page, in roff with the macros of man(7).

Rule 1: one function escapes all text: backslashes, and control characters at the start of a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..version import __version__
from .command import PROGRAM, Command, CommandFlag
from .help import exits_of, setting_flags

_SECTION = 8
"""The manual's section of system administration commands."""


def man_page(summary: str, commands: Sequence[Command]) -> str:
    """Return the page; besides its arguments, it depends only on the version."""
    return "\n".join([*_lines(summary, commands), ""])


def plugin_page(summary: str, commands: Sequence[Command]) -> str:
    """Return the page of the commands that only kubectl's plugin has."""
    lines = [
        *_head(f"kubectl {PROGRAM}", summary, commands),
        *_examples(f"kubectl {PROGRAM}", commands),
        ".SH SEE ALSO",
        f".BR {_text(PROGRAM)} ({_SECTION})",
    ]
    return "\n".join([*lines, ""])


def _lines(summary: str, commands: Sequence[Command]) -> Iterator[str]:
    yield from _head(PROGRAM, summary, commands)
    yield ".SH SETTINGS"
    takers = [command.name for command in commands if command.takes_settings]
    yield _text(f"The flags of {', '.join(takers[:-1])} and {takers[-1]}.")
    for topic, flags in setting_flags():
        yield f'.SS "{_text(str(topic))}"'
        for flag in flags:
            yield from _flag(flag)
    yield from _examples(PROGRAM, commands)
    yield ".SH FILES"
    yield ".TP"
    yield ".B /var/lib/userspace\\-proxy"
    yield "The saved state; see \\-\\-state\\-dir."
    yield ".SH ENVIRONMENT"
    yield ".TP"
    yield ".B NO_COLOR"
    yield "If it is set, nothing is coloured."


def _head(program: str, summary: str, commands: Sequence[Command]) -> Iterator[str]:
    name = program.replace(" ", "-")
    version = f"{PROGRAM} {__version__}"
    yield f'.TH "{_text(name.upper())}" {_SECTION} "" "{version}" "System Administration"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(summary)}"
    yield ".SH SYNOPSIS"
    for command in commands:
        yield f".B {_text(program)} {_text(command.name)}"
        rest = command.usage.removeprefix(command.name).strip()
        if rest:
            yield _text(rest)
        yield ".br"
    yield ".SH COMMANDS"
    for command in commands:
        yield from _command(command)


def _examples(program: str, commands: Sequence[Command]) -> Iterator[str]:
    yield ".SH EXAMPLES"
    for command in commands:
        for words in command.examples:
            yield ".TP"
            yield f".B {_text(f'{program} {words}')}"


def _command(command: Command) -> Iterator[str]:
    yield f'.SS "{_text(command.name)}"'
    yield _text(f"{command.summary[0].upper()}{command.summary[1:]}.")
    for paragraph in command.details:
        yield ".PP"
        yield _text(paragraph)
    for flag in command.flags:
        yield from _flag(flag)
    yield ".PP"
    exits = ", ".join(f"{status} {meaning}" for status, meaning in exits_of(command))
    yield _text(f"Exit codes: {exits}.")


def _flag(flag: CommandFlag) -> Iterator[str]:
    short = f"\\fB{_text('-' + flag.short)}\\fR, " if flag.short else ""
    value = f" \\fI{_text(flag.value)}\\fR" if flag.value else ""
    yield ".TP"
    yield f"{short}\\fB{_text('--' + flag.name)}\\fR{value}"
    yield _text(f"{flag.help[0].upper()}{flag.help[1:]}.")


def _text(text: str) -> str:
    """Escape a string; hyphens become minus signs, which can be copied into a shell."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    # roff would interpret a line that begins with one of these characters.
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
