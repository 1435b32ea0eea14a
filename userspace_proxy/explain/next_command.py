"""Chooses the command to run next, from the cause that keeps clients from being served."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model import Cause, CauseCode

if TYPE_CHECKING:
    from .reading import Subject

PROGRAM = "userspace-proxy"

_SLICES = "kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={name} -o yaml"
_POD = "kubectl get pods -A -o wide --field-selector status.podIP={ip}"
_COMMANDS: dict[str, str] = {
    CauseCode.NO_SLICE: _SLICES,
    CauseCode.SLICE_EMPTY: "kubectl get pods -n {namespace} --show-labels",
    CauseCode.SLICE_ELSEWHERE: "kubectl get endpointslices -A -l kubernetes.io/service-name={name}",
    CauseCode.SLICE_ORPHANED: "kubectl get endpointslices -n {namespace} --show-labels",
    CauseCode.PORT_NAME_MISSING: _SLICES,
    CauseCode.NOT_READY: "kubectl describe pods -n {namespace}",
    CauseCode.NOT_LOCAL: "kubectl get pods -n {namespace} -o wide",
    CauseCode.NOT_FOR_THIS_NODE: _SLICES,
    CauseCode.ENDPOINT_REFUSES: _POD,
    CauseCode.ENDPOINT_SILENT: _POD,
    CauseCode.ENDPOINT_UNREACHABLE: _POD,
    CauseCode.ENDPOINT_NO_HOST: _POD,
    CauseCode.ENDPOINT_RESETS: _POD,
    CauseCode.ENDPOINT_SENDS_NOTHING: _POD,
    CauseCode.ENDPOINT_FAILS: _POD,
    CauseCode.ADDRESS_TAKEN: "kubectl get services -A -o wide",
    CauseCode.NOT_LISTENING: "ss -Hlntup",
}
# With the pods themselves these are explained.
_ABOUT_PODS = frozenset(
    {
        CauseCode.NO_SLICE,
        CauseCode.SLICE_EMPTY,
        CauseCode.PORT_NAME_MISSING,
        CauseCode.NOT_READY,
    }
)


def next_command(
    cause: Cause | None,
    subject: Subject,
    *,
    asked: Sequence[str] = (),
    has_dialled: bool = False,
    has_pods: bool = False,
) -> str:
    """Return the command that shows more about a Service.

    Args:
        cause: The cause that the command should be about; None without a problem.
        asked: The flags that named the source of the facts.
        has_dialled: Endpoints were dialled, or can't be from here.
        has_pods: The pods were looked at.
    """
    again = shlex.join([PROGRAM, "explain", subject.service, *asked])
    is_api = any(flag.startswith(("--kubeconfig", "--master")) for flag in asked)
    if cause is not None and is_api and not has_pods and cause.code in _ABOUT_PODS:
        return f"{again} --pods"
    if cause is not None and is_api and cause.code == CauseCode.NOT_LOCAL:
        nodes = [e.node for port in subject.ports for e in port.endpoints if e.node]
        node = nodes[0] if nodes else "NODE"
        others = [flag for flag in asked if not flag.startswith("--hostname-override")]
        flags = [*others, f"--hostname-override={node}"]
        return shlex.join([PROGRAM, "explain", subject.service, *flags])
    has_kubectl = is_api or (subject.node is not None and subject.node.source.kind == "kubernetes")
    if cause is not None and has_kubectl and (command := _COMMANDS.get(cause.code, "")):
        namespace, _, name = subject.service.partition("/")
        ip = cause.object.rpartition(":")[0].strip("[]")
        return command.format(namespace=namespace, name=name, ip=ip)
    if not has_dialled and (cause is None or cause.code.startswith("endpoint-")):
        return f"{again} --probe"
    if subject.node is None:
        return shlex.join([PROGRAM, "check", *asked])
    return shlex.join([PROGRAM, "status", subject.service, *asked])
