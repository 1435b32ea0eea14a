"""Resolves Services in a command's arguments, which may have the forms that kubectl accepts.

    web · shop/web · svc/web · shop · -n shop · -A · --context=prod ──▶ names, the likeliest first
    web.shop · web.shop.svc.cluster.local · http://web.shop:8080/x  ──▶ the Service of that name

Rule 1: kubectl's meaning of a word comes first, then its meaning as a name: ``svc/web`` is Service
web in the current namespace, or in a namespace called svc; ``shop`` is a Service in the current
namespace, or a namespace.
Rule 2: a kubeconfig is read only if a word, or its absence, requires a namespace.
Rule 3: a Service's name has no dot, so a word with a dot is a DNS name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from ..errors import ConfigError, UserspaceProxyError
from ..model.addresses import parse_ip
from ..model.quoting import shell_command
from .command import CommandFlag, Given
from .kubeconfig import CHOICES, context_namespace, means_cluster
from .program_start import ProgramStart

if TYPE_CHECKING:
    from ..config import Settings

_Answer = TypeVar("_Answer")

FLAGS = (
    CommandFlag(
        "namespace",
        "the namespace to look in (as a plugin of kubectl, and where a kubeconfig is read, that of "
        "the context)",
        "NAME",
        short="n",
        completes="namespaces",
    ),
    CommandFlag("all-namespaces", "Services of all namespaces", short="A"),
)
# The names of the kind Service that kubectl accepts.
KINDS = ("svc", "service", "services")
_OTHER_KINDS = frozenset((
    "deploy", "deployment", "deployments", "po", "pod", "pods", "sts", "statefulset",
    "statefulsets", "ds", "daemonset", "daemonsets", "rs", "replicaset", "replicasets", "job",
    "jobs", "cronjob", "cronjobs", "ing", "ingress", "ingresses", "ep", "endpoints"
))  # fmt: skip
_DEFAULT = "default"


class NoSuchService(UserspaceProxyError):
    """No Service or namespace has this name."""


class ServiceArguments:
    """The Services and namespaces that the arguments of one command may name.

    Args:
        given: The command's parsed arguments.
        settings: The command's settings, which may name a kubeconfig.
        reads_cluster: Whether the command always reads a cluster.
    """

    def __init__(
        self, given: Given, settings: Settings | None = None, *, reads_cluster: bool = False
    ) -> None:
        from ..config import Settings

        self._given = given
        self._settings = settings or Settings()
        self._reads_cluster = reads_cluster

    @cached_property
    def namespace(self) -> str:
        """The current namespace; empty if none or all are selected.

        Raises:
            ConfigError: The namespace is invalid, or the flags name a missing kubeconfig.
            SourceError: The kubeconfig can't be read.
        """
        if self._given.is_on("all-namespaces"):
            return ""
        if name := self._given.values.get("namespace"):
            if "/" in name or ":" in name:
                raise ConfigError(f"--namespace: {name!r} is not the name of a namespace")
            return name
        if self._reads_cluster or means_cluster(self._given, self._settings):
            return context_namespace(self._given, self._settings)
        return ""

    def selected(self) -> Sequence[str]:
        """Return the possible names for a command that accepts a Service, a namespace, or nothing.

        An empty name means everything. Raises the same errors as :meth:`names`.
        """
        words = self._given.arguments
        return self.names(words[0], may_be_namespace=True) if words else (self.namespace,)

    def names(self, word: str, *, may_be_namespace: bool = False) -> Sequence[str]:
        """Return what a word may mean, likeliest first: ``namespace/name[:port]``, or a namespace.

        Raises:
            ConfigError: The word can't name a Service, or its namespace can't be determined.
            SourceError: The kubeconfig can't be read.
        """
        word = self._read_written(word)
        name, colon, _ = word.partition(":")
        parts = name.split("/")
        if not all(parts) or len(parts) > 2 or word.endswith(":"):
            raise _no_service(word)
        # A namespace's name has no dot, but the name of a kind may: ``deployment.apps``.
        if len(parts) == 2 and (parts[0] in _OTHER_KINDS or "." in parts[0]):
            instead = f"write one that leads to it; {parts[1]} is the Service of that name"
            raise _no_service(word, instead)
        if len(parts) == 2:
            return (*self.names(word.partition("/")[2]), word) if parts[0] in KINDS else (word,)
        likeliest = self._inside(word)
        return (likeliest, word) if may_be_namespace and not colon else (likeliest,)

    def _inside(self, name: str) -> str:
        if self._given.is_on("all-namespaces"):
            raise ConfigError(
                f"{name!r} with --all-namespaces: its namespace is not given",
                hint=f"write NAMESPACE/{name}",
            )
        return f"{self.namespace or _DEFAULT}/{name}"

    def _read_written(self, word: str) -> str:
        """Convert a Service's DNS name or URL to ``namespace/name[:port]``; keep other words.

        Raises:
            ConfigError: The word is an address, or another DNS name.
        """
        if "://" in word:
            word = word.partition("://")[2].partition("/")[0].rpartition("@")[2]
        host, colon, port = word.partition(":") if word.count(":") == 1 else (word, "", "")
        ip = word[1:].partition("]")[0] if word.startswith("[") else host
        with contextlib.suppress(ValueError):
            address = parse_ip(ip, strict=False)
            raise ConfigError(
                f"{word!r} is an address",
                hint=f"`{self._search_for(str(address))}` shows the Service that has it",
            )
        labels = host.rstrip(".").split(".")
        if "/" in host or len(labels) < 2:
            return word
        if "svc" in labels[2:]:
            # Use only the last two labels, because a pod's name may precede the Service's name.
            del labels[labels.index("svc", 2) :]
        elif len(labels) > 2:
            raise _no_service(word)
        *_, name, namespace = labels
        return f"{namespace}/{name}{colon}{port}"

    def _search_for(self, address: str) -> str:
        """Return the command to search the same proxy or cluster for an address."""
        given = dict(word.removeprefix("--").split("=", 1) for word in self._given.settings)
        given |= self._given.values
        names = ("server", "config", "kubeconfig", *CHOICES)
        source = [f"--{name}={given[name]}" for name in names if given.get(name)]
        return shell_command(*ProgramStart().program, "status", f"--search={address}", *source)


def _no_service(word: str, instead: str = "write NAMESPACE/NAME") -> ConfigError:
    return ConfigError(f"{word!r} is not a Service", hint=instead)


def first_found(names: Sequence[str], ask: Callable[[str], _Answer]) -> tuple[str, _Answer]:
    """Return the first name that exists, and the answer about it.

    Raises:
        NoSuchService: None of the names exists; the error is about the first name.
    """
    missing = []
    for name in names:
        try:
            return name, ask(name)
        except NoSuchService as exc:
            missing.append(exc)
    raise missing[0]
