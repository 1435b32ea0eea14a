"""Checks whether the API server answers, and permits the requests of ``run``.

Permission to scale is granted per namespace, so a Service's status reports if it is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..causes.nodes import listed
from ..causes.say import remedy, say
from ..config import Settings
from ..errors import UserspaceProxyError
from ..model import Node
from ..policy.node_facts import no_node_reason
from .finding import Finding, error, ok, reason, warning
from .inputs import Inputs

ANSWER_S = 5.0
"""The timeout for all requests together; a healthy API server answers in about 10 ms."""


def look_at_server(settings: Settings, node_name: str) -> tuple[list[Finding], Inputs]:
    """Request one object of each kind from the API server; return findings, and a Service's IPs."""
    from ..sources.kubernetes.permissions import ask_server

    said = asyncio.run(
        ask_server(
            kubeconfig=settings.kubeconfig,
            master=settings.master,
            node_name=node_name,
            within_s=ANSWER_S,
            endpoints_from_pods=settings.endpoints_from_pods,
        )
    )
    with_pods, node = settings.endpoints_from_pods, said.node
    findings = judge_server(said.url, said.problems, said.version, with_pods=with_pods, node=node)
    return findings, Inputs(service_ips=said.service_ips)


def judge_server(
    url: str,
    problems: Sequence[str],
    version: str,
    *,
    with_pods: bool = False,
    node: Node | None = None,
) -> list[Finding]:
    """Report whether all objects may be read, and whether this node's Node exists."""
    if problems:
        return [error("API server", line) for line in problems]
    known = f" (Kubernetes {version})" if version else ""
    no_node, pods = no_node_reason(node), ["Pods"] if with_pods else []
    kinds = listed(["Services", "EndpointSlices", *pods, *([] if no_node else ["this Node"])], 3)
    found = [ok("API server", f"{kinds} can be read{known}", url)]
    if no_node:
        found.append(warning("API server", say(no_node), url, remedy(no_node)))
    return found


def look_at_wake(settings: Settings, node_name: str) -> list[Finding]:
    """With ``--allow-wake``, report whether nodes' Leases about scaling can be read."""
    if not settings.allow_wake or settings.manifests:
        return []
    try:
        leases = asyncio.run(_count_leases(settings, node_name))
    except UserspaceProxyError as exc:
        return [error("wake", reason(exc))]
    except TimeoutError:
        return [error("wake", f"the API server did not answer within {ANSWER_S:g} s")]
    return [ok("wake", "Leases of the namespace userspace-proxy can be read", f"{leases} now")]


async def _count_leases(settings: Settings, node_name: str) -> int:
    from ..sources.kubernetes.client import ApiClient
    from ..sources.kubernetes.credentials import Credentials
    from ..sources.kubernetes.leases import KubernetesLeases

    client = ApiClient(Credentials(kubeconfig=settings.kubeconfig, master=settings.master))
    try:
        await client.open()
        async with asyncio.timeout(ANSWER_S):
            prefix = settings.service_proxy_name
            leases = KubernetesLeases(client, node_name, prefix, is_open=lambda: True)
            return len(await leases.read_all())
    finally:
        await client.close()
