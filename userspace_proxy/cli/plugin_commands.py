"""Finds a command by its name: this package's, or one that another installed package adds.

An entry point of the group ``userspace_proxy.commands`` has the command's name, and refers to its
:class:`.Command`::

    [project.entry-points."userspace_proxy.commands"]
    demo = "userspace_proxy_testing.commands.table:DEMO"

Rule 1: a command of this package is found without reading what is installed, and can't be replaced.
"""

from __future__ import annotations

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
    """Return a command.

    Args:
        own: This package's commands by name.

    Raises:
        ConfigError: There is none of this name, or it needs a package that isn't installed or
            can't be loaded.
    """
    commands = own if name in own else all_commands(own)
    if name in commands:
        return commands[name]
    if name in _OF_KIT:
        raise ConfigError(
            f"{name} is a command of {_KIT}, which isn't installed",
            hint=f"in a checkout: pip install . ./{_KIT}",
        )
    from ..model.similar import did_you_mean

    hint = did_you_mean(name, commands) or f"commands: {', '.join(commands)}"
    raise ConfigError(f"unknown command {name!r}", hint=hint)


def all_commands(own: Mapping[str, Command]) -> Mapping[str, Command]:
    """Return all commands by name: this package's, then those of others in order.

    Args:
        own: This package's commands by name.

    Raises:
        ConfigError: What another package names as its command isn't there.
    """
    from importlib.metadata import entry_points

    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    return {**own, **{name: _load(others[name]) for name in sorted(others.keys() - own.keys())}}


def _load(entry: EntryPoint) -> Command:
    try:
        command: Command = entry.load()
    except (ImportError, AttributeError) as exc:
        package = entry.dist.name if entry.dist is not None else entry.module
        raise ConfigError(
            f"cannot load the command {entry.name} of {package}: {exc}",
            hint="install that package again, or remove it",
        ) from exc
    return command
