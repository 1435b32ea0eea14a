"""A control process without descriptors: probes are answered, and one line says so."""

import resource
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import ADMIN, HEALTH
from tests.node.clients import http_get
from tests.node.manifests import Service
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
# Far more than there are descriptors for.
MORE = tuple(Service(f"more-{number}", f"10.96.1.{number}") for number in range(1, 61))
FREE = 10
PROBES = 20
SILENT = 40


@pytest.fixture
def testbed(tmp_path):
    """A node with an agent that may open few more descriptors."""
    with Testbed(tmp_path, "nftables", "--workers=1") as testbed:
        testbed.serve(WEB)
        yield testbed


def limit_descriptors(testbed, most):
    """Set the limit of the control process alone; returns the one before."""
    soft, hard = resource.prlimit(testbed.agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(testbed.agent.pid, resource.RLIMIT_NOFILE, (most, hard))
    return soft


def highest_descriptor(testbed):
    return max(int(one.name) for one in Path(f"/proc/{testbed.agent.pid}/fd").iterdir())


def probe_all(testbed):
    address = (str(testbed.node.ip), HEALTH)
    return [
        *(http_get(testbed[name].tcp(), address, "/livez")[0] for name in ("node-1", "laptop")),
        http_get(testbed["laptop"].tcp(), address, "/healthz")[0],
        testbed.agent.read("/livez", port=ADMIN)[0],
    ]


def has_no_descriptor(testbed):
    return "cannot open listeners" in testbed.agent.log()


def unserved(testbed):
    return [port["service"] for port in testbed.agent.status()["ports"] if port["problem"]]


def test_probes_are_answered_while_no_descriptor_is_free(testbed):
    before = limit_descriptors(testbed, highest_descriptor(testbed) + 1 + FREE)
    testbed.edit(WEB, *MORE)
    wait_for("a shortage", lambda: has_no_descriptor(testbed), hint=testbed.agent.log)
    for _ in range(PROBES):
        assert probe_all(testbed) == [200] * 4, testbed.agent.log()
    for _ in range(SILENT):
        testbed["laptop"].dial((str(testbed.node.ip), HEALTH))
    assert probe_all(testbed) == [200] * 4, testbed.agent.log()
    testbed.hang_up()
    limit_descriptors(testbed, before)
    wait_for("every Service", lambda: not unserved(testbed), hint=testbed.agent.log)
    lines = testbed.agent.log().splitlines()
    assert len([line for line in lines if "cannot open listeners" in line]) == 1
    assert len([line for line in lines if "served again" in line]) == 1
    assert not [line for line in lines if "Traceback" in line]
