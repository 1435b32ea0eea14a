"""Finds the command in the arguments, runs it, and returns the exit status.

Rule 1: flags without a command mean ``run``, so that kube-proxy's command line works.
Rule 2: a UserspaceProxyError is one line on stderr; any other exception is a bug, and its
traceback is shown.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError, UserspaceProxyError

if TYPE_CHECKING:
    from ..config import Settings

DONE, FAILED, WRONG_USAGE = 0, 1, 2

Command = Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after the program's name; None takes them from ``sys.argv``.

    Returns:
        0 done (also after Ctrl-C), 1 failed, 2 wrong usage.
    """
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as exc:
        _complain(exc)
        return WRONG_USAGE
    except UserspaceProxyError as exc:
        _complain(exc)
        return FAILED
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        # The reader of the output (``| head``) has closed it; Python must not write at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    return status


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0].startswith("-"):
        return _run(words)
    command = _COMMANDS.get(words[0])
    if command is None:
        raise _unknown(words[0])
    return command(words[1:])


def _run(words: Sequence[str], *, command: str = "") -> int:
    _ignore_signals()
    from ..config.flags import read_flags

    flags = read_flags(words, command=command)
    if flags.wants_help:
        return _help(command)
    if flags.wants_version:
        return _version()

    from ..config.load import load_flags

    loaded = load_flags(flags)
    settings = loaded.settings
    if settings.write_config_to:
        from ..config.writing import write_config

        _warn(loaded.warnings)
        write_config(settings, settings.write_config_to)
        return DONE

    from .logs import set_up_logging

    log = set_up_logging(settings.log_format, settings.verbosity)
    if settings.cleanup or command == "cleanup":
        from ..agent.cleanup import cleanup

        _warn(loaded.warnings)
        return cleanup(settings)

    from ..agent.run import run_agent

    return run_agent(settings, loaded.warnings, _log_findings, lambda: log.dropped)


def _log_findings(settings: Settings, steering: str) -> None:
    # Imported once the proxy runs.
    from ..check import log_findings

    log_findings(settings, steering)


def _cleanup(words: Sequence[str]) -> int:
    return _run(words, command="cleanup")


def _check(words: Sequence[str]) -> int:
    from .check import check

    return check(words)


def _demo(words: Sequence[str]) -> int:
    from argparse import Namespace

    from ..config.flags import parsed
    from ..config.kinds import integer
    from ..config.words import split_words

    given, others = split_words(words, {"port": True, "help": False, "h": False}, command="demo")
    if others:
        raise ConfigError(f"unexpected argument {others[0]!r}", hint="demo takes only --port=N")
    values = dict(given)
    if "help" in values or "h" in values:
        return _help("demo")
    port = values.get("port")
    kind = integer(0, 65535)
    options = Namespace(port=None if port is None else parsed("port", port, kind.parse))

    from .demo import demo

    return demo(options)


def _help_command(words: Sequence[str]) -> int:
    if words and words[0] not in _COMMANDS:
        raise _unknown(words[0])
    return _help(words[0] if words else "")


def _unknown(word: str) -> ConfigError:
    from ..config.words import did_you_mean

    hint = did_you_mean(word, _COMMANDS) or f"commands: {', '.join(_COMMANDS)}"
    return ConfigError(f"unknown command {word!r}", hint=hint)


def _help(command: str) -> int:
    from .help import help_text

    print(help_text(command))
    return DONE


def _version() -> int:
    from .. import __version__

    print(f"userspace-proxy {__version__}")
    return DONE


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _complain(exc: UserspaceProxyError) -> None:
    from .logs import write_behind_log

    line = f"error: {_one_line(exc)}"
    # A print would wait for a stalled reader of the log.
    if not write_behind_log(line):
        print(line, file=sys.stderr)


def _ignore_signals() -> None:
    """Ignore the signals that don't end the process until `agent.signals` handles them.

    Imports take half a second. SIGTERM and SIGINT keep their default action, as there is nothing to
    remove yet.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _open_standard_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next socket would get that number, and the output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _one_line(exc: UserspaceProxyError) -> str:
    return " ".join(str(exc).split("\n"))


_COMMANDS: dict[str, Command] = {
    "run": lambda words: _run(words, command="run"),
    "demo": _demo,
    "check": _check,
    "cleanup": _cleanup,
    "help": _help_command,
}
