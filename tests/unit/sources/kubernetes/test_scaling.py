"""Scaling from and to zero, on a server with a workload, its autoscalers and its budgets."""

import asyncio
import logging
import socket

import pytest
from aiohttp import web

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.sources.base import ScaleDown
from userspace_proxy.sources.kubernetes import scaling
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.scaling import scale_from_zero, scale_to_zero

WEB = Workload(WorkloadKind.DEPLOYMENT, "web")
DB = Workload(WorkloadKind.STATEFUL_SET, "db")
ABSENT = Workload(WorkloadKind.DEPLOYMENT, "absent")
SCALE = "/apis/apps/v1/namespaces/shop/deployments/web/scale"
DB_SCALE = "/apis/apps/v1/namespaces/shop/statefulsets/db/scale"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
BUDGETS = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"


class Shop:
    """A server with a workload, and the requests that it has received."""

    def __init__(self):
        self.workload = SCALE
        """The path of the workload's scale."""
        self.replicas = 1
        self.version = 1
        self.autoscalers = []
        self.budgets = []
        self.refused = {}
        """The errors for a method and a path."""
        self.asked = 0
        self.agrees = True
        self.reason = None
        self.labels = []
        """The labels that were checked with the caller."""
        self.meanwhile = lambda: None
        self.lost = []
        """Functions that run instead of a response to an update, in this order."""
        self.before_update = None
        self.peers = set()

    def may(self, labels):
        self.labels.append(labels)
        return self.reason

    async def agree(self):
        self.asked += 1
        self.meanwhile()
        return self.agrees

    def scale(self, replicas):
        self.replicas = replicas
        self.version += 1

    async def handle(self, request):
        self.peers.add(request.transport.get_extra_info("peername"))
        if (answer := self.refused.get((request.method, request.path))) is not None:
            return await answer()
        if request.path == AUTOSCALERS:
            return web.json_response({"items": self.autoscalers})
        if request.path == BUDGETS:
            return web.json_response({"items": self.budgets})
        if request.path != self.workload:
            *_, plural, name, _ = request.path.split("/")
            return web.json_response({"message": f'"{plural}/{name}" not found'}, status=404)
        if request.method == "PUT" and self.lost:
            self.lost.pop(0)()
            # aiohttp would retry the update if the connection were closed without a reset.
            request.transport.abort()
            return web.Response()
        if request.method == "PUT":
            body = await request.json()
            if self.before_update is not None:
                await self.before_update()
            if body["metadata"]["resourceVersion"] != str(self.version):
                return web.json_response({"message": "modified"}, status=409)
            self.scale(body["spec"]["replicas"])
        spec = {"replicas": self.replicas} if self.replicas else {}
        metadata = {"name": "web", "resourceVersion": str(self.version)}
        return web.json_response(
            {"metadata": metadata, "spec": spec, "status": {"selector": "app=web"}}
        )

    def refuse(self, method, path, code=403, text='{"message": "no"}'):
        async def answer():
            return web.Response(text=text, status=code)

        self.refused[method, path] = answer


