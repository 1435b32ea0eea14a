"""Finds a command by its name, in this package or another one.

An entry point of the group ``userspace_proxy.commands`` has the command's name, and refers to its
:class:`.Command`. An entry point of ``userspace_proxy.for_all_nodes`` has the name of a command of
this package, and refers to its equivalent for all nodes of a cluster (for ``explain``, to a
function that returns the nodes' facts about a Service)::

    [project.entry-points."userspace_proxy.commands"]
    demo = "userspace_proxy_testing.commands.table:DEMO"

Rule 1: a command of this package is found without a search of installed packages, and can't be
replaced.
Rule 2: a command that can't be loaded is an error only when it is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .command import Command

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_COMMANDS = "userspace_proxy.commands"
_FOR_ALL_NODES = "userspace_proxy.for_all_nodes"
_CLIENT = "kubectl-userspace-proxy"
_KIT = "pytest-userspace-proxy"
_PARTS = {
    **dict.fromkeys(("dashboard", "forward", "nodes", "report"), _CLIENT),
    **dict.fromkeys(("demo", "sandbox"), _KIT),
}


class NotInstalled(ConfigError):
    """The requested feature is in another distribution of this project."""


def find_command(name: str, own: Mapping[str, Command]) -> Command:
    """Return a command of this package, or one that another package adds.

    Raises:
        ConfigError: No such command exists, or its package isn't installed or can't be loaded.
    """
    if name in own:
        return own[name]
    others = _entries(_COMMANDS)
    if name in others:
        return _load_command(others[name])
    if name in _PARTS:
        raise _not_installed(f"{name} is a command", _PARTS[name])
    from ..model.similar import did_you_mean

    known = [*own, *sorted(others.keys() - own.keys())]
    hint = did_you_mean(name, known) or f"commands: {', '.join(known)}"
    raise ConfigError(f"unknown command {name!r}", hint=hint)


def all_commands(own: Mapping[str, Command]) -> Mapping[str, Command]:
    """Return all commands by name: this package's, then other packages' loadable commands."""
    commands = dict(own)
    for name, entry in sorted(_entries(_COMMANDS).items()):
        if name not in own:
            with contextlib.suppress(ConfigError):
                commands[name] = _load_command(entry)
    return commands


def find_for_all_nodes(command: str) -> Callable[..., Any]:
    """Return the function that runs a command of this package for all nodes.

    Raises:
        NotInstalled: The distribution with these functions isn't installed.
        ConfigError: The function can't be loaded.
    """
    entry = _entries(_FOR_ALL_NODES).get(command)
    if entry is None:
        raise _not_installed(f"{command} of all nodes is a part", _CLIENT)
    function: Callable[..., Any] = _load(entry)
    return function


def _not_installed(what: str, distribution: str) -> NotInstalled:
    return NotInstalled(
        f"{what} of {distribution}, which isn't installed",
        hint=f"in a checkout: pip install . ./{distribution}",
    )


def _entries(group: str) -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def _load_command(entry: EntryPoint) -> Command:
    command = _load(entry)
    if not isinstance(command, Command):
        raise _unusable(entry, f"{entry.value} is no Command")
    return command


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as exc:
        raise _unusable(entry, f"{type(exc).__name__}: {exc}") from exc


def _unusable(entry: EntryPoint, why: str) -> ConfigError:
    package = entry.dist.name if entry.dist is not None else entry.module
    return ConfigError(
        f"cannot load the command {entry.name} of {package}: {why}",
        hint="install that package again, or remove it",
    )
