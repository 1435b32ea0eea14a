"""Kubernetes objects, as clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def made(
    kind: str, name: str, spec: Object | None = None, *, version: str = "v1", **metadata: Any
) -> Object:
    """Return an object whose metadata contains its name and ``metadata``."""
    written = {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}}
    return written if spec is None else {**written, "spec": spec}


def pod(name: str, container: Object, *, labels: Mapping[str, str] = {}, **spec: Any) -> Object:
    """Return a Pod with one container and no grace period."""
    fields = {"terminationGracePeriodSeconds": 0, **spec, "containers": [container]}
    return made("Pod", name, fields, labels=labels)


def deployment(container: Object, replicas: int, **metadata: Any) -> Object:
    """Return the Deployment ``web``, whose pods have the label ``app=web``."""
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return made("Deployment", "web", spec, version="apps/v1", **metadata)