@pytest.fixture
async def shop():
    shop, app = Shop(), web.Application()
    app.router.add_route("*", "/{path:.*}", shop.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    shop.client = ApiClient(Credentials(master=f"http://127.0.0.1:{sock.getsockname()[1]}"))
    await shop.client.open()
    yield shop
    await shop.client.close()
    await runner.cleanup()


async def wake(shop, workload=WEB):
    return await scale_from_zero(shop.client, "shop", workload, shop.may)


@pytest.mark.parametrize(("workload", "path"), [(WEB, SCALE), (DB, DB_SCALE)])
async def test_a_workload_at_zero_is_scaled_to_one(shop, workload, path, caplog):
    caplog.set_level(logging.INFO)
    shop.workload, shop.replicas = path, 0
    assert await wake(shop, workload) == ""
    assert shop.replicas == 1
    assert f"scaled {workload} in shop from 0 to 1" in caplog.text


async def test_waking_a_workload_that_has_replicas_changes_nothing(shop):
    shop.replicas = 3
    assert await wake(shop) == ""
    assert (shop.replicas, shop.version) == (3, 1)


async def test_only_one_of_two_simultaneous_wakes_changes_the_scale(shop):
    shop.replicas, shop.before_update = 0, asyncio.Barrier(2).wait
    assert await asyncio.gather(wake(shop), wake(shop)) == ["", ""]
    assert (shop.replicas, shop.version) == (1, 2)


@pytest.mark.parametrize(
    ("method", "code", "text", "problem"),
    [
        ("GET", 403, '{"message": "no"}', "cannot read the scale of deployment/web: no (allow "
            "this user to get and update deployments/scale in namespace shop)"),
        ("PUT", 403, '{"message": "no"}', "cannot scale deployment/web: no (allow this user to "
            "get and update deployments/scale in namespace shop)"),
        ("PUT", 500, "{}", "cannot scale deployment/web: HTTP status 500"),
    ],
)  # fmt: skip
async def test_an_error_response_is_reported_with_a_remedy(shop, method, code, text, problem):
    shop.replicas = 0
    shop.refuse(method, SCALE, code, text)
    assert await wake(shop) == problem


async def test_a_service_that_selects_other_pods_wakes_no_workload(shop):
    shop.replicas, shop.reason = 0, "it selects other pods"
    assert await wake(shop) == "it selects other pods"
    assert (shop.replicas, shop.labels) == (0, [{"app": "web"}])


@pytest.mark.parametrize("reason", ["", "it selects other pods"])
async def test_a_service_that_may_not_scale_a_workload_does_not_scale_it_to_zero(shop, reason):
    shop.reason = reason
    assert await scale_down(shop) == ScaleDown(reason=reason)
    assert (shop.replicas, shop.asked, shop.labels) == (1, 0, [{"app": "web"}])


async def test_consecutive_scale_requests_share_a_connection(shop):
    for workload in (WEB, DB, ABSENT, WEB):
        await wake(shop, workload)
    assert len(shop.peers) == 1


async def test_a_nonexistent_workload_is_reported(shop):
    assert await wake(shop, ABSENT) == (
        'cannot read the scale of deployment/absent: "deployments/absent" not found'
    )


@pytest.mark.parametrize("body", ["<html>", "[]", '{"spec": 1}', '{"spec": {"replicas": "1"}}'])
async def test_a_response_other_than_a_scale_is_reported(shop, body):
    """A server in front of the API server may send such a response."""
    shop.refuse("GET", SCALE, 200, body)
    assert await wake(shop) == (
        "cannot read the scale of deployment/web: the response isn't a Scale"
    )


async def test_an_unreachable_server_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    client = ApiClient(Credentials(master=url))
    await client.open()
    try:
        assert (await scale_from_zero(client, "shop", WEB, lambda _: None)).startswith(
            "cannot scale deployment/web: "
        )
    finally:
        await client.close()


async def scale_down(shop):
    return await scale_to_zero(shop.client, "shop", WEB, shop.may, shop.agree)


async def test_one_replica_is_scaled_to_zero_after_all_nodes_agree(shop, caplog):
    caplog.set_level(logging.INFO)
    assert await scale_down(shop) == ScaleDown(is_asleep=True)
    assert (shop.replicas, shop.asked) == (0, 1)
    assert "scaled deployment/web in shop from 1 to 0" in caplog.text


async def test_without_agreement_no_scale_is_written(shop):
    shop.agrees = False
    assert await scale_down(shop) == ScaleDown()
    assert shop.version == 1


@pytest.mark.parametrize("replicas", [0, 2, 5])
async def test_a_workload_with_zero_or_several_replicas_is_not_scaled_to_zero(shop, replicas):
    shop.scale(replicas)
    assert await scale_down(shop) == ScaleDown()
    assert (shop.replicas, shop.asked) == (replicas, 0)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_workload_scaled_during_the_vote_is_not_scaled_to_zero(shop, replicas):
    shop.meanwhile = lambda: shop.scale(replicas)
    assert await scale_down(shop) == ScaleDown()
    assert shop.replicas == replicas


async def test_a_workload_is_not_scaled_below_its_autoscalers_minimum(shop):
    target = {"kind": "Deployment", "name": "web"}
    shop.autoscalers = [{"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": target}}]
    why = "deployment/web stays at one replica: HorizontalPodAutoscaler hpa has minReplicas 1"
    assert await scale_down(shop) == ScaleDown(reason=why)
    assert (shop.replicas, shop.asked) == (1, 0)


