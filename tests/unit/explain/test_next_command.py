import pytest

from tests.unit.status.views import make_address, make_endpoint, make_port
from userspace_proxy.causes.cause import as_read
from userspace_proxy.causes.endpoints import resets
from userspace_proxy.causes.say import object_of
from userspace_proxy.causes.services import not_listening
from userspace_proxy.causes.slices import none_ready, none_undrained
from userspace_proxy.explain.next_command import Asked, next_command
from userspace_proxy.facts import SourceFacts
from userspace_proxy.model import CauseCode, Protocol

from .subjects import make_subject

LIVE = make_subject()
FILES_SOURCE = SourceFacts("manifests", "shop.yaml", is_synced=True)
FROM_FILES = make_subject(source=FILES_SOURCE)
PLANNED = make_subject(is_live=False)
API, FILES = {"source": ("--kubeconfig=k",)}, {"source": ("--manifests=m",)}
EMPTY = as_read(CauseCode.SLICE_EMPTY, "empty", "shop/web")
FORBIDDEN = as_read(CauseCode.ENDPOINT_NOT_ALLOWED, "not dialled", "db.example.com")
DEAD = resets(make_address("[fd00::1]:80"))
ODD = as_read(CauseCode("a-code-of-a-newer-proxy"), "?")


NOT_READY = none_ready(2, 0, "pods -n shop -l app=web")
DRAINED = none_undrained(1, ("drained",), "shop/web")
DROPPED = not_listening(
    "nftables chain ip admin raw of another program (prerouting, priority -300) drops packets",
    "",
    "ip admin raw",
)
UNOPENED = not_listening("Address already in use", "")
UDP = make_subject(make_port(protocol=Protocol.UDP), source=FILES_SOURCE)


@pytest.mark.parametrize(
    ("cause", "subject", "asked", "command"),
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
            FORBIDDEN,
            LIVE,
            {},
            "kubectl get endpointslices -n shop -l kubernetes.io/service-name=web -o yaml",
            id="about-a-name",
        ),
        pytest.param(
            DRAINED,
            PLANNED,
            API,
            "kubectl get endpointslices -n shop -l kubernetes.io/service-name=web -o yaml "
            "--kubeconfig=k",
            id="what-its-slices-drain",
        ),
        pytest.param(FORBIDDEN, FROM_FILES, {}, "", id="what-is-not-dialled"),
        pytest.param(
            EMPTY,
            PLANNED,
            API,
            "userspace-proxy explain shop/web --kubeconfig=k --pods",
            id="the-pods-are-next",
        ),
        pytest.param(
            EMPTY,
            PLANNED,
            {**API, "has_pods": True},
            "kubectl get pods -n shop --show-labels --kubeconfig=k",
            id="the-pods-were-looked-at",
        ),
        pytest.param(
            NOT_READY,
            PLANNED,
            {"source": ("--master=https://a:1", "--hostname-override=n"), "has_pods": True},
            "kubectl describe pods -n shop --server=https://a:1",
            id="kubectl-has-other-flags",
        ),
        pytest.param(
            DEAD,
            FROM_FILES,
            {},
            "userspace-proxy explain shop/web --probe",
            id="without-a-cluster",
        ),
        pytest.param(DEAD, FROM_FILES, {"has_dialled": True}, "", id="dialled"),
        pytest.param(DEAD, FROM_FILES, {"can_dial": False}, "", id="cannot-be-dialled"),
        pytest.param(DEAD, UDP, {}, "", id="udp-is-not-dialled"),
        pytest.param(EMPTY, FROM_FILES, {"source": ("--server=:1",)}, "", id="all-is-said"),
        pytest.param(EMPTY, PLANNED, FILES, "", id="all-of-manifests-is-said"),
        pytest.param(UNOPENED, FROM_FILES, {}, "ss -Hlntup", id="about-the-node"),
        pytest.param(UNOPENED, FROM_FILES, {"is_elsewhere": True}, "", id="another-node"),
        pytest.param(DROPPED, LIVE, {}, "nft list chain ip admin raw", id="another-programs-chain"),
        pytest.param(DROPPED, LIVE, {"is_elsewhere": True}, "", id="a-chain-of-another-node"),
        pytest.param(ODD, LIVE, {}, "", id="unknown-code"),
        pytest.param(None, LIVE, {}, "userspace-proxy explain shop/web --probe", id="served"),
        pytest.param(None, LIVE, {"has_dialled": True}, "", id="served-and-dialled"),
        pytest.param(
            None,
            LIVE,
            {"program": ("python3", "-m", "userspace_proxy"), "others": ("--from=192.0.2.1",)},
            "python3 -m userspace_proxy explain shop/web --from=192.0.2.1 --probe",
            id="as-it-was-asked",
        ),
        pytest.param(
            None,
            LIVE,
            {"program": ("/opt/a b/userspace-proxy",)},
            "'/opt/a b/userspace-proxy' explain shop/web --probe",
            id="quoted",
        ),
    ],
)
def test_the_next_command_fits_the_cause_and_the_source(cause, subject, asked, command):
    assert next_command(cause, subject, Asked(**asked)) == command


@pytest.mark.parametrize(
    ("cause", "command"),
    [
        pytest.param(NOT_READY, "kubectl describe pod -n shop web-7", id="not-ready"),
        pytest.param(EMPTY, "kubectl edit service -n shop web", id="other-labels"),
        pytest.param(
            DEAD,
            "kubectl get pods -A -o wide --field-selector status.podIP=fd00::1",
            id="another-matter",
        ),
    ],
)
def test_the_next_command_is_about_the_pod_that_was_named(cause, command):
    assert next_command(cause, LIVE, Asked(has_pods=True), pod="web-7") == command


def test_no_command_is_the_one_that_was_just_run():
    for cause in (None, *(as_read(code, "?", "10.0.0.1:80") for code in CauseCode)):
        for subject in (LIVE, FROM_FILES, PLANNED):
            for source in ((), ("--kubeconfig=k",), ("--manifests=m",)):
                asked = Asked(source=source, has_dialled=True, has_pods=True)
                command = next_command(cause, subject, asked)
                assert command != asked.again("shop/web")
                assert " status " not in command
                assert " check " not in command


def test_kubectl_is_not_asked_about_a_host_outside_the_cluster():
    host = make_endpoint(object_of(DEAD), host="db.example.com")
    subject = make_subject(make_port(endpoints=(host,)), service="shop/web")
    again = "userspace-proxy explain shop/web --kubeconfig=k --probe"
    assert next_command(DEAD, subject, Asked(**API)) == again
    assert next_command(DEAD, subject, Asked(**API, has_dialled=True)) == ""
