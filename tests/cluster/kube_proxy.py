"""kube-proxy in nftables mode on a sandbox's node, and its objects at the API server.

The program is the same as in ``make cluster``. It needs Debian's ``nft``, and an API server with
its Node; its rules stay after it exits.
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
"""kube-proxy's user, for ``ControlPlane``, and the user's group."""

HEALTH = 10256


def find_kube_proxy(write: Write = sys.stdout.write) -> Path:
    """Return the path of the program, after building it if it is missing.

    Raises:
        BuildError: It is missing and can't be built.
    """
    return ensure_program("kube-proxy", write)


def kube_proxy_command(program: Path, node: SandboxNode, kubeconfig: Path) -> list[str]:
    """Return the command line for a node.

    It contains the pod network, as with kubeadm, so packets of pods keep their source address.
    """
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={POD_CIDR}",
        "--proxy-mode=nftables",
        # This leaves the machine's conntrack limits unchanged.
        "--conntrack-max-per-core=0",
        f"--healthz-bind-address=0.0.0.0:{HEALTH}",
        "--metrics-bind-address=127.0.0.1:10249",
    ]


def kube_proxy_environment() -> dict[str, str]:
    """Return kube-proxy's environment, with sbin on PATH: Debian has ``nft`` there."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def put_objects(
    control_plane: ControlPlane, node: SandboxNode, objects: Iterable[Mapping[str, Any]]
) -> None:
    """Write a Node and other objects to an empty API server."""
    address = {"type": "InternalIP", "address": str(node.ip)}
    node_object = made("Node", node.name)
    control_plane.apply(node_object, *objects)
    status = json.dumps({**node_object, "status": {"addresses": [address]}})
    path = f"/api/v1/nodes/{node.name}/status"
    control_plane.kubectl("replace", "--raw", path, "-f", "-", input=status)