async def test_pods_required_by_a_disruption_budget_are_kept(shop):
    selector = {"matchLabels": {"app": "web"}}
    spec = {"minAvailable": 1, "selector": selector}
    shop.budgets = [{"metadata": {"name": "pdb"}, "spec": spec}]
    why = "deployment/web stays at one replica: PodDisruptionBudget pdb has minAvailable 1"
    assert await scale_down(shop) == ScaleDown(reason=why)
    assert (shop.replicas, shop.asked) == (1, 0)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", SCALE, "get and update deployments/scale"),
        ("GET", AUTOSCALERS, "list horizontalpodautoscalers"),
        ("GET", BUDGETS, "list poddisruptionbudgets"),
        ("PUT", SCALE, "get and update deployments/scale"),
    ],
)
async def test_a_missing_permission_is_reported_and_nothing_is_scaled(shop, method, path, needed):
    shop.refuse(method, path)
    why = f"cannot scale deployment/web to zero: no (allow this user to {needed} in namespace shop)"
    assert await scale_down(shop) == ScaleDown(reason=why)
    assert shop.replicas == 1


@pytest.mark.parametrize("path", [SCALE, AUTOSCALERS, BUDGETS])
@pytest.mark.parametrize("text", ["<html>", "[]", "7"])
async def test_an_unreadable_response_keeps_the_workload_awake(shop, path, text):
    shop.refuse("GET", path, 200, text)
    assert not (await scale_down(shop)).is_asleep
    assert (shop.replicas, shop.asked) == (1, 0)


async def test_an_unresponsive_server_keeps_the_workload_awake(shop, monkeypatch):
    async def answer():
        await asyncio.Event().wait()

    monkeypatch.setattr(scaling, "_ANSWER_S", 0.05)
    shop.refused["GET", BUDGETS] = answer
    why = "cannot scale deployment/web to zero: no answer in time"
    assert await scale_down(shop) == ScaleDown(reason=why)
    assert shop.replicas == 1


async def test_an_applied_scale_update_with_a_lost_response_counts_as_applied(shop):
    shop.lost = [lambda: shop.scale(0)]
    assert await scale_down(shop) == ScaleDown(is_asleep=True)
    assert shop.version == 2


async def test_a_lost_scale_update_is_repeated(shop):
    shop.lost = [lambda: None] * 2
    assert await scale_down(shop) == ScaleDown(is_asleep=True)
    assert shop.replicas == 0


async def test_a_lost_scale_update_does_not_replace_another_programs_scale(shop):
    shop.lost = [lambda: shop.scale(3)]
    assert await scale_down(shop) == ScaleDown()
    assert shop.replicas == 3


async def test_a_scale_update_with_an_unknown_outcome_counts_as_applied(shop, caplog):
    shop.lost = [lambda: None] * 9
    assert await scale_down(shop) == ScaleDown(is_asleep=True)
    assert "deployment/web in shop may have been scaled to zero: " in caplog.text


@pytest.mark.parametrize("code", [502, 504])
async def test_a_scale_update_answered_by_a_failing_gateway_counts_as_applied(shop, code):
    shop.refuse("PUT", SCALE, code)
    assert await scale_down(shop) == ScaleDown(is_asleep=True)


@pytest.mark.parametrize("code", [500, 503])
async def test_a_scale_request_failing_twice_without_effect_is_reported(shop, code):
    """An admission webhook can cause this."""
    shop.refuse("PUT", SCALE, code, '{"message": "failed calling webhook"}')
    why = "cannot scale deployment/web to zero: failed calling webhook"
    assert await scale_down(shop) == ScaleDown(reason=why)


@pytest.mark.parametrize(("replicas", "is_asleep"), [(0, True), (1, False), (3, False)])
async def test_after_two_failed_updates_the_scale_is_read_again(shop, replicas, is_asleep):
    codes = [403, 500]

    async def answer():
        shop.scale(replicas)
        return web.Response(text="{}", status=codes.pop())

    shop.refused["PUT", SCALE] = answer
    assert await scale_down(shop) == ScaleDown(is_asleep=is_asleep)


async def test_a_scale_update_lost_before_a_server_failure_counts_as_applied(shop):
    async def fail():
        return web.Response(text="{}", status=500)

    # aiohttp itself retries the first update.
    shop.lost = [lambda: None, lambda: shop.refused.update({("PUT", SCALE): fail})]
    assert await scale_down(shop) == ScaleDown(is_asleep=True)
