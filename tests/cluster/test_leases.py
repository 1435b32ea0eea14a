"""The contract of Leases at a real API server, for a user with the documented role."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.sources.leases_contract import NODES, LeasesContract, LeasesOf
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.leases import KubernetesLeases

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .objects import made
from .rights import grant_wake

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def granted(control_plane: ControlPlane) -> ControlPlane:
    control_plane.grant_node_proxier()
    grant_wake(control_plane)
    control_plane.apply(*(made("Node", name) for name in NODES))
    return control_plane


@pytest.fixture
async def leases_of(
    granted: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LeasesOf]:
    monkeypatch.setenv("NO_PROXY", "*")
    granted.kubectl("delete", "leases", "--all", "--namespace=userspace-proxy")
    client = ApiClient(Credentials(kubeconfig=str(granted.kubeconfig_for(NODE_PROXIER))))
    await client.open()
    yield lambda name: KubernetesLeases(client, name, "", is_open=lambda: True)
    await client.close()


class TestContract(LeasesContract):
    pass
