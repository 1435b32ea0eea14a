"""Finds a command by its name: this package's, or one that another installed package adds.

An entry point of the group ``userspace_proxy.commands`` has the command's name, and refers to its
:class:`.Command`::

    [project.entry-points."userspace_proxy.commands"]
    demo = "userspace_proxy_testing.commands.table:DEMO"

Rule 1: a command of this package is found without reading what is installed, and can't be replaced.
Rule 2: a command that can't be loaded is an error only when it is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .command import Command

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "userspace_proxy.commands"
_KIT = "pytest-userspace-proxy"
_OF_KIT = ("demo", "sandbox")


def find_command(name: str, own: Mapping[str, Command]) -> Command:
    """Return a command: one of this package's own, or one that another package adds.

    Raises:
        ConfigError: There is none of this name, or it needs a package that isn't installed or
            can't be loaded.
    """
    if name in own:
        return own[name]
    others = _entries()
    if name in others:
        return _load(others[name])
    if name in _OF_KIT:
        raise ConfigError(
            f"{name} is a command of {_KIT}, which isn't installed",
            hint=f"in a checkout: pip install . ./{_KIT}",
        )
    from ..model.similar import did_you_mean

    known = [*own, *sorted(others.keys() - own.keys())]
    hint = did_you_mean(name, known) or f"commands: {', '.join(known)}"
    raise ConfigError(f"unknown command {name!r}", hint=hint)


def all_commands(own: Mapping[str, Command]) -> Mapping[str, Command]:
    """Return all commands by name: this package's, then those of others that load, in order."""
    commands = dict(own)
    for name, entry in sorted(_entries().items()):
        if name not in own:
            with contextlib.suppress(ConfigError):
                commands[name] = _load(entry)
    return commands


def _entries() -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> Command:
    try:
        command = entry.load()
    except Exception as exc:
        raise _unusable(entry, f"{type(exc).__name__}: {exc}") from exc
    if not isinstance(command, Command):
        raise _unusable(entry, f"{entry.value} is no Command")
    return command


def _unusable(entry: EntryPoint, why: str) -> ConfigError:
    package = entry.dist.name if entry.dist is not None else entry.module
    return ConfigError(
        f"cannot load the command {entry.name} of {package}: {why}",
        hint="install that package again, or remove it",
    )
