from dataclasses import replace

import pytest

from userspace_proxy.explain.pods import foreign_slices, judge_pods
from userspace_proxy.facts import Level
from userspace_proxy.model import Service, ServiceKey
from userspace_proxy.model.endpoints import CONTROLLER
from userspace_proxy.model.pods import PodState

from .words import SLICES, is_on_the_page, listing

WEB = Service(ServiceKey("shop", "web"), (), selector=(("app", "web"),))


def pod(name="web-1", reason="", ports=("http",), numbers=(8080,), **labels):
    labels = labels or {"app": "web"}
    return PodState(name, tuple(sorted(labels.items())), not reason, reason, ports, numbers)


def judge(*pods, targets=()):
    return judge_pods(WEB, targets, pods, listing(*pods))


@pytest.mark.parametrize(
    ("pods", "near"),
    [
        pytest.param([pod("a", app="Web")], "app=Web", id="upper-case"),
        pytest.param([pod("a", ap="web")], "ap=web", id="similar-label"),
    ],
)
def test_the_pod_with_nearly_matching_labels_is_named(pods, near):
    (step,) = judge(*pods)
    assert (step.level, step.pod, bool(step.hint)) == (Level.TROUBLE, "a", True)
    assert step.what.endswith(near)


@pytest.mark.parametrize("numbers", [(8080, 9090), ()], ids=["listed", "none-listed"])
def test_a_target_port_need_not_be_listed_by_a_container(numbers):
    (step,) = judge(pod(numbers=numbers), targets=[9090])
    assert step.level is Level.OK


def test_a_pod_in_a_slice_not_made_from_pods_must_have_the_address():
    (item,) = listing(pod(), manager="vm-sync")
    well, other = (replace(pod(), ips=(ip,)) for ip in (item.endpoints[0].ip, "10.244.9.9"))
    managed, service = replace(item, manager=CONTROLLER), Service(WEB.key, ())
    for one, of, is_right in ((well, item, 1), (other, item, 0), (other, managed, 1)):
        for first, *others in (judge_pods(s, (), [one], [of]) for s in (WEB, service)):
            assert (first.level is Level.OK, len(others)) == (is_right, not is_right)
    (_, step) = judge_pods(service, (), [pod("web-2")], [managed, item])
    assert (step.level, "vm-sync" in step.what) == (Level.ATTENTION, True)
    assert foreign_slices(WEB, [item], has_pods=True) == []


def test_the_recorded_page_contains_the_texts_of_pods():
    assert is_on_the_page("pods")


@pytest.mark.parametrize(
    ("slices", "service", "count"),
    [
        (SLICES["written by a program"], WEB, 1),
        (SLICES["written by hand"], WEB, 1),
        (listing(pod(), manager="vm-sync"), WEB, 1),
        (SLICES["written by hand"], Service(WEB.key, ()), 0),
        ([replace(SLICES["many"][0], manager=CONTROLLER)], WEB, 0),
        (SLICES["many"] * 99, WEB, 10),
    ],
)
def test_only_slices_not_made_from_the_pods_of_a_selector_are_named(slices, service, count):
    steps = foreign_slices(service, slices)
    assert [step.level for step in steps] == [None] * count
    assert all(str(slices[0].key) in step.what for step in steps)
