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
    ("pods", "what", "hint"),
    [
        pytest.param(
            [],
            "No pod in shop has the labels app=web; there are no pods in shop",
            "",
            id="no-pods",
        ),
        pytest.param(
            [pod("a", app="wbe"), pod("b", app="cart")],
            "No pod in shop has the labels app=web; pod a has app=wbe",
            "Did you mean app=wbe?",
            id="similar-value",
        ),
        pytest.param(
            [pod("a", app="Web")],
            "No pod in shop has the labels app=web; pod a has app=Web",
            "Did you mean app=Web?",
            id="upper-case",
        ),
        pytest.param(
            [pod("a", ap="web")],
            "No pod in shop has the labels app=web; pod a has ap=web",
            "Did you mean ap=web?",
            id="similar-label",
        ),
        pytest.param(
            [pod("a", role="x"), pod("b", role="y")],
            "No pod in shop has the labels app=web; the labels there are role=x, role=y",
            "",
            id="nothing-similar",
        ),
    ],
)
def test_labels_that_no_pod_has(pods, what, hint):
    (step,) = judge(*pods)
    assert (step.level, step.what, step.hint) == (Level.TROUBLE, what, hint)


def test_pods_without_labels_are_mentioned():
    (step,) = judge(PodState("a", (), True, "", ()))
    assert step.what.endswith("the labels there are none")


@pytest.mark.parametrize(
    ("pods", "what"),
    [
        pytest.param(
            [pod(why_not="it crashes")],
            "The only pod with the labels app=web is not ready",
            id="one",
        ),
        pytest.param(
            [pod(why_not="it crashes"), pod("web-2", "its phase is Failed")],
            "None of the 2 pods with the labels app=web is ready",
            id="two",
        ),
    ],
)
def test_pods_that_are_not_ready_have_their_reasons(pods, what):
    (step,) = judge(*pods)
    assert (step.level, step.what) == (Level.TROUBLE, what)
    assert step.details == tuple((Level.ATTENTION, f"{p.name}: {p.why_not}") for p in pods)


def test_ready_pods_are_no_problem():
    (step,) = judge(pod(), pod("web-2", "it crashes"), targets=["http"])
    assert (step.level, step.what) == (Level.OK, "1 of 2 pods ready")
    assert step.details == ((Level.ATTENTION, "web-2: it crashes"),)


@pytest.mark.parametrize(
    ("ports", "have"), [(("web", "admin"), '"admin", "web"'), ((), "no named port")]
)
def test_a_target_port_that_no_container_has(ports, have):
    _, step = judge(pod(ports=ports), targets=["http"], has_endpoints=False)
    assert step.level is Level.TROUBLE
    assert step.what == f'targetPort "http" is no port of the pods\' containers; they have {have}'


@pytest.mark.parametrize(
    ("pods", "which"),
    [([pod()], "1 pod is ready"), ([pod(), pod("web-2")], "2 pods are ready")],
)
def test_ready_pods_in_no_slice_are_the_controllers_problem(pods, which):
    _, step = judge(*pods, has_endpoints=False)
    assert step.what == f"{which}, and no EndpointSlice contains them"
    assert "kube-controller-manager" in step.hint


def test_without_a_selector_no_pod_belongs_to_a_service():
    (step,) = judge(service=Service(ServiceKey("shop", "db"), ()))
    assert step.level is Level.OK
    assert step.what.startswith("It has no selector")


def test_a_port_that_some_pods_lack_is_named_with_them():
    _, step = judge(pod(), pod("web-2", ports=()), targets=["http"])
    assert (step.level, step.what) == (
        Level.ATTENTION,
        '1 of 2 pods lack the port "http": web-2',
    )


def test_a_target_port_that_no_container_lists_is_compared_with_those_that_they_do():
    _, step = judge(pod(), targets=[9090])
    assert (step.level, step.what) == (
        Level.ATTENTION,
        "targetPort 9090 is no containerPort of its pods; they have 8080",
    )


@pytest.mark.parametrize("numbers", [(8080, 9090), ()], ids=["listed", "none-listed"])
def test_a_target_port_that_a_container_lists_is_right_and_none_has_to(numbers):
    (step,) = judge(pod(numbers=numbers), targets=[9090])
    assert step.level is Level.OK
