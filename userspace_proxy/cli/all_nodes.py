"""Decides whether a command queries one proxy, or the agents of all nodes of a cluster.

    --server, --config ──────────────────▶ one proxy, at its status address
    plugin of kubectl, or a kubeconfig ──▶ all nodes: the result of ``find_for_all_nodes``

Rule 1: only the command line and kubeconfig decide, never the program that answers.
Rule 2: this module imports little, because every command uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from .command import CommandFlag, Given
from .kubeconfig import FLAGS as KUBECONFIG_FLAGS
from .kubeconfig import means_cluster

if TYPE_CHECKING:
    from ..config import Settings

_NODE = "node"
NODE_FLAGS = (
    CommandFlag(_NODE, "only these nodes, separated by commas", "NAME,..."),
    CommandFlag(
        "selector",
        "labels of the agents' pods, instead of those of the chart and of a kube-proxy that was "
        "replaced",
        "LABELS",
    ),
    CommandFlag("release-namespace", "the namespace of the agents' pods (kube-system)", "NAME"),
    CommandFlag(
        "timeout",
        "how long to wait for the first answers (4s, in clusters of over 200 nodes longer)",
        "DURATION",
    ),
)
"""Flags that select the nodes to query, and the time limit."""
KUBECONFIG = CommandFlag(
    "kubeconfig", "the cluster whose nodes are asked; as a plugin of kubectl, its own", "PATH"
)
CLUSTER_FLAGS = (KUBECONFIG, *KUBECONFIG_FLAGS, *NODE_FLAGS)
"""Flags for commands that don't accept the flags of ``run``."""

_OF_ONE = ("server", "config")


def settings_of(given: Given) -> Settings:
    """Return the settings among a command's arguments, including ``--kubeconfig``.

    Raises:
        ConfigError: A setting's value isn't valid.
    """
    words = [*given.settings]
    if path := given.values.get(KUBECONFIG.name):
        words.append(f"--{KUBECONFIG.name}={path}")
    if not words:
        from ..config.settings import Settings

        return Settings()
    from ..config.load import load_settings

    return load_settings(words).settings


def means_all_nodes(given: Given, settings: Settings) -> bool:
    """Return whether the command queries all nodes instead of one proxy.

    Raises:
        ConfigError: The flags name both one proxy and nodes.
    """
    nodes = next((flag.name for flag in NODE_FLAGS if flag.name in given.values), "")
    one = next((name for name in _OF_ONE if name in given.values), "")
    if nodes and one:
        raise ConfigError(
            f"--{nodes} and --{one} exclude each other", hint=f"--{one} asks one proxy"
        )
    return not one and (bool(nodes) or means_cluster(given, settings))


def asks_all_nodes(given: Given) -> bool:
    """Return whether a command that doesn't accept ``run``'s flags queries all nodes.

    Raises:
        ConfigError: See :func:`means_all_nodes`.
    """
    return means_all_nodes(given, settings_of(given))


def node_flags(given: Given, *, of_nodes: bool) -> tuple[str, ...]:
    """Return the given flags that choose the agents to query, and the time limit.

    Args:
        of_nodes: Whether to include ``--node``.
    """
    names = [flag.name for flag in NODE_FLAGS if of_nodes or flag.name != _NODE]
    return tuple(f"--{name}={given.values[name]}" for name in names if name in given.values)
