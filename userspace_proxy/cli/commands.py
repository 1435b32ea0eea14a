"""Finds the command in the arguments, runs it, and returns the exit status.

Rule 1: flags without a command mean ``run``, so that kube-proxy's command line works.
Rule 2: a UserspaceProxyError is printed on one line of stderr; any other exception is a bug, and is
printed with its traceback.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, cast

from ..errors import ConfigError, PlatformError, UserspaceProxyError
from ..linux import is_linux, require_linux
from .all_nodes import asks_all_nodes
from .command import DONE, FAILED, WRONG_USAGE, Given
from .command_table import COMMANDS, SUMMARY
from .plugin_commands import all_commands, find_command, find_for_all_nodes
from .terminal import PrintableStream

_SIMILAR = "userspace-proxy-similar"
_SIMILAR_SIGNS = {"✓": "+", "✕": "x", "·": "-", "…": "...", "–": "-", "─": "-", "▶": ">", "µ": "u"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; by default, the arguments of ``sys.argv``.

    Returns:
        0 done (also after Ctrl-C), 1 failed, 2 wrong usage, 3 something needs attention.
    """
    _open_standard_streams()
    _tolerate_encodings()
    with _printable_streams():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except (ConfigError, PlatformError) as exc:
        _complain(exc)
        return WRONG_USAGE
    except UserspaceProxyError as exc:
        _complain(exc)
        return FAILED
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        # The program that reads the output (``| head``) has closed the pipe, which isn't an error.
        _discard_output()
        return DONE
    except OSError as exc:
        if not _is_output_broken():
            raise
        _discard_output()
        _complain(UserspaceProxyError(f"cannot write the output: {exc.strerror}"))
        return FAILED
    return status


def _dispatch(words: Sequence[str]) -> int:
    called = "" if not words or words[0].startswith("-") else words[0]
    command = find_command(called or "run", COMMANDS)
    if command.is_daemon and is_linux():
        if os.getpid() == 1:
            from .first_process import run_as_first

            return run_as_first([sys.executable, *sys.orig_argv[1:]])
        _ignore_signals()
    given = command.read_words(words[1:] if called else words, called=called)
    if given.is_on("help"):
        from .help import command_help, program_help

        commands = () if called else tuple(all_commands(COMMANDS).values())
        print(command_help(command) if called else program_help(SUMMARY, commands))
        return DONE
    if not command.runs_anywhere and not given.asks_version:
        require_linux(f"{command.name} needs Linux")
    if command.may_read_all and asks_all_nodes(given):
        function: Callable[[Given], int] = find_for_all_nodes(command.name)
        return function(given)
    return command.run(given)


def _complain(exc: UserspaceProxyError) -> None:
    from .logs import write_behind_log

    said = " ".join(str(exc).split("\n"))
    line = f"error: {said}"
    # Don't call print() while a log is set up: it would wait for a stalled reader of the log.
    if not write_behind_log(line):
        print(line, file=sys.stderr)


def _ignore_signals() -> None:
    """Until ``agent.signals`` handles them, ignore signals that must not kill the process.

    Imports take half a second. SIGTERM and SIGINT keep their default action, because there is no
    state to remove yet.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _open_standard_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next socket would be assigned that descriptor, and receive the output. As in other
    programs, printing to a closed stdout fails with the kernel's error, because /dev/null is opened
    for reading only.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)


def _is_output_broken() -> bool:
    """Write a line feed to stdout; return whether that fails."""
    try:
        os.write(1, b"\n")
    except OSError:
        return True
    return False


def _discard_output() -> None:
    """Make Python write the remaining output to /dev/null when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _tolerate_encodings() -> None:
    """Make the output contain a similar character or ``?`` for one that its encoding lacks."""
    codecs.register_error(_SIMILAR, _write_similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SIMILAR)


@contextlib.contextmanager
def _printable_streams() -> Iterator[None]:
    """Make the block's output printable and free of secrets; an exception ends the program."""
    streams = sys.stdout, sys.stderr
    try:
        # Keep None, which sys.stderr is if stderr is closed.
        sys.stdout, sys.stderr = (
            cast("TextIO", stream and PrintableStream(stream)) for stream in streams
        )
        yield
    except Exception as exc:
        traceback.print_exc()
        raise SystemExit(FAILED) from exc
    finally:
        sys.stdout, sys.stderr = streams


def _write_similar(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        # The handler is also called when a stream is read, such as a captured stream in a test.
        return "\ufffd", error.end
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SIMILAR_SIGNS.get(sign, "?") for sign in lacking), error.end
