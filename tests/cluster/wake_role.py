"""Grants what examples/deploy/wake.yaml grants, to the user that the agents of tests have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER

_MANIFEST = Path(__file__).parents[2] / "examples/deploy/wake.yaml"


def grant_wake(control_plane: ControlPlane, namespace: str = "default") -> None:
    """Allow to scale workloads of a namespace, which is created, and to share Leases."""
    text = _MANIFEST.read_text().replace("namespace: default", f"namespace: {namespace}")
    metadata = {"name": namespace}
    objects: list[Any] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}]
    for item in yaml.safe_load_all(text):
        if item["kind"] == "RoleBinding":
            item["subjects"] = [{"kind": "User", "name": NODE_PROXIER}]
        objects.append(item)
    items = {"apiVersion": "v1", "kind": "List", "items": objects}
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(items))
