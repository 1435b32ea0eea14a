"""An API server's handling of writes of Events and Leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .api_etcd import Etcd
from .api_requests import Target, status

Answer = tuple[int, Mapping[str, Any]]


def write(etcd: Etcd, method: str, target: Target, body: Mapping[str, Any]) -> Answer:
    """Handle a request that writes; return the response."""
    if target.resource == "events":
        return _write_event(etcd, method, target, body)
    if target.resource == "leases":
        return _write_lease(etcd, method, target, body)
    return status(405, "MethodNotAllowed", f"{method} isn't simulated")


def _write_event(etcd: Etcd, method: str, target: Target, body: Mapping[str, Any]) -> Answer:
    name = target.name or body["metadata"]["name"]
    key = (target.namespace, name)
    before = etcd.events.get(key)
    if method == "POST":
        if before is not None:
            return status(409, "AlreadyExists", f'events "{name}" already exists')
        etcd.events[key] = dict(body)
        return 201, body
    if before is None:
        return status(404, "NotFound", f'events "{name}" not found')
    etcd.events[key] = {**before, **body}
    return 200, etcd.events[key]


def _write_lease(etcd: Etcd, method: str, target: Target, body: Mapping[str, Any]) -> Answer:
    item = {"kind": "Lease", **body}
    name = target.name or item["metadata"]["name"]
    before = etcd.objects.get("leases", name, target.namespace)
    if method == "PUT" and before is None:
        return status(404, "NotFound", f'leases "{name}" not found')
    version = before["metadata"]["resourceVersion"] if before else None
    if item["metadata"].get("resourceVersion") != version:
        return status(409, "Conflict", f'leases "{name}": modified or already exists')
    etcd.put({**item, "metadata": {**item["metadata"], "namespace": target.namespace}})
    after = etcd.objects.get("leases", name, target.namespace)
    assert after is not None, "the lease wasn't written"
    return (200 if before else 201), after
