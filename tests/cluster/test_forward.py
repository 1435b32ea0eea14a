"""``forward`` with a real API server without nodes: the documented role, and a missing pod."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.unit.sources.kubernetes.objects import endpoint_slice, service

from .child import Child
from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .waiting import wait_for

pytestmark = pytest.mark.cluster

DOCS = Path(__file__).parents[2] / "docs" / "terminal.md"
DEADLINE_S = 120.0

SERVICE = service(ports=[{"name": "http", "port": 80, "targetPort": 8080}])
SLICE = {
    **endpoint_slice(),
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "endpoints": [
        {
            "addresses": ["192.0.2.7"],
            "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"},
        }
    ],
}


def test_the_documented_role_allows_forwarding(control_plane: ControlPlane, tmp_path: Path) -> None:
    role = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert role is not None
    inside, run = ("-n", "shop"), control_plane.kubectl
    run("create", "namespace", "shop")
    control_plane.apply(SERVICE, SLICE, namespace="shop")
    run("apply", "-f", "-", input=role[1])
    run(*inside, "create", "rolebinding", "forward", "--role=forward", f"--user={NODE_PROXIER}")
    question = (*inside, "auth", "can-i", "create", "pods", "--subresource=portforward")
    wait_for("the role", lambda: run(*question, user=NODE_PROXIER, check=False).startswith("yes"))
    flags = (*inside, f"--kubeconfig={control_plane.kubeconfig_for(NODE_PROXIER)}")
    forward = Child([sys.executable, "-m", "userspace_proxy", "forward", *flags], tmp_path / "log")
    try:
        forward.wait_for_output(
            f"^Services of namespace shop, through the API server at {control_plane.server}$"
        )
        at = forward.wait_for_output(r"^  web\.shop:80 +(\S+):(\d+) +1 pod$")
        # The API server reports that the pod doesn't exist.
        client = socket.create_connection((at[1], int(at[2])), timeout=DEADLINE_S)
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
        os.kill(forward.pid, signal.SIGTERM)
        forward.wait(DEADLINE_S)
    finally:
        forward.kill()
    assert forward.status == 0
    assert 'pod shop/web-1, port 8080: pods "web-1" not found' in forward.output()
