"""Scaling from zero, at a server that keeps one workload's scale and its version."""

import asyncio
import logging
import socket

import pytest
from aiohttp import web

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.scaling import scale_from_zero

WEB = Workload(WorkloadKind.DEPLOYMENT, "web")
DB = Workload(WorkloadKind.STATEFUL_SET, "db")


class Scales:
    """The server: ``autoscaling/v1`` Scale objects with optimistic concurrency."""

    def __init__(self):
        self.replicas = {"deployments/web": 0, "statefulsets/db": 0}
        self.version = 1
        self.updates = 0
        self.refusal = None
        self.body = None
        self.before_update = None
        self.peers = set()

    async def handle(self, request):
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.body is not None:
            return web.Response(text=self.body)
        if self.refusal is not None and request.method in self.refusal[0]:
            return web.json_response({"message": self.refusal[2]}, status=self.refusal[1])
        name = f"{request.match_info['plural']}/{request.match_info['name']}"
        if name not in self.replicas:
            return web.json_response({"message": f'"{name}" not found'}, status=404)
        if request.method == "PUT":
            body = await request.json()
            if self.before_update is not None:
                await self.before_update()
            if body["metadata"]["resourceVersion"] != str(self.version):
                return web.json_response({"message": "modified"}, status=409)
            self.replicas[name] = body["spec"]["replicas"]
            self.version += 1
            self.updates += 1
        spec = {"replicas": self.replicas[name]} if self.replicas[name] else {}
        metadata = {"name": request.match_info["name"], "resourceVersion": str(self.version)}
        return web.json_response({"kind": "Scale", "metadata": metadata, "spec": spec})


@pytest.fixture
async def scales():
    scales, app = Scales(), web.Application()
    path = "/apis/apps/v1/namespaces/shop/{plural}/{name}/scale"
    app.router.add_get(path, scales.handle)
    app.router.add_put(path, scales.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    scales.client = ApiClient(Credentials(master=f"http://127.0.0.1:{sock.getsockname()[1]}"))
    await scales.client.open()
    yield scales
    await scales.client.close()
    await runner.cleanup()


@pytest.mark.parametrize(("workload", "name"), [(WEB, "deployments/web"), (DB, "statefulsets/db")])
async def test_a_workload_without_replicas_gets_one(scales, workload, name, caplog):
    caplog.set_level(logging.INFO)
    assert await scale_from_zero(scales.client, "shop", workload) == ""
    assert scales.replicas[name] == 1
    assert f"scaled shop {workload} from 0 to 1" in caplog.text


async def test_a_workload_with_replicas_stays_as_it_is(scales):
    scales.replicas["deployments/web"] = 3
    assert await scale_from_zero(scales.client, "shop", WEB) == ""
    assert (scales.replicas["deployments/web"], scales.updates) == (3, 0)


async def test_of_two_nodes_that_scale_at_once_one_does(scales):
    both = asyncio.Barrier(2)
    scales.before_update = both.wait
    answers = await asyncio.gather(*(scale_from_zero(scales.client, "shop", WEB) for _ in range(2)))
    assert answers == ["", ""]
    assert (scales.replicas["deployments/web"], scales.updates) == (1, 1)


@pytest.mark.parametrize(
    ("methods", "code", "text", "problem"),
    [
        pytest.param(
            ("GET",), 403, "no", "cannot read the scale of deployment/web: no (allow this user to "
            "get and update deployments/scale in namespace shop)", id="forbidden-to-read",
        ),
        pytest.param(
            ("PUT",), 403, "no", "cannot scale deployment/web: no (allow this user to get and "
            "update deployments/scale in namespace shop)", id="forbidden-to-scale",
        ),
        pytest.param(("PUT",), 500, "", "cannot scale deployment/web: HTTP status 500", id="error"),
    ],
)  # fmt: skip
async def test_a_refusal_is_the_servers_words_with_a_remedy(scales, methods, code, text, problem):
    scales.refusal = methods, code, text
    assert await scale_from_zero(scales.client, "shop", WEB) == problem


async def test_attempts_one_after_the_other_share_a_connection(scales):
    for workload in (WEB, DB, Workload(WorkloadKind.DEPLOYMENT, "absent"), WEB):
        await scale_from_zero(scales.client, "shop", workload)
    assert len(scales.peers) == 1


async def test_a_workload_that_does_not_exist_is_named(scales):
    absent = Workload(WorkloadKind.DEPLOYMENT, "absent")
    assert await scale_from_zero(scales.client, "shop", absent) == (
        'cannot read the scale of deployment/absent: "deployments/absent" not found'
    )


@pytest.mark.parametrize("body", ["<html>", "[]", '{"spec": 1}', '{"spec": {"replicas": "1"}}'])
async def test_another_response_than_a_scale_is_a_cause(scales, body):
    """As a server in front of the API server may send it."""
    scales.body = body
    assert await scale_from_zero(scales.client, "shop", WEB) == (
        "cannot read the scale of deployment/web: the response isn't a Scale"
    )


async def test_a_server_that_cannot_be_reached_is_a_cause():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    client = ApiClient(Credentials(master=url))
    await client.open()
    try:
        assert (await scale_from_zero(client, "shop", WEB)).startswith(
            "cannot scale deployment/web: "
        )
    finally:
        await client.close()
