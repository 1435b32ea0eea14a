"""Runs the command ``complete``, which prints the names that a shell offers at the cursor.

    words of the command line ──▶ the proxy or cluster that they name ──▶ names, one per line

Rule 1: if an error occurs, nothing is printed, because a message would garble the command line.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserspaceProxyError
from ..model.quoting import shell_word
from .command import DONE, Command, Given
from .kubeconfig import find, means_cluster
from .service_argument import KINDS, NoSuchService, ServiceArguments

if TYPE_CHECKING:
    from ..config import Settings

# A placeholder for the incomplete word.
_UNFINISHED = "unfinished"
# The timeout for a request in seconds, which is short because the user's shell waits for it.
_SERVER_S = 3.0
# The search qualifiers that are offered only together with a value.
_WITH_VALUES = ("is", "cause", "ns", "service")
_JSON = "application/json"


def complete(given: Given, own: Mapping[str, Command]) -> int:
    """Print the names for the last word, which may be empty; return the exit status.

    Args:
        own: This package's commands, by name.
    """
    with contextlib.suppress(UserspaceProxyError):
        for name in sorted(set(_names(given.arguments[0], given.rest, own))):
            # Omit words with special characters, because bash would expand them.
            if shell_word(name) == name:
                print(name)
    return DONE


@dataclass(frozen=True, slots=True)
class _Typed:
    """The command line as typed so far."""

    command: Command
    given: Given
    """The parsed words, without the word to complete."""
    word: str


def _names(kind: str, words: Sequence[str], own: Mapping[str, Command]) -> Iterator[str]:
    from .plugin_commands import find_command

    if len(words) < 2:
        return
    command = find_command(words[0], own)
    # Without a placeholder, a required argument or a flag's value would be missing.
    line = _Typed(command, command.read_words([*words[1:-1], _UNFINISHED]), words[-1])
    match kind:
        case "search":
            yield from _search_words(line)
        case "namespaces":
            yield from (namespace for namespace, _ in _services(line, ""))
        case _:
            yield from _service_names(line, with_namespaces=kind == "names")


def _service_names(line: _Typed, *, with_namespaces: bool) -> Iterator[str]:
    arguments = ServiceArguments(line.given, _settings(line), reads_cluster=_reads_cluster(line))
    in_use = arguments.namespace
    is_all = line.given.is_on("all-namespaces")
    kind, slash, _ = line.word.partition("/")
    for namespace, name in _services(line, in_use if "namespace" in line.given.values else ""):
        yield f"{namespace}/{name}"
        if with_namespaces:
            yield namespace
        if namespace == (in_use or "default") and not is_all:
            yield f"{kind}/{name}" if slash and kind in KINDS else name


def _search_words(line: _Typed) -> Iterator[str]:
    from ..causes.cause import CauseCode
    from ..status.search import QUALIFIERS, STATES

    yield from (f"{name}:" for name in QUALIFIERS if name not in _WITH_VALUES)
    # Omit states with a blank, which a search word can't contain.
    yield from (f"is:{state}" for state in STATES if state and " " not in state)
    yield from (f"cause:{code}" for code in CauseCode)
    with contextlib.suppress(UserspaceProxyError):
        for namespace, name in _services(line, ""):
            yield f"ns:{namespace}"
            yield f"service:{namespace}/{name}"


def _services(line: _Typed, namespace: str) -> Iterator[Sequence[str]]:
    """Yield the namespace and name of each Service in one namespace or in all."""
    from .admin import find_admin

    if _reads_cluster(line):
        yield from _of_cluster(line, namespace)
        return
    admin = find_admin(line.given)
    with contextlib.suppress(NoSuchService):
        state = json.loads(admin.get("/api/v1/status", accept=_JSON, service=namespace).body)
        for port in state["ports"]:
            yield port["namespace"], port["service"]
        for item in state["ignored"]:
            yield item["service"].split("/", 1)


def _of_cluster(line: _Typed, namespace: str) -> Iterator[Sequence[str]]:
    from dataclasses import replace

    from ..sources.kubernetes.one_service import read_service_names
    from .running import run

    settings = _settings(line)
    kubeconfig = find(line.given, settings)
    if kubeconfig is not None:
        # Otherwise a credential plugin would prompt for a password on the command line.
        kubeconfig = replace(kubeconfig, is_attended=False)
    reading = read_service_names(
        kubeconfig or "", settings.master, namespace=namespace, within_s=_SERVER_S
    )
    yield from run(reading)


def _settings(line: _Typed) -> Settings:
    from ..config.load import load_settings

    return load_settings(line.given.settings).settings


def _reads_cluster(line: _Typed) -> bool:
    """Return whether the command reads its Services from a cluster, not from a proxy."""
    if line.command.name != "explain":
        return line.command.reads_cluster
    return "server" not in line.given.values and means_cluster(line.given, _settings(line))
