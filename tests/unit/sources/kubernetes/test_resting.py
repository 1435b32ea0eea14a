"""Scaling to zero, at a server that keeps one workload, its autoscalers and its budgets."""

import asyncio
import logging
import socket

import pytest
from aiohttp import web

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.sources.base import Rest
from userspace_proxy.sources.kubernetes import resting
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.resting import scale_to_zero

WEB = Workload(WorkloadKind.DEPLOYMENT, "web")
SCALE = "/apis/apps/v1/namespaces/shop/deployments/web/scale"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
BUDGETS = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"


class Shop:
    """The server, and what its users have asked for."""

    def __init__(self):
        self.replicas = 1
        self.version = 1
        self.autoscalers = []
        self.budgets = []
        self.refused = {}
        """Responses to a method and a path."""
        self.asked = 0
        self.agrees = True
        self.meanwhile = lambda: None
        self.lost = []
        """What happens to updates whose response is lost, the first one first."""

    async def agree(self):
        self.asked += 1
        self.meanwhile()
        return self.agrees

    def scale(self, replicas):
        self.replicas = replicas
        self.version += 1

    async def handle(self, request):
        if (answer := self.refused.get((request.method, request.path))) is not None:
            return await answer()
        if request.path == AUTOSCALERS:
            return web.json_response({"items": self.autoscalers})
        if request.path == BUDGETS:
            return web.json_response({"items": self.budgets})
        if request.method == "PUT" and self.lost:
            self.lost.pop(0)()
            # Closed as an orderly end would be, it has aiohttp send the update again.
            request.transport.abort()
            return web.Response()
        if request.method == "PUT":
            body = await request.json()
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


async def rest(shop):
    return await scale_to_zero(shop.client, "shop", WEB, shop.agree)


async def test_one_replica_becomes_none_once_all_agree(shop, caplog):
    caplog.set_level(logging.INFO)
    assert await rest(shop) == Rest(is_asleep=True)
    assert (shop.replicas, shop.asked) == (0, 1)
    assert "scaled shop deployment/web from 1 to 0" in caplog.text


async def test_without_agreement_nothing_is_written(shop):
    shop.agrees = False
    assert await rest(shop) == Rest()
    assert shop.version == 1


@pytest.mark.parametrize("replicas", [0, 2, 5])
async def test_another_number_of_replicas_was_someone_elses_decision(shop, replicas):
    shop.scale(replicas)
    assert await rest(shop) == Rest()
    assert (shop.replicas, shop.asked) == (replicas, 0)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_workload_that_was_scaled_while_nodes_agreed_stays_as_it_is(shop, replicas):
    shop.meanwhile = lambda: shop.scale(replicas)
    assert await rest(shop) == Rest()
    assert shop.replicas == replicas


async def test_the_least_number_of_an_autoscaler_is_kept(shop):
    target = {"kind": "Deployment", "name": "web"}
    shop.autoscalers = [{"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": target}}]
    why = "deployment/web stays at one replica: HorizontalPodAutoscaler hpa has minReplicas 1"
    assert await rest(shop) == Rest(why_not=why)
    assert (shop.replicas, shop.asked) == (1, 0)


async def test_the_pods_that_a_budget_asks_for_are_kept(shop):
    selector = {"matchLabels": {"app": "web"}}
    spec = {"minAvailable": 1, "selector": selector}
    shop.budgets = [{"metadata": {"name": "pdb"}, "spec": spec}]
    why = "deployment/web stays at one replica: PodDisruptionBudget pdb has minAvailable 1"
    assert await rest(shop) == Rest(why_not=why)
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
async def test_a_missing_permission_is_named_and_nothing_is_scaled(shop, method, path, needed):
    shop.refuse(method, path)
    why = f"cannot scale deployment/web to zero: no (allow this user to {needed} in namespace shop)"
    assert await rest(shop) == Rest(why_not=why)
    assert shop.replicas == 1


@pytest.mark.parametrize("path", [SCALE, AUTOSCALERS, BUDGETS])
@pytest.mark.parametrize("text", ["<html>", "[]", "7"])
async def test_what_cannot_be_read_keeps_the_workload_awake(shop, path, text):
    shop.refuse("GET", path, 200, text)
    assert not (await rest(shop)).is_asleep
    assert (shop.replicas, shop.asked) == (1, 0)


async def test_a_server_that_does_not_answer_keeps_the_workload_awake(shop, monkeypatch):
    async def answer():
        await asyncio.Event().wait()

    monkeypatch.setattr(resting, "_ANSWER_S", 0.05)
    shop.refused["GET", BUDGETS] = answer
    why = "cannot scale deployment/web to zero: no answer in time"
    assert await rest(shop) == Rest(why_not=why)
    assert shop.replicas == 1


async def test_an_update_that_was_made_although_its_response_was_lost_counts(shop):
    shop.lost = [lambda: shop.scale(0)]
    assert await rest(shop) == Rest(is_asleep=True)
    assert shop.version == 2


async def test_an_update_that_was_lost_is_made_again(shop):
    shop.lost = [lambda: None] * 2
    assert await rest(shop) == Rest(is_asleep=True)
    assert shop.replicas == 0


async def test_an_update_that_was_lost_does_not_replace_another_scale(shop):
    shop.lost = [lambda: shop.scale(3)]
    assert await rest(shop) == Rest()
    assert shop.replicas == 3


async def test_while_it_is_unknown_whether_an_update_was_made_it_counts(shop, caplog):
    shop.lost = [lambda: None] * 9
    assert await rest(shop) == Rest(is_asleep=True)
    assert "shop deployment/web may be scaled to zero: " in caplog.text


@pytest.mark.parametrize("code", [502, 504])
async def test_a_gateway_that_fails_may_have_passed_the_update_on(shop, code):
    shop.refuse("PUT", SCALE, code)
    assert await rest(shop) == Rest(is_asleep=True)


@pytest.mark.parametrize("code", [500, 503])
async def test_what_fails_twice_without_effect_is_named(shop, code):
    """An admission webhook, for example."""
    shop.refuse("PUT", SCALE, code, '{"message": "failed calling webhook"}')
    why = "cannot scale deployment/web to zero: failed calling webhook"
    assert await rest(shop) == Rest(why_not=why)


@pytest.mark.parametrize(("replicas", "is_asleep"), [(0, True), (1, False), (3, False)])
async def test_a_server_that_fails_twice_is_asked_what_came_of_it(shop, replicas, is_asleep):
    async def answer():
        shop.scale(replicas)
        return web.Response(text="{}", status=500)

    shop.refused["PUT", SCALE] = answer
    assert await rest(shop) == Rest(is_asleep=is_asleep)


async def test_an_update_that_was_lost_before_the_server_failed_may_have_been_made(shop):
    async def fail():
        return web.Response(text="{}", status=500)

    # aiohttp sends the first one again by itself.
    shop.lost = [lambda: None, lambda: shop.refused.update({("PUT", SCALE): fail})]
    assert await rest(shop) == Rest(is_asleep=True)
