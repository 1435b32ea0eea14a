"""Whom a command asks: one proxy, or the agents of all nodes of a cluster.

    --server, --config ──────────────────▶ one proxy, at the address of its status page
    plugin of kubectl, or a kubeconfig ──▶ all nodes: each agent, through the API server

Rule 1: only what a user has written decides, never what answers.
Rule 2: little is imported here: each command reads these flags.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .command import CommandFlag, Given
from .kubeconfig import FLAGS as KUBECONFIG_FLAGS
from .kubeconfig import find, means_cluster

if TYPE_CHECKING:
    from ..config import Settings
    from ..nodes.reader import NodesReader

NODE_FLAGS = (
    CommandFlag("node", "only these nodes, separated by commas", "NAME,..."),
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
"""Which nodes are asked, and for how long."""
KUBECONFIG = CommandFlag(
    "kubeconfig", "the cluster whose nodes are asked; as a plugin of kubectl, its own", "PATH"
)
CLUSTER_FLAGS = (KUBECONFIG, *KUBECONFIG_FLAGS, *NODE_FLAGS)
"""For commands that don't take the flags of ``run``."""

_NAMESPACE = "kube-system"
_OF_ONE = ("server", "config")
# As for kubectl, the account of a pod is used there.
_IN_POD = "KUBERNETES_SERVICE_HOST"


def settings_of(given: Given) -> Settings:
    """Return the settings among the words of a command, a kubeconfig at most.

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
    """Return whether all nodes are meant, and not one proxy.

    Raises:
        ConfigError: One proxy is named, and nodes are, too.
    """
    nodes = next((flag.name for flag in NODE_FLAGS if flag.name in given.values), "")
    one = next((name for name in _OF_ONE if name in given.values), "")
    if nodes and one:
        raise ConfigError(
            f"--{nodes} and --{one} exclude each other", hint=f"--{one} asks one proxy"
        )
    return not one and (bool(nodes) or means_cluster(given, settings))


def asks_all_nodes(given: Given) -> bool:
    """Return whether a command that takes no flags of ``run`` asks all nodes.

    Raises:
        ConfigError: As :func:`means_all_nodes`.
    """
    return means_all_nodes(given, settings_of(given))


def open_reader(given: Given, settings: Settings) -> NodesReader:
    """Return the reader of all nodes that the flags select, which its ``async with`` opens.

    Raises:
        ConfigError: A flag's value isn't valid, or there is no kubeconfig.
        SourceError: The kubeconfig can't be read.
    """
    from ..linux import raise_descriptor_limit
    from ..nodes.find import Where
    from ..nodes.reader import NodesReader
    from ..sources.kubernetes.client import ApiClient
    from ..sources.kubernetes.credentials import Credentials

    timeout_s = _timeout_s(given)
    where = Where(
        namespace=given.values.get("release-namespace") or _NAMESPACE,
        selector=given.values.get("selector", ""),
        nodes=frozenset(filter(None, given.values.get("node", "").split(","))),
        name=settings.service_proxy_name,
    )
    kubeconfig = find(given, settings)
    if kubeconfig is None and not settings.master and not os.environ.get(_IN_POD):
        raise ConfigError(
            "cannot ask all nodes: there is no kubeconfig",
            hint="give --kubeconfig=FILE, or for one proxy --server=ADDRESS",
        )
    credentials = Credentials(kubeconfig=kubeconfig or "", master=settings.master)
    # Each node that is followed has a connection of its own.
    raise_descriptor_limit()
    return NodesReader(ApiClient(credentials), where, timeout_s=timeout_s)


def _timeout_s(given: Given) -> float | None:
    from ..config.flags import parsed
    from ..model.durations import parse_duration

    text = given.values.get("timeout")
    seconds = parsed("timeout", text, parse_duration) if text else None
    if seconds == 0:
        raise ConfigError("--timeout: without any time nothing is answered", hint="write 4s")
    return seconds
