"""One control process takes over from another while clients dial: no client is refused or reset."""

from __future__ import annotations

import pytest

from tests.node.manifests import with_endpoints
from tests.node.successions import (
    PODS,
    SERVED,
    Succession,
    assert_unnoticed,
    kill_control,
    send_sigusr1,
    take_back,
    take_over,
)
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

CLIENTS = ("pod", "laptop", "node-1")
STEERINGS = ("nftables", "iptables", "local")
SUCCESSIONS = (
    take_over,
    kill_control,
    send_sigusr1,
    pytest.param(take_back, marks=pytest.mark.long),
)
DRAIN = "--drain-timeout=30s"


def serve(testbed: Testbed) -> None:
    ips = testbed.add_pods(*PODS, tcp=8080, udp=53)
    testbed.serve(*(with_endpoints(service, ips) for service in SERVED))


@pytest.fixture(scope="module", params=steerings(*STEERINGS))
def testbed(request, tmp_path_factory):
    """A node whose agent serves after each test; nothing is left at the end."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, "--workers=2", DRAIN, clients=CLIENTS) as testbed:
        serve(testbed)
        yield testbed
        assert testbed.agent.stop() == 0
        assert "userspace-proxy" not in testbed.rules()


@pytest.mark.parametrize("succeed", SUCCESSIONS)
def test_a_takeover_refuses_and_resets_no_client(testbed: Testbed, succeed: Succession) -> None:
    assert_unnoticed(testbed, succeed)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        pytest.param(
            ["--dns-bind-address=203.0.113.99:53"],
            "cannot serve DNS on 203.0.113.99:53: Cannot assign requested address",
            id="dns",
        ),
        pytest.param(
            ["--socket-lb=required", "--socket-lb-cgroup=/nowhere"], "connect()", id="hooks"
        ),
    ],
)
def test_a_process_that_cannot_start_requests_no_handover(testbed, flags, why):
    before = testbed.agent.log().count("handed over")
    done = testbed.agent.run("--take-over", *flags)
    assert done.returncode == 1
    assert why in done.stderr
    assert testbed.agent.log().count("handed over") == before
    assert testbed.agent.is_healthy()
