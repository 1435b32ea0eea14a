"""The autoscalers and disruption budgets that require the last replica."""

import time

import pytest

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.model.annotations import TEXT_MAX
from userspace_proxy.model.wire import WireAutoscaler, WireBudget, convert
from userspace_proxy.sources.kubernetes.replicas_wanted import autoscaler_of, budget_of, labels_of

WEB = Workload(WorkloadKind.DEPLOYMENT, "web")
PODS = {"app": "web"}


def autoscaler(kind="Deployment", name="web", **spec):
    target = {"kind": kind, "name": name}
    return {"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, **spec}}


def budget(selector=None, **spec):
    selector = {"matchLabels": {"app": "web"}} if selector is None else selector
    item = {"metadata": {"name": "b"}, "spec": {"selector": selector, **spec}}
    return convert(item, WireBudget)


@pytest.mark.parametrize(
    ("item", "why"),
    [
        pytest.param(autoscaler(), "HorizontalPodAutoscaler a has minReplicas 1", id="default"),
        pytest.param(
            autoscaler(minReplicas=2), "HorizontalPodAutoscaler a has minReplicas 2", id="two"
        ),
        pytest.param(autoscaler(minReplicas=0), "", id="zero"),
        pytest.param(autoscaler(kind="StatefulSet"), "", id="another-kind"),
        pytest.param(autoscaler(name="api"), "", id="another-name"),
        pytest.param({}, "", id="empty"),
    ],
)
def test_an_autoscaler_of_the_workload_is_reported_unless_its_minimum_is_zero(item, why):
    assert autoscaler_of(WEB, [convert(item, WireAutoscaler)]) == why


@pytest.mark.parametrize(
    ("spec", "wish"),
    [
        ({"minAvailable": 1}, "minAvailable 1"),
        ({"minAvailable": "50%"}, "minAvailable 50%"),
        ({"minAvailable": 0}, ""),
        ({"minAvailable": "0%"}, ""),
        ({"maxUnavailable": 0}, "maxUnavailable 0"),
        ({"maxUnavailable": "0%"}, "maxUnavailable 0%"),
        ({"maxUnavailable": 1}, ""),
        ({"maxUnavailable": "30%"}, ""),
        ({}, "neither minAvailable nor maxUnavailable"),
        ({"minAvailable": "some"}, "minAvailable some"),
    ],
)
def test_a_disruption_budget_is_reported_if_it_protects_the_last_pod(spec, wish):
    assert budget_of(PODS, [budget(**spec)]) == (
        f"PodDisruptionBudget b has {wish}" if wish else ""
    )


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "api"}}, False),
        ({"matchLabels": {"tier": "front"}}, True),
        ({"matchLabels": {"tier": "front", "app": "api"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["api"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_a_budget_is_respected_only_if_its_selector_may_match(selector, matches):
    other = budget({"matchLabels": {"app": "other"}}, minAvailable=1)
    assert bool(budget_of(PODS, [other, budget(selector, minAvailable=1)])) is matches


def test_a_budget_without_a_selector_selects_nothing():
    item = convert({"spec": {"minAvailable": 1}}, WireBudget)
    assert budget_of(PODS, [item]) == ""


@pytest.mark.parametrize(
    ("selector", "labels"),
    [
        ("app=web,tier==front", {"app": "web", "tier": "front"}),
        ("app in (web),tier in (a,b)", {"app": "web"}),
        ("!app,tier,env!=prod,zone notin (a)", {}),
        ("tier in (a,b), app = web ,zone in ( c )", {"app": "web", "zone": "c"}),
        ("app=,tier in (a=b,c)", {"app": ""}),
        ("=web,!=prod,app web=x,tier in", {}),
        ("example.com/app=web", {"example.com/app": "web"}),
        ("", {}),
        (f"app=web,{'a' * TEXT_MAX}", {}),
    ],
)
def test_labels_required_by_a_selector_are_returned(selector, labels):
    assert labels_of(selector) == labels


@pytest.mark.parametrize("text", ["a", "a ", "(", "(,", ",", "=", " ", "a in ", "a in ("])
def test_a_selector_is_parsed_in_linear_time(text):
    selector = (text * TEXT_MAX)[:TEXT_MAX]
    began = time.thread_time()
    labels_of(selector)
    # Parsing in quadratic time takes up to a second.
    assert time.thread_time() - began < 0.5
