"""A real API server fulfils the contract of the fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials

from .api_contract import ApiContract, Put
from .control_plane import ControlPlane
from .credentials import ADMIN, NODE_PROXIER

pytestmark = pytest.mark.cluster


async def opened(control_plane: ControlPlane, user: str) -> AsyncIterator[ApiClient]:
    client = ApiClient(Credentials(kubeconfig=str(control_plane.kubeconfig_for(user))))
    await client.open()
    yield client
    await client.close()


class TestKubeApiServer(ApiContract):
    @pytest.fixture
    async def put(self, control_plane: ControlPlane) -> AsyncIterator[Put]:
        async def put(item: dict[str, Any]) -> None:
            await asyncio.to_thread(control_plane.apply, item)

        yield put
        delete = ("delete", "pods", "--all", "--now", "-n", "default")
        await asyncio.to_thread(control_plane.kubectl, *delete)

    @pytest.fixture
    async def client(self, control_plane: ControlPlane) -> AsyncIterator[ApiClient]:
        async for client in opened(control_plane, ADMIN):
            yield client

    @pytest.fixture
    async def stranger(self, control_plane: ControlPlane) -> AsyncIterator[ApiClient]:
        async for client in opened(control_plane, NODE_PROXIER):
            yield client
