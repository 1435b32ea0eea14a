"""Tests of finding nodes whose plan differs from the API server's state in two checks."""

from types import SimpleNamespace

import msgspec
import pytest

from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.plan.digest import FORM, bucket_of, summary_of
from userspace_proxy.status.http_answer import Unreadable
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer
from userspace_proxy_kubectl.nodes.behind import ASKED_MAX, BEHIND_S, Behind
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_status import status_of

OURS = {"shop/web": "00000001", "shop/cart": "00000002", "shop/pay": "00000003"}
STATUS = status_of([], "node-1")


class OwnPlans(SimpleNamespace):
    """The digests of the plans that this machine makes from the API server's objects."""

    planned_at, unread, former = 1.0, frozenset(), ()

    @property
    def summary(self):
        return summary_of(self.digests)

    def had(self, digest, _within_s):
        return digest in (self.summary[0], *self.former)


class Nodes:
    """Nodes with plans; records which nodes are queried."""

    def __init__(self):
        self.plans = {}
        self.asked = []
        self.form = FORM
        self.is_readable = True

    def answers(self):
        return {node: self._answer(node, plan) for node, plan in sorted(self.plans.items())}

    def _answer(self, node, plan):
        digest, buckets = summary_of(plan)
        facts = PlanFacts(self.form, digest, len(plan), buckets)
        status = msgspec.structs.replace(STATUS, plan=facts)
        return AgentAnswer(node, (ForwardTarget("kube-system", node, 10249),), status)

    async def read(self, to, path, kind, bounds):
        self.asked.append(to.pod)
        if not self.is_readable:
            raise Unreadable("it isn't HTTP")
        wanted = {int(word) for word in path.partition("?bucket=")[2].split("&bucket=")}
        plan = self.plans[to.pod]
        digests = {name: one for name, one in plan.items() if bucket_of(name) in wanted}
        return kind(FORM, digests)


@pytest.fixture
def nodes():
    return Nodes()


@pytest.fixture
def plans():
    return OwnPlans(digests=OURS)


@pytest.fixture
def look(nodes, plans):
    """Return a function that advances the clock, checks, and returns the nodes behind."""
    now = [100.0]
    behind = Behind(nodes, plans, clock=lambda: now[0])

    async def look(after_s=0.0):
        now[0] += after_s
        await behind.look(nodes.answers(), old_s=0.0)
        return behind.services, behind.is_sure

    return look


async def test_a_node_with_the_same_plan_is_not_queried(nodes, look):
    nodes.plans["node-1"] = dict(OURS)
    assert await look() == ({}, True)
    assert nodes.asked == []


async def test_services_differing_for_more_than_two_seconds_are_behind(nodes, look):
    nodes.plans["node-1"] = {**OURS, "shop/web": "old"}
    nodes.plans["node-2"] = {"shop/cart": OURS["shop/cart"], "shop/gone": "00000009"}
    assert await look() == ({}, False)
    assert await look(BEHIND_S - 0.1) == ({}, False)
    both = ("shop/gone", "shop/pay", "shop/web")
    assert await look(0.2) == ({"node-1": ("shop/web",), "node-2": both}, True)


@pytest.mark.parametrize("is_readable", [True, False], ids=["caught-up", "unread"])
async def test_a_node_that_caught_up_or_cannot_be_read_is_not_behind(nodes, look, is_readable):
    nodes.plans["node-1"] = {**OURS, "shop/web": "old"}
    await look()
    assert (await look(3))[0]
    nodes.plans["node-1"] |= OURS if is_readable else {}
    nodes.is_readable = is_readable
    assert await look(1) == ({}, True)


async def test_a_change_of_the_api_objects_restarts_the_comparison(nodes, plans, look):
    nodes.plans["node-1"] = {**OURS, "shop/web": "old"}
    await look()
    plans.digests = {**OURS, "shop/web": "00000004"}
    assert await look(BEHIND_S + 1) == ({}, False)
    assert await look(BEHIND_S) == ({"node-1": ("shop/web",)}, True)


async def test_a_node_whose_plan_was_recently_current_is_not_queried(nodes, plans, look):
    nodes.plans["node-1"] = {**OURS, "shop/web": "old"}
    plans.former = (summary_of(nodes.plans["node-1"])[0],)
    assert await look() == ({}, True)
    assert nodes.asked == []


async def test_a_service_unreadable_for_this_machine_is_not_compared(nodes, plans, look):
    nodes.plans["node-1"] = {**OURS, "shop/web": "old"}
    plans.unread = frozenset({"shop/web"})
    await look()
    assert await look(3) == ({}, True)


@pytest.mark.parametrize("form", [0, FORM + 1])
async def test_an_agent_with_another_digest_form_cannot_be_compared(nodes, look, form):
    nodes.plans["node-1"], nodes.form = {}, form
    assert await look() == ({}, True)
    assert nodes.asked == []


async def test_plans_are_not_compared_before_this_machine_has_digests(nodes, plans, look):
    nodes.plans["node-1"], plans.planned_at = {}, 0.0
    assert await look() == ({}, True)


async def test_a_comparison_queries_a_few_nodes_starting_with_the_differing_nodes(nodes, look):
    for number in range(ASKED_MAX + 5):
        nodes.plans[f"node-{number:02}"] = {**OURS, "shop/web": "old"}
    await look()
    assert len(nodes.asked) == ASKED_MAX
    found, _ = await look(3)
    assert len(found) == ASKED_MAX
    assert nodes.asked[ASKED_MAX:] == nodes.asked[:ASKED_MAX]
