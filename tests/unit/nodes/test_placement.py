"""Tests of selecting the nodes of a DaemonSet as its controller does."""

import pytest

from userspace_proxy_kubectl.nodes.placement import lacking, read_daemon_set, read_node_state

from .objects import node, written

LINUX = {"kubernetes.io/os": "linux"}
ALL = [{"operator": "Exists"}]
GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def daemon_set(*, wanted=None, terms=None, **spec):
    affinity = {}
    if terms is not None:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        affinity = {"affinity": {"nodeAffinity": required}}
    status = {} if wanted is None else {"desiredNumberScheduled": wanted, "observedGeneration": 1}
    item = {"spec": {"template": {"spec": {**spec, **affinity}}}, "status": status}
    return read_daemon_set(written(item))


def state(name="node-1", **options):
    return read_node_state(written(node(name, **options)))


def test_a_daemon_set_includes_only_nodes_matching_its_selector():
    chart = daemon_set(nodeSelector=LINUX, tolerations=ALL)
    assert chart.includes(state(**LINUX))
    assert not chart.includes(state(**{"kubernetes.io/os": "windows"}))


@pytest.mark.parametrize(
    ("tolerations", "is_meant"),
    [
        pytest.param([], False, id="none"),
        pytest.param(ALL, True, id="all"),
        pytest.param([{"key": "gpu", "operator": "Exists"}], True, id="key"),
        pytest.param([{"key": "gpu", "value": "yes"}], True, id="value"),
        pytest.param([{"key": "gpu", "value": "no"}], False, id="another-value"),
        pytest.param([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False, id="e"),
        pytest.param([{"key": "cpu", "operator": "Exists"}], False, id="another-key"),
    ],
)
def test_a_daemon_set_includes_only_nodes_whose_taints_it_tolerates(tolerations, is_meant):
    assert daemon_set(tolerations=tolerations).includes(state(taints=[GPU])) is is_meant


def test_only_preferences_and_taints_that_every_daemon_set_tolerates_are_ignored():
    unready = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    mild = {"key": "gpu", "effect": "PreferNoSchedule"}
    assert daemon_set().includes(state(taints=[unready, mild]))
    evicting = {"key": "gpu", "effect": "NoExecute"}
    assert not daemon_set().includes(state(taints=[evicting]))
    assert daemon_set(tolerations=[{"key": "gpu", "value": ""}]).includes(state(taints=[evicting]))


@pytest.mark.parametrize(
    ("expression", "is_meant"),
    [
        pytest.param({"operator": "In", "values": ["a", "b"]}, True, id="in"),
        pytest.param({"operator": "In", "values": ["b"]}, False, id="in-other-values"),
        pytest.param({"operator": "NotIn", "values": ["a"]}, False, id="not-in"),
        pytest.param({"operator": "Exists"}, True, id="exists"),
        pytest.param({"operator": "DoesNotExist"}, False, id="does-not-exist"),
        pytest.param({"operator": "Gt", "values": ["1"]}, True, id="unsupported-operator"),
    ],
)
def test_a_daemon_set_includes_only_nodes_matching_its_affinity(expression, is_meant):
    terms = [{"matchExpressions": [{"key": "pool", **expression}]}]
    assert daemon_set(terms=terms).includes(state(pool="a")) is is_meant
    either = [*terms, {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]
    assert daemon_set(terms=either).includes(state(pool="a"))
    terms[0]["matchExpressions"].append({"key": "pool", "operator": "DoesNotExist"})
    assert not daemon_set(terms=terms).includes(state(pool="a"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"type": "virtual-kubelet"}, id="label"),
        pytest.param({"eks.amazonaws.com/compute-type": "fargate"}, id="fargate"),
        pytest.param(
            {"taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]},
            id="taint",
        ),
    ],
)
def test_a_node_without_its_own_kernel_is_excluded(options):
    assert not daemon_set(tolerations=ALL).includes(state(**options))


def test_the_reason_why_a_node_is_unready_is_returned():
    assert state(ready="Unknown").reason == "kubelet has stopped"
    assert state().reason == ""


def test_targeted_nodes_without_a_pod_are_listed():
    nodes = [state(name, **LINUX) for name in ("node-3", "node-1", "node-2")]
    nodes.append(state("windows-1"))
    chart = daemon_set(nodeSelector=LINUX)
    assert lacking(nodes, [chart], ["node-1"]) == ("node-2", "node-3")
    assert lacking(nodes, [], ["node-1"]) == ()


def test_no_node_lacks_an_agent_if_the_daemon_sets_desired_number_is_running():
    nodes = [state(name) for name in ("node-1", "node-2")]
    assert lacking(nodes, [daemon_set(wanted=1)], ["node-1"]) == ()
    assert lacking(nodes, [daemon_set(wanted=2)], ["node-1"]) == ("node-2",)
    assert lacking(nodes, [daemon_set(wanted=1)] * 2, ["node-1"]) == ("node-2",)
    # The status has no counts until the controller has processed the DaemonSet.
    assert lacking(nodes, [daemon_set()], ["node-1"]) == ("node-2",)
    assert lacking(nodes, [daemon_set(wanted=1), daemon_set()], ["node-1"]) == ("node-2",)
