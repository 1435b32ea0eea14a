"""Checks once whether an API server responds and permits what a source reads.

Rule 1: one object of each resource is requested, so that it costs the server little.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from ...cluster import Store
from ...cluster.from_pods import PodEndpoints
from ...errors import SourceError
from ...model.wire import FieldError, WirePage, decode
from .client import ApiClient
from .credentials import Credentials
from .one_service import asked_once, list_refused
from .resources import SERVICES, ResourceCache, resources_of, this_node


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The result of a check."""

    url: str
    problems: tuple[str, ...] = ()
    """One line each, with a remedy."""
    version: str = ""
    service_ips: tuple[str, ...] = ()
    """The addresses of one Service; empty if there is none."""


async def ask_server(
    *,
    kubeconfig: str,
    master: str,
    node_name: str,
    within_s: float,
    endpoints_from_pods: bool = False,
) -> ServerReport:
    """Request one object of each kind that the source reads, within ``within_s`` seconds.

    The other arguments are those of KubernetesSource.
    """
    client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
    try:
        async with asked_once(client, within_s):
            return await _ask(client, node_name, endpoints_from_pods)
    except SourceError as exc:
        return ServerReport(client.url, (str(exc),))


async def _ask(client: ApiClient, node_name: str, endpoints_from_pods: bool) -> ServerReport:
    problems = []
    pods = PodEndpoints(Store(), with_headless=False) if endpoints_from_pods else None
    resources = resources_of(with_headless=False, pods=pods)
    service_ips: tuple[str, ...] = ()
    for resource in (*resources, *([this_node(node_name)] if node_name else [])):
        response = await client.get(resource.path, {**resource.query, "limit": "1"})
        if response.code != 200:
            problems.append(list_refused(client, resource.name, response))
        elif resource.name == SERVICES.name:
            service_ips = _service_ips(response.body)
    version = await client.get("/version", {})
    # Wrong credentials are one problem, whatever is asked for.
    return ServerReport(
        client.url, tuple(dict.fromkeys(problems)), _version(version.body), service_ips
    )


def _service_ips(body: bytes) -> tuple[str, ...]:
    """Return the addresses of the Services in a page; none if it can't be read."""
    store = Store()
    with contextlib.suppress(FieldError):
        ResourceCache(SERVICES, store).list_items(decode(body, WirePage).items or [])
    states = store.snapshot().services.values()
    return tuple(ip for state in states for ip in state.service.cluster_ips)


def _version(body: bytes) -> str:
    try:
        version = json.loads(body)
    except ValueError:
        return ""
    return str(version.get("gitVersion") or "") if isinstance(version, dict) else ""
