"""Reads the same objects through each source, and renders their plans and ``explain``'s texts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from userspace_proxy.cluster import Snapshot
from userspace_proxy.explain import explain, read_subject, render_json
from userspace_proxy.explain.planned import plan_status
from userspace_proxy.facts import RejectedFacts
from userspace_proxy.model import ServiceKey
from userspace_proxy.plan import Planner
from userspace_proxy.policy import NodeFacts, PolicyOptions
from userspace_proxy.policy.node_facts import make_facts
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.one_service import OneServiceReader
from userspace_proxy.sources.manifests import load_state
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from .drawn import Object
from .kubernetes.conftest import QUICK
from .running import running

NODE = "node-1"
OPTIONS = PolicyOptions(node_name=NODE, external_ip_networks=("0.0.0.0/0", "::/0"))
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:96::/64")
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Read:
    """The result of reading a source."""

    snapshot: Snapshot
    mistakes: Sequence[RejectedFacts] = ()

    @property
    def rejected(self) -> list[tuple[Any, ...]]:
        """The rejected objects, without their place in the file."""
        return [(item.object, item.services, item.problem, item.note) for item in self.mistakes]

    @property
    def facts(self) -> NodeFacts:
        """The facts that affect a plan in addition to its Services."""
        return make_facts(OPTIONS, self.snapshot, ("192.0.2.10", "2001:db8::10"))


def of_manifests(objects: Sequence[Object]) -> Read:
    """Read objects from a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "all.json")
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        state = load_state(file, node_name=NODE, service_cidrs=SERVICE_CIDRS)
    return Read(state.snapshot, state.rejected)


def of_api_server(objects: Sequence[Object], **options: bool) -> Read:
    """Read objects from an API server that contains them, as ``run`` does."""

    async def read(api: FakeApiServer) -> Read:
        return await read_all(
            KubernetesSource(master=api.url, node_name=NODE, timing=QUICK, **options)
        )

    return asyncio.run(_with_server(objects, read))


def of_one_service(objects: Sequence[Object], key: ServiceKey) -> Read:
    """Read the objects of one Service, as ``explain --kubeconfig`` does."""

    async def read(api: FakeApiServer) -> Read:
        return await read_one(OneServiceReader(kubeconfig="", master=api.url, node_name=NODE), key)

    return asyncio.run(_with_server(objects, read))


async def read_all(source: KubernetesSource) -> Read:
    """Read the first published state of a source, including the nodes."""
    source.want_nodes(True)
    async with running(source) as published:
        snapshot = await published.until(
            lambda one: one.node_addresses is not None and one.node is not None
        )
        if snapshot.node is not None and snapshot.node.is_missing and not snapshot.node.similar:
            # If manifests contain no Node at all, the proxy's Node doesn't count as missing.
            snapshot = replace(snapshot, node=None)
        return Read(snapshot, source.status().rejected)


async def read_one(reader: OneServiceReader, key: ServiceKey) -> Read:
    """Read the objects of one Service."""
    one = await reader.read(key, with_pods=False, within_s=DEADLINE_S)
    return Read(one.snapshot)


async def _with_server(objects: Sequence[Object], read: Any) -> Read:
    async with FakeApiServer() as api:
        for item in objects:
            api.put(item)
        result: Read = await read(api)
        return result


def seen(read: Read, key: ServiceKey) -> tuple[Any, ...]:
    """Return the plan of a Service, and the text of ``explain``."""
    plan = Planner(read.facts).plan(read.snapshot)
    ports = [port for port in plan.ports.values() if port.key.name.service == key]
    ignored = [item for item in plan.ignored if item.service == key]
    status = plan_status(read.snapshot, OPTIONS, now=0.0, steering="auto", rejected=read.mistakes)
    words = render_json(explain(read_subject(status, str(key), "", is_live=False)))
    return ports, ignored, plan.health_checks.get(key), json.loads(words)
