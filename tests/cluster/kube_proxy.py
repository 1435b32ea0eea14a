"""kube-proxy in its nftables mode on a sandbox's node, and what it reads from the API server.

It is the program that ``make cluster`` runs. It needs Debian's ``nft`` and an API server that
knows its node; rules stay in force when either ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from userspace_proxy_testing.sandbox import SandboxNode
from userspace_proxy_testing.sandbox.address_plan import POD_CIDR

from .build import Write
from .control_plane import ControlPlane
from .nodes.programs import ensure_program
from .objects import made

USER = "kube-proxy"
USERS = {USER: "system:masters"}
"""For ``ControlPlane``."""

HEALTH = 10256


def find_kube_proxy(write: Write = sys.stdout.write) -> Path:
    """Return the program, after building it if it is missing.

    Raises:
        BuildError: It is missing, and couldn't be built.
    """
    return ensure_program("kube-proxy", write)


def kube_proxy_command(program: Path, node: SandboxNode, kubeconfig: Path) -> list[str]:
    """Return the command line for a node.

    The cluster's pods are named, as kubeadm does it: sources of packets from pods stay as they are.
    """
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={POD_CIDR}",
        "--proxy-mode=nftables",
        # The machine's limits aren't changed.
        "--conntrack-max-per-core=0",
        f"--healthz-bind-address=0.0.0.0:{HEALTH}",
        "--metrics-bind-address=127.0.0.1:10249",
    ]


def kube_proxy_environment() -> dict[str, str]:
    """Return its environment: Debian keeps ``nft`` in sbin, which a user's PATH may lack."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def put_objects(
    control_plane: ControlPlane, node: SandboxNode, objects: Iterable[Mapping[str, Any]]
) -> None:
    """Write a Node and further objects into an empty API server."""
    address = {"type": "InternalIP", "address": str(node.ip)}
    node_object = made("Node", node.name)
    control_plane.apply(node_object, *objects)
    status = json.dumps({**node_object, "status": {"addresses": [address]}})
    path = f"/api/v1/nodes/{node.name}/status"
    control_plane.kubectl("replace", "--raw", path, "-f", "-", input=status)
