import pytest

from userspace_proxy.explain.pods import judge_pods
from userspace_proxy.facts import Level
from userspace_proxy.model import Service, ServiceKey
from userspace_proxy.model.pods import PodState

WEB = Service(ServiceKey("shop", "web"), (), selector=(("app", "web"),))


def pod(name="web-1", why_not="", ports=("http",), numbers=(8080,), **labels):
    labels = labels or {"app": "web"}
    return PodState(name, tuple(sorted(labels.items())), not why_not, why_not, ports, numbers)


def judge(*pods, targets=(), has_endpoints=True, service=WEB):
    return judge_pods(service, targets, pods, has_endpoints=has_endpoints)


@pytest.mark.parametrize(
    ("pods", "near"),
    [
        pytest.param([], "", id="no-pods"),
        pytest.param([pod("a", app="wbe"), pod("b", app="cart")], "app=wbe", id="similar-value"),
        pytest.param([pod("a", app="Web")], "app=Web", id="upper-case"),
        pytest.param([pod("a", ap="web")], "ap=web", id="similar-label"),
        pytest.param([pod("a", role="x"), pod("b", role="y")], "", id="nothing-similar"),
        pytest.param([PodState("a", (), True, "", ())], "", id="no-labels"),
    ],
)
def test_the_pod_that_nearly_has_the_labels_is_named(pods, near):
    (step,) = judge(*pods)
    assert (step.level, step.pod) == (Level.TROUBLE, "a" if near else "")
    assert bool(step.hint) is bool(near)
    assert step.what.endswith(near)


CRASHES, FAILED, UNNAMED = pod(why_not="it crashes"), pod("b", "it failed"), pod("b", ports=())


@pytest.mark.parametrize(
    ("pods", "changes", "levels"),
    [
        pytest.param([pod()], {"targets": ["http", 8080]}, [Level.OK], id="ready"),
        pytest.param([CRASHES], {}, [Level.TROUBLE], id="not-ready"),
        pytest.param([CRASHES, FAILED], {}, [Level.TROUBLE], id="none-ready"),
        pytest.param([pod(), FAILED], {}, [Level.OK], id="some-ready"),
        pytest.param([pod()], {"has_endpoints": False}, [Level.OK, Level.TROUBLE], id="no-slice"),
        pytest.param([UNNAMED], {"targets": ["http"]}, [Level.OK, Level.TROUBLE], id="no-port"),
        pytest.param(
            [pod(ports=("web",))],
            {"targets": ["http"], "has_endpoints": False},
            [Level.OK, Level.TROUBLE],
            id="another-port",
        ),
        pytest.param(
            [pod(), UNNAMED], {"targets": ["http"]}, [Level.OK, Level.ATTENTION], id="some-lack-it"
        ),
        pytest.param(
            [pod()], {"targets": [9090]}, [Level.OK, Level.ATTENTION], id="another-number"
        ),
    ],
)
def test_pods_are_judged_and_those_that_are_not_ready_have_their_reasons(pods, changes, levels):
    first, *others = judge(*pods, **changes)
    assert [first.level, *(step.level for step in others)] == levels
    reasons = [(Level.ATTENTION, f"{p.name}: {p.why_not}") for p in pods if p.why_not]
    assert [*first.details] == reasons


def test_without_a_selector_no_pod_belongs_to_a_service():
    (step,) = judge(service=Service(ServiceKey("shop", "db"), ()))
    assert (step.level, step.pod) == (Level.OK, "")


@pytest.mark.parametrize("numbers", [(8080, 9090), ()], ids=["listed", "none-listed"])
def test_a_target_port_that_a_container_lists_is_right_and_none_has_to(numbers):
    (step,) = judge(pod(numbers=numbers), targets=[9090])
    assert step.level is Level.OK
