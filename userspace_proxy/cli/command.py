"""What a command is, and how its words are read.

    words ──▶ read_words ──▶ Given: own flags · arguments · the flags of ``run``

Rule 1: help, completion, the man page and the reading of words use only these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

PROGRAM = "userspace-proxy"
DONE, FAILED, WRONG_USAGE, NEEDS_ATTENTION = 0, 1, 2, 3

HELP_FLAGS = ("help", "h")


@dataclass(frozen=True, slots=True)
class CommandFlag:
    """A flag of a command."""

    name: str
    """Without dashes."""
    help: str
    """One sentence, without a full stop."""
    value: str = ""
    """What it takes: ``N``, ``PATH``, or the values: ``text|json``; empty for a switch."""
    short: str = ""
    """One letter that means the same; may be empty."""
    completes: str = ""
    """What the command ``complete`` offers for its value; empty for nothing."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that are words; empty where they can't be listed."""
        words = self.value.split("|") if "|" in self.value else ()
        return tuple(word for word in words if not word.isupper())


@dataclass(frozen=True, slots=True)
class Given:
    """The words after a command."""

    values: dict[str, str]
    """The command's own flags by name; a switch has the text ``true``."""
    arguments: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Flags of ``run``, each as one word."""
    command: str = ""
    """The name of the command; empty if none was written."""
    rest: tuple[str, ...] = ()
    """The words after ``--``, if the command takes another program's."""

    @property
    def asks_version(self) -> bool:
        """Whether only the version is wanted: ``--version``, or kube-proxy's ``--version=raw``."""
        return self.values.get("version") == "raw" or self.is_on("version")

    def is_on(self, switch: str) -> bool:
        """Return whether a switch was given and not set to ``false``.

        Raises:
            ConfigError: Its value isn't a boolean.
        """
        from ..config.flags import parsed
        from ..config.values import parse_bool

        return switch in self.values and bool(parsed(switch, self.values[switch], parse_bool))


@dataclass(frozen=True, slots=True)
class Command:
    """One command as users see it."""

    name: str
    summary: str
    """What it does, in a few words, without a full stop."""
    run: Callable[[Given], int]
    """Returns the exit status."""
    arguments: str = ""
    """As in the usage line: ``[NAMESPACE/NAME]``; one word in brackets may be left out, and
    repeated if it ends with dots: ``[NAMESPACE/NAME...]``."""
    choices: tuple[str, ...] = ()
    """The values of the argument; empty where they can't be listed."""
    completes: str = ""
    """What the command ``complete`` offers for its arguments; empty for nothing."""
    details: tuple[str, ...] = ()
    """Paragraphs for its help."""
    flags: tuple[CommandFlag, ...] = ()
    """Those that aren't settings."""
    takes_settings: bool = False
    """Whether it accepts the flags of ``run``."""
    examples: tuple[str, ...] = ()
    """Without the program's name."""
    exits: tuple[tuple[int, str], ...] = ((DONE, "done"), (FAILED, "failed"))
    """The exit statuses; 2 is wrong usage for all."""
    takes_program: bool = False
    """Whether ``--`` and the words of another program follow."""
    is_daemon: bool = False
    """Whether signals without a meaning are ignored from its start."""
    reads_cluster: bool = False
    """Whether the Services of its arguments are a cluster's, whatever its flags are."""
    runs_anywhere: bool = False
    """Whether it works where a proxy can't run: on macOS and Windows."""

    @property
    def usage(self) -> str:
        flags = "[flags]" if self.flags or self.takes_settings else ""
        program = "-- COMMAND [ARGS]" if self.takes_program else ""
        return " ".join(word for word in (self.name, self.arguments, flags, program) if word)

    def read_words(self, words: Sequence[str], *, called: str | None = None) -> Given:
        """Read the words after the command.

        Args:
            words: Without the program and the command.
            called: The name that was written, which may be empty.

        Raises:
            ConfigError: An unknown flag, a missing value, or too few or too many arguments.
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
