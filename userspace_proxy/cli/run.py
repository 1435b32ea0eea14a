"""Runs the commands ``run`` and ``cleanup``: reads settings, sets up the log, calls the agent."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .command import DONE, PROGRAM, Given

if TYPE_CHECKING:
    from ..config import Settings


def run(given: Given) -> int:
    """Run the proxy, or the one action that a flag requests; return the exit status.

    Raises:
        UserspaceProxyError: A flag is invalid, or the proxy can't start or continue.
    """
    if given.asks_version:
        return _version()

    from ..config.load import load_settings

    loaded = load_settings(given.settings)
    settings = loaded.settings
    if settings.write_config_to:
        from ..config.writing import write_config

        _warn(loaded.warnings)
        write_config(settings, settings.write_config_to)
        return DONE

    from .logs import set_up_logging

    log = set_up_logging(settings.log_format, settings.verbosity)
    if settings.cleanup or given.command == "cleanup":
        from ..agent.cleanup import cleanup

        _warn(loaded.warnings)
        return cleanup(settings)

    # At startup, garbage collection would take a tenth of the time of imports, and of the first
    # round with thousands of Services, and find no garbage.
    gc.disable()
    try:
        from ..agent.run import run_agent
        from .log_writer import write_stdout

        warnings = loaded.warnings
        return run_agent(settings, warnings, _log_findings, lambda: log.dropped, write_stdout)
    finally:
        gc.enable()


def _log_findings(settings: Settings, steering: str) -> None:
    # Import the checks only here, once the proxy runs.
    from ..check import log_findings

    log_findings(settings, steering)


def _version() -> int:
    from ..version import __version__, format_version, own_commit

    print(f"{PROGRAM} {format_version(__version__, own_commit())}")
    return DONE


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
