"""Finds the kubeconfig for an interactive command, from kubectl's flags and environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .command import CommandFlag, Given
from .program_start import is_plugin

if TYPE_CHECKING:
    from ..config import Settings
    from ..sources.kubernetes.kubeconfig_files import Kubeconfig

CHOICES = ("context", "cluster", "user")
FLAGS = tuple(
    CommandFlag(name, f"{name} of the kubeconfig, instead of {instead}", "NAME")
    for name, instead in zip(
        CHOICES, ("current-context", "the context's", "the context's"), strict=True
    )
)


def given_choices(given: Given) -> dict[str, str]:
    """Return the values of the CHOICES flags that were given and aren't empty, by flag name."""
    return {name: given.values[name] for name in CHOICES if given.values.get(name)}


def means_cluster(given: Given, settings: Settings) -> bool:
    """Return whether the command line names a cluster, or the program is a plugin of kubectl."""
    flags = {name for name in ("kubeconfig", "master") if settings.origins.get(name) == "flag"}
    return bool(flags or given_choices(given)) or is_plugin(sys.argv)


def flags_of(kubeconfig: Kubeconfig) -> dict[str, str]:
    """Return the flags that select the same kubeconfig again, by name, also valid for kubectl.

    No flag accepts several files, which the next command reads from the environment as well.
    """
    from ..sources.kubernetes.kubeconfig_files import read_kubeconfig

    flags = {name: getattr(kubeconfig, name) for name in CHOICES if getattr(kubeconfig, name)}
    if len(kubeconfig.paths) == 1:
        return {"kubeconfig": kubeconfig.paths[0], **flags}
    return {"context": read_kubeconfig(kubeconfig).context, **flags}


def context_namespace(given: Given, settings: Settings) -> str:
    """Return the context's namespace, or else ``default``; empty without a kubeconfig.

    Raises:
        ConfigError: See :func:`find`.
        SourceError: The kubeconfig can't be read or used.
    """
    from ..sources.kubernetes.kubeconfig_files import read_kubeconfig

    kubeconfig = find(given, settings)
    if kubeconfig is None:
        return ""
    return read_kubeconfig(kubeconfig, server=settings.master).namespace or "default"


def _check_missing(choices: Mapping[str, str], *, has_server: bool) -> None:
    """Raise a ConfigError if a kubeconfig is required but missing."""
    listed = os.environ.get("KUBECONFIG", "").strip(os.pathsep)
    problem = next((f"--{name}: there is no kubeconfig" for name in choices), "")
    # In a pod, no kubeconfig is required: as in kubectl, the pod's own API server is used.
    if listed and not has_server and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        problem = f"KUBECONFIG={listed}: no such file"
    if problem:
        raise ConfigError(problem, hint="give --kubeconfig=FILE")


def find(given: Given, settings: Settings) -> Kubeconfig | None:
    """Return the kubeconfig of ``--kubeconfig``, or kubectl's; None if there is neither.

    kubectl's kubeconfig isn't read if a server is given and no flag chooses a context, cluster or
    user.

    Raises:
        ConfigError: There is no kubeconfig, although flags choose a context, cluster or user; or
            although KUBECONFIG names files, no server is given, and this isn't a pod.
    """
    from ..sources.kubernetes.kubeconfig_files import find_kubeconfig, one_file

    choices = given_choices(given)
    found = one_file(settings.kubeconfig)
    if found is None and (choices or not settings.master):
        found = find_kubeconfig()
    if found is None:
        _check_missing(choices, has_server=bool(settings.master))
        return None
    context, cluster, user = (choices.get(name, "") for name in CHOICES)
    return replace(found, is_attended=True, context=context, cluster=cluster, user=user)
