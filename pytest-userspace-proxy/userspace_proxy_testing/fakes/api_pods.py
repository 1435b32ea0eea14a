"""Handles the fake API server's writes of Pods, as kube-apiserver does.

This module does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .api_objects import Object

DELETED_AT = "2026-11-21T09:00:30Z"
"""The ``deletionTimestamp`` of Pods that are being deleted."""

_DELETE = "$deleteFromPrimitiveList/"


def write_pod(
    method: str, before: Object | None, body: Mapping[str, Any], *, uid: str
) -> tuple[int, Object | None]:
    """Return the response's status, and the Pod after the write; None if it is gone.

    Args:
        method: ``POST``, ``PATCH`` (a strategic merge patch) or ``DELETE``.
        before: The Pod of that name; None if it doesn't exist.
        uid: The uid for a new Pod.
    """
    if method == "POST":
        made = {**body, "metadata": {**body["metadata"], "uid": uid}}
        return (201, made) if before is None else (409, before)
    if before is None:
        return 404, None
    return 200, _patched(before, body) if method == "PATCH" else _deleted(before, body)


def _patched(pod: Object, patch: Mapping[str, Any]) -> Object | None:
    """Return a Pod after a patch of annotations, finalizers and status; None if that deletes it.

    Conditions are merged by type, and addresses by ``ip`` unless the patch replaces them or the
    whole status; finalizers are a set.
    """
    metadata, status = dict(pod["metadata"]), dict(pod.get("status") or {})
    changes = dict(patch.get("metadata") or {})
    if "annotations" in changes:
        annotations = {**(metadata.get("annotations") or {}), **changes["annotations"]}
        metadata["annotations"] = {k: v for k, v in annotations.items() if v is not None}
    kept = [*(metadata.get("finalizers") or []), *(changes.get("finalizers") or [])]
    gone = changes.get(f"{_DELETE}finalizers") or []
    metadata["finalizers"] = [name for name in dict.fromkeys(kept) if name not in gone]
    wanted = dict(patch.get("status") or {})
    if wanted.pop("$patch", "") == "replace":
        status = {}
    for name, value in wanted.items():
        if name == "conditions":
            value = _merged(status.get(name) or [], value, by="type")
        elif name == "podIPs":
            replaces = {"$patch": "replace"} in value
            before = [] if replaces else status.get(name) or []
            value = _merged(before, [item for item in value if "$patch" not in item], by="ip")
        status[name] = value
    if "deletionTimestamp" in metadata and not metadata["finalizers"]:
        return None
    return {**pod, "metadata": metadata, "status": status}


def _deleted(pod: Object, options: Mapping[str, Any]) -> Object | None:
    """Return a Pod after a deletion request; None if it was removed.

    A Pod stays while it has a finalizer, or, unless the grace period is 0, a node.
    """
    is_running = bool((pod.get("spec") or {}).get("nodeName"))
    if pod["metadata"].get("finalizers") or (is_running and options.get("gracePeriodSeconds") != 0):
        return {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": DELETED_AT}}
    return None


def _merged(before: list[Any], changes: list[Any], *, by: str) -> list[Any]:
    return list({item[by]: item for item in [*before, *changes]}.values())
