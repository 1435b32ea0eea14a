"""Builds Pods, DaemonSets and Nodes as JSON of the Kubernetes API."""

from __future__ import annotations

import json


def pod(name="agent-1", node="node-1", *, labels=None, args=(), command=None, status=None, **spec):
    """Return a running and ready pod of the chart, with these changes to its spec."""
    container = {"name": "userspace-proxy", "args": ["--take-over", *args]}
    if command is not None:
        container = {"name": "kube-proxy", "command": command}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "creationTimestamp": "2026-11-21T09:00:00Z",
            "labels": labels or {"app.kubernetes.io/name": "userspace-proxy"},
        },
        "spec": {"nodeName": node, "hostNetwork": True, "containers": [container], **spec},
        "status": ready if status is None else status,
    }


def with_metadata(item, **fields):
    """Return a copy of an object with some fields of its metadata replaced."""
    return {**item, "metadata": {**item["metadata"], **fields}}


def daemon_set(**selector):
    """Return the agents' DaemonSet, which targets nodes with these labels."""
    labels = {"app.kubernetes.io/name": "userspace-proxy"}
    metadata = {"name": "userspace-proxy", "namespace": "kube-system", "labels": labels}
    template = {"spec": {"nodeSelector": selector}}
    return {"kind": "DaemonSet", "metadata": metadata, "spec": {"template": template}}


def node(name, *, taints=(), ready="True", **labels):
    """Return a Node with some labels."""
    condition = {"type": "Ready", "status": ready, "message": "kubelet has stopped."}
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"conditions": [condition]},
    }


def written(item):
    """Encode an object as the API server does."""
    return json.dumps(item).encode()
