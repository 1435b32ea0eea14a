"""Creates the reader of all nodes from a command's flags.

flags, kubeconfig ──▶ API client, which agents ──▶ NodesReader
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from userspace_proxy.cli.kubeconfig import find
from userspace_proxy.errors import ConfigError

if TYPE_CHECKING:
    from userspace_proxy.cli.command import Given
    from userspace_proxy.config import Settings

    from ..nodes.reader import NodesReader

_NAMESPACE = "kube-system"
# In a pod, its service account is used, as kubectl does.
_IN_POD = "KUBERNETES_SERVICE_HOST"


def open_reader(given: Given, settings: Settings) -> NodesReader:
    """Return the reader that the flags select; its ``async with`` opens it.

    Raises:
        ConfigError: A flag's value isn't valid, or there is no kubeconfig.
        SourceError: The kubeconfig can't be read.
    """
    from userspace_proxy.linux import raise_descriptor_limit
    from userspace_proxy.sources.kubernetes.client import ApiClient
    from userspace_proxy.sources.kubernetes.credentials import Credentials

    from ..nodes.discovery import Where
    from ..nodes.reader import NodesReader

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
    # Each followed node has its own connection.
    raise_descriptor_limit()
    return NodesReader(ApiClient(credentials), where, timeout_s=timeout_s)


def _timeout_s(given: Given) -> float | None:
    from userspace_proxy.config.flags import parsed
    from userspace_proxy.model.durations import parse_duration

    text = given.values.get("timeout")
    seconds = parsed("timeout", text, parse_duration) if text else None
    if seconds == 0:
        raise ConfigError("--timeout: without any time nothing is answered", hint="write 4s")
    return seconds
