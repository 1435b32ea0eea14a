import pytest

from tests.unit.status.views import make_address
from userspace_proxy.explain.next_command import next_command
from userspace_proxy.facts import SourceFacts
from userspace_proxy.model import Cause, CauseCode
from userspace_proxy.policy.causes import resets

from .subjects import make_subject

LIVE = make_subject()
FROM_FILES = make_subject(source=SourceFacts("manifests", "shop.yaml", is_synced=True))
PLANNED = make_subject(is_live=False)
API, FILES = ("--kubeconfig=k",), ("--manifests=m",)
EMPTY = Cause(CauseCode.SLICE_EMPTY, "empty", "shop/web")
DEAD = resets(make_address("[fd00::1]:80"))
ODD = Cause(CauseCode("a-code-of-a-newer-proxy"), "?")


@pytest.mark.parametrize(
    ("cause", "subject", "options", "command"),
    [
        pytest.param(
            EMPTY, LIVE, {}, "kubectl get pods -n shop --show-labels", id="about-the-service"
        ),
        pytest.param(
            DEAD,
            LIVE,
            {},
            "kubectl get pods -A -o wide --field-selector status.podIP=fd00::1",
            id="about-an-endpoint",
        ),
        pytest.param(
            EMPTY,
            PLANNED,
            {"asked": API},
            "userspace-proxy explain shop/web --kubeconfig=k --pods",
            id="the-pods-are-next",
        ),
        pytest.param(
            EMPTY,
            PLANNED,
            {"asked": API, "has_pods": True},
            "kubectl get pods -n shop --show-labels",
            id="the-pods-were-looked-at",
        ),
        pytest.param(
            DEAD,
            FROM_FILES,
            {},
            "userspace-proxy explain shop/web --probe",
            id="without-a-cluster",
        ),
        pytest.param(
            EMPTY,
            FROM_FILES,
            {"asked": ("--server=:1",)},
            "userspace-proxy status shop/web --server=:1",
            id="status-has-the-rest",
        ),
        pytest.param(
            EMPTY, PLANNED, {"asked": FILES}, "userspace-proxy check --manifests=m", id="manifests"
        ),
        pytest.param(ODD, LIVE, {}, "userspace-proxy status shop/web", id="unknown-code"),
        pytest.param(None, LIVE, {}, "userspace-proxy explain shop/web --probe", id="served"),
        pytest.param(
            None,
            LIVE,
            {"has_dialled": True},
            "userspace-proxy status shop/web",
            id="served-and-dialled",
        ),
    ],
)
def test_the_next_command_fits_the_cause_and_the_source(cause, subject, options, command):
    assert next_command(cause, subject, **options) == command
