"""Checks once whether an API server responds, and permits reading a source's resources.

Rule 1: only one object of each resource is requested, which costs the server little.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from ...cluster import Snapshot, Store
from ...cluster.from_pods import PodEndpoints
from ...errors import SourceError
from ...model import Node
from ...model.wire import FieldError, WirePage, decode
from .client import ApiClient
from .credentials import Credentials
from .node_addresses import describe_missing
from .one_service import asked_once, list_refused
from .resources import SERVICES, Resource, ResourceCache, resources_of, this_node


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The result of checking an API server with :func:`ask_server`."""

    url: str
    problems: tuple[str, ...] = ()
    """One line for each problem, with a remedy if one is known."""
    version: str = ""
    service_ips: tuple[str, ...] = ()
    """The cluster IPs of one Service; empty if it has none, or no Service can be read."""
    node: Node | None = None
    """A description of this node's missing object; None if it exists or can't be read."""


async def ask_server(
    *,
    kubeconfig: str,
    master: str,
    node_name: str,
    within_s: float,
    endpoints_from_pods: bool = False,
) -> ServerReport:
    """Request one object of each kind that the source reads, within ``within_s`` seconds.

    Failures are problems in the report. The other arguments are as for KubernetesSource.
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
    missing: Node | None = None
    for resource in (*resources, *([this_node(node_name)] if node_name else [])):
        response = await client.get(resource.path, {**resource.query, "limit": "1"})
        if response.code != 200:
            problems.append(list_refused(client, resource.name, response))
        elif resource.name == SERVICES.name:
            states = _read(SERVICES, response.body).services.values()
            service_ips = tuple(ip for state in states for ip in state.service.cluster_ips)
        elif resource.kind == "Node" and _read(resource, response.body).node is None:
            missing = await describe_missing(client, node_name)
    version = await client.get("/version", {})
    # Wrong credentials cause the same problem for all objects, so remove duplicates.
    said = tuple(dict.fromkeys(problems))
    return ServerReport(client.url, said, _version(version.body), service_ips, missing)


def _read(resource: Resource, body: bytes) -> Snapshot:
    """Return a page's objects; empty if it can't be read."""
    store = Store()
    with contextlib.suppress(FieldError):
        ResourceCache(resource, store).list_items(decode(body, WirePage).items or [])
    return store.snapshot()


def _version(body: bytes) -> str:
    try:
        version = json.loads(body)
    except ValueError:
        return ""
    return str(version.get("gitVersion") or "") if isinstance(version, dict) else ""
