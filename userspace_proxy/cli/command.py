"""Defines commands, and parses their arguments.

    words ──▶ read_words ──▶ Given: own flags · arguments · the flags of ``run``

Rule 1: help, completion, the man page and parsing use only these definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from ..errors import ConfigError

PROGRAM = "userspace-proxy"
DONE, FAILED, WRONG_USAGE, NEEDS_ATTENTION = 0, 1, 2, 3

HELP_FLAGS = ("help", "h")


@dataclass(frozen=True, slots=True)
class CommandFlag:
    """A flag of a command."""

    name: str
    help: str
    """One sentence, without a full stop."""
    value: str = ""
    """The value's placeholder (``N``, ``PATH``) or choices (``text|json``); empty for a switch."""
    short: str = ""
    """The one-letter form; may be empty."""
    completes: str = ""
    """The kind of candidates that the command ``complete`` offers for the value; may be empty."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible values; empty if they can't be listed."""
        words = self.value.split("|") if "|" in self.value else ()
        return tuple(word for word in words if not word.isupper())


@dataclass(frozen=True, slots=True)
class Given:
    """The parsed words after a command."""

    values: dict[str, str]
    """The command's own flags by name; a switch without a value has the text ``true``."""
    arguments: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """The given flags of ``run``, one word each."""
    command: str = ""
    """The name of the command; empty if there is none."""
    rest: tuple[str, ...] = ()
    """The words after ``--``, if the command runs another program."""

    @property
    def asks_version(self) -> bool:
        """Whether the user requests only the version, by ``--version`` or kube-proxy's ``=raw``."""
        return self.values.get("version") == "raw" or self.is_on("version")

    def is_on(self, switch: str) -> bool:
        """Return whether a switch was given and not set to ``false``.

        Raises:
            ConfigError: The switch's value isn't a boolean.
        """
        from ..config.flags import parsed
        from ..config.values import parse_bool

        return switch in self.values and bool(parsed(switch, self.values[switch], parse_bool))


@dataclass(frozen=True, slots=True)
class Imported:
    """A function that is imported only when it is called, so that other commands start quickly."""

    function: str
    """The function as ``module:name``, such as ``userspace_proxy.cli.run:run``."""

    def load(self) -> Callable[[Given], int]:
        module, _, name = self.function.partition(":")
        found: Callable[[Given], int] = getattr(import_module(module), name)
        return found

    def __call__(self, given: Given) -> int:
        return self.load()(given)


@dataclass(frozen=True, slots=True)
class Command:
    """One command as users see it."""

    name: str
    summary: str
    """A summary in a few words, without a full stop."""
    run: Callable[[Given], int]
    arguments: str = ""
    """The arguments as in the usage line: brackets mark an optional argument, ``[NAMESPACE/NAME]``,
    and dots a repeatable argument, ``[NAMESPACE/NAME...]``."""
    choices: tuple[str, ...] = ()
    """The possible values of the argument; empty if they can't be listed."""
    completes: str = ""
    """The kind of candidates that the command ``complete`` offers for arguments; may be empty."""
    details: tuple[str, ...] = ()
    """Paragraphs for the command's help."""
    flags: tuple[CommandFlag, ...] = ()
    takes_settings: bool = False
    examples: tuple[str, ...] = ()
    """Examples, without the program's name."""
    exits: tuple[tuple[int, str], ...] = ((DONE, "done"), (FAILED, "failed"))
    """The exit statuses; 2 means wrong usage in all commands."""
    takes_program: bool = False
    """Whether ``--`` and the words of another program may follow."""
    is_daemon: bool = False
    """Whether SIGHUP, SIGUSR1 and SIGUSR2 are ignored from the start of the program."""
    reads_cluster: bool = False
    """Whether the arguments name Services of a cluster, regardless of the flags."""
    runs_anywhere: bool = False
    """Whether the command also works on macOS and Windows, where a proxy can't run."""
    may_read_all: bool = False
    """Whether the command queries one proxy (the function ``run``) or all nodes (an entry point,
    see ``plugin_commands``), depending on its flags."""

    @property
    def usage(self) -> str:
        flags = "[flags]" if self.flags or self.takes_settings else ""
        program = "-- COMMAND [ARGS]" if self.takes_program else ""
        return " ".join(word for word in (self.name, self.arguments, flags, program) if word)

    def read_words(self, words: Sequence[str], *, called: str | None = None) -> Given:
        """Parse the words after the command.

        Args:
            words: The words, without the program and the command.
            called: The command's name as typed by the user; empty if none was typed; None for the
                command's own name.

        Raises:
            ConfigError: A flag is unknown, a value is missing or invalid, or arguments don't fit.
        """
        from ..config.flags import KNOWN, dashed, split_words

        rest: Sequence[str] = ()
        if self.takes_program and "--" in words:
            at = list(words).index("--")
            words, rest = words[:at], words[at + 1 :]
        own = {flag.name: flag for flag in self.flags}
        own |= {flag.short: flag for flag in self.flags if flag.short}
        known = {
            **(KNOWN if self.takes_settings else {}),
            **{name: bool(flag.value) for name, flag in own.items()},
            **dict.fromkeys(HELP_FLAGS, False),
        }
        pairs, arguments = split_words(words, known, command=self.name)
        values: dict[str, str] = {}
        settings: list[str] = []
        for name, value in pairs:
            if flag := own.get(name):
                values[flag.name] = _chosen(flag, dashed(name), value)
            elif name in HELP_FLAGS:
                values["help"] = value
            else:
                settings.append(f"{dashed(name)}={value}")
        name = self.name if called is None else called
        given = Given(values, tuple(arguments), tuple(settings), name, tuple(rest))
        if "help" not in values:
            self._check_arguments(arguments)
        return given

    def _check_arguments(self, arguments: Sequence[str]) -> None:
        wanted = len(self.arguments.split())
        least = 0 if self.arguments.startswith("[") else wanted
        usage = f"usage: {PROGRAM} {self.usage}"
        if len(arguments) > wanted and not self.arguments.endswith("...]"):
            hint = "write a value with its flag: --flag=value" if self.takes_settings else usage
            raise ConfigError(f"unexpected argument {arguments[wanted]!r}", hint=hint)
        if len(arguments) < least:
            raise ConfigError(f"{self.name} needs {self.arguments}", hint=usage)
        if self.choices and arguments and arguments[0] not in self.choices:
            from ..model.similar import did_you_mean

            hint = did_you_mean(arguments[0], self.choices) or f"one of {', '.join(self.choices)}"
            raise ConfigError(f"{self.name}: unknown {arguments[0]!r}", hint=hint)


def _chosen(flag: CommandFlag, shown: str, value: str) -> str:
    if flag.choices and value not in flag.choices:
        raise ConfigError(f"{shown}: {value!r} is not one of {', '.join(flag.choices)}")
    return value
