"""Checks whether an API server permits what ``--allow-wake`` takes beside scaling.

The permission to scale is granted by namespace: what is missing there is shown with a Service.
"""

from __future__ import annotations

import asyncio

from ..config import Settings
from ..errors import UserspaceProxyError
from .api_server import ANSWER_S
from .finding import Finding, error, ok, reason


def look_at_wake(settings: Settings, node_name: str) -> list[Finding]:
    """Read the Leases by which nodes agree that a workload has no clients; nothing is written."""
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
