"""Chooses the command to suggest next, given the cause why clients aren't served.

    --pods │ kubectl, by the cause's row or its code's Traits │ --probe │ a command on the node

Rule 1: the command shows more than the explanation: never the same explanation or a summary. If
there is no such command, none is suggested.
Rule 2: the command can be pasted: it starts with the words that started this program, names the
same object, and asks the same cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..causes.cause import Cause, CauseCode
from ..causes.say import kubectl_words, object_of, on_node
from ..diagnosis.incidents import pod_at
from ..model import ip_of
from ..model.quoting import shell_command, shell_word

if TYPE_CHECKING:
    from .explanation import Subject

UNREPLIED = "conntrack -L marks UDP flows without an answer as [UNREPLIED]"
# The flags that name the source and that kubectl supports, each with kubectl's name for it.
_KUBECTL_FLAGS = {
    "--kubeconfig": "--kubeconfig",
    "--context": "--context",
    "--cluster": "--cluster",
    "--user": "--user",
    "--master": "--server",
}


@dataclass(frozen=True, slots=True)
class Invocation:
    """The user's command line, which the next command repeats with more flags."""

    program: tuple[str, ...] = ("userspace-proxy",)
    """The words that start this program."""
    source: tuple[str, ...] = ()
    """The flags that name the source of the facts."""
    others: tuple[str, ...] = ()
    """Flags that change what is explained, such as ``--from``."""
    has_dialled: bool = False
    """Whether endpoints were dialled."""
    is_elsewhere: bool = False
    """Whether the proxy is in another network than this program."""
    can_dial: bool = True
    """Whether this program can dial from the proxy's network."""
    has_pods: bool = False
    """Whether the pods were examined."""

    @property
    def is_api(self) -> bool:
        return any(_name(flag) in _KUBECTL_FLAGS for flag in self.source)

    def again(self, service: str, *more: str, source: Sequence[str] | None = None) -> str:
        """Return the command that explains a Service with further flags.

        Args:
            source: The flags that select the cluster or proxy; None for this invocation's flags.
        """
        flags = self.source if source is None else source
        return shell_command(*self.program, "explain", service, *flags, *self.others, *more)

    def kubectl(self, words: str) -> str:
        """Return a kubectl command of quoted words, for the same cluster."""
        pairs = (flag.partition("=") for flag in self.source if _name(flag) in _KUBECTL_FLAGS)
        flags = [f"{_KUBECTL_FLAGS[name]}={value}" for name, _, value in pairs]
        return f"kubectl {words} {shell_command(*flags)}".rstrip()


def next_command(
    cause: Cause | None, subject: Subject, invocation: Invocation, *, pod: str = ""
) -> str:
    """Return the command that shows more about a Service; empty if none does.

    Args:
        cause: The cause to investigate; None without a problem.
        pod: The name of the pod that causes the problem; empty if unknown.
    """
    if cause is not None and invocation.is_api:
        if cause.is_of_pods and not invocation.has_pods:
            return invocation.again(subject.service, "--pods")
        if cause.code == CauseCode.NOT_LOCAL and (node := _node_with_endpoint(subject)):
            names = [_name(flag) for flag in invocation.source]
            of_node = "--node" if "--node" in names else "--hostname-override"
            flags = [
                f for f in invocation.source if _name(f) not in ("--hostname-override", of_node)
            ]
            flags.append(f"{of_node}={node}")
            return invocation.again(subject.service, source=flags)
    can_dial = (
        any(port.protocol == "TCP" and port.endpoints for port in subject.ports)
        and not invocation.has_dialled
        and invocation.can_dial
    )
    has_kubectl = invocation.is_api or (
        subject.node is not None and subject.node.source.kind == "kubernetes"
    )
    if cause is None:
        return (
            invocation.again(subject.service, "--probe")
            if can_dial
            else _flows(subject, invocation)
        )
    pod = pod or pod_at(subject.ports, (object_of(cause),))
    if has_kubectl and (words := kubectl_words(cause, subject.service, pod)):
        return invocation.kubectl(words)
    if cause.code.traits.is_of_endpoint and can_dial:
        return invocation.again(subject.service, "--probe")
    words, node = on_node(cause), subject.node.node if subject.node is not None else ""
    if not invocation.is_elsewhere:
        return words
    return f"{words}  # on {shell_word(node)}" if words and node else ""


def _node_with_endpoint(subject: Subject) -> str:
    endpoints = (endpoint for port in subject.ports for endpoint in port.endpoints)
    return next((endpoint.node for endpoint in endpoints if endpoint.node), "")


def _flows(subject: Subject, invocation: Invocation) -> str:
    """Return the command that lists UDP flows that only this machine's kernel sees; or empty."""
    for port in () if invocation.is_elsewhere else subject.ports:
        if port.is_unseen and port.protocol == "UDP" and port.frontends:
            address = shell_word(ip_of(port.frontends[0].address))
            return f"conntrack -L -f {port.family.lower()} -p udp --orig-dst {address}"
    return ""


def _name(flag: str) -> str:
    return flag.partition("=")[0]
