"""``forward`` with a real API server without nodes: rights, and missing pods."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import started
from tests.unit.sources.kubernetes.objects import endpoint_slice, service

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


class Forward:
    """A running `forward` of the namespace shop, whose user has only the Role's rights."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line matches {pattern!r}")

    def end(self) -> tuple[int, str]:
        """Return the exit status, and standard error."""
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def shop(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("create", "namespace", "shop")
    control_plane.apply(SERVICE, SLICE, namespace="shop")
    return control_plane


@pytest.fixture
def forward(shop: ControlPlane) -> Iterator[Forward]:
    flags = ("-n", "shop", f"--kubeconfig={shop.kubeconfig_for(NODE_PROXIER)}")
    command = [sys.executable, "-m", "userspace_proxy", "forward", *flags]
    env = os.environ | {"NO_PROXY": "*"}
    with started(command, stderr=subprocess.PIPE, env=env) as process:
        yield Forward(process)


def test_the_documented_role_is_sufficient(
    shop: ControlPlane, request: pytest.FixtureRequest
) -> None:
    role = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert role is not None
    shop.kubectl("apply", "-f", "-", input=role[1])
    inside = ("-n", "shop")
    shop.kubectl(
        *inside, "create", "rolebinding", "forward", "--role=forward", f"--user={NODE_PROXIER}"
    )
    question = (*inside, "auth", "can-i", "create", "pods", "--subresource=portforward")

    def is_granted() -> bool:
        return shop.kubectl(*question, user=NODE_PROXIER, check=False).startswith("yes")

    wait_for("the role", is_granted)
    forward: Forward = request.getfixturevalue("forward")
    forward.line(f"^Services of namespace shop, through the API server at {shop.server}$")
    at = forward.line(r"^  web\.shop:80 +(\S+):(\d+) +1 pod$")
    # The API server reports that the pod doesn't exist.
    client = socket.create_connection((at[1], int(at[2])), timeout=DEADLINE_S)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    forward.process.send_signal(signal.SIGTERM)
    status, said = forward.end()
    assert status == 0
    assert 'pod shop/web-1, port 8080: pods "web-1" not found' in said
