"""Services that are broken for real, read from manifests: every observer names the cause.

A case is written, a client dials, and the JSON has the cause soon; once it has, the page,
``explain`` and the metric have it, too.
"""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.broken_services import (
    CASES,
    CLOSING,
    RESETTING,
    SERVING,
    SILENT,
    Case,
    Pod,
    Shown,
    ask,
    firewall,
    service_of,
    slices_of,
)
from tests.node.observers import FIREWALL, Expected, check, expected_of
from tests.node.testbed import Testbed
from userspace_proxy.model import CauseCode

pytestmark = pytest.mark.netns

BY_NAME = {case.name: case for case in CASES}
AWAY = Expected("labels", CauseCode.SOURCE_AWAY, "not YAML", Shown.NODE)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves nothing yet, and the pod "pod" with its ports."""
    folder = tmp_path_factory.mktemp("agent")
    flags = ("--allow-faults",)
    with Testbed(folder, "nftables", *flags, clients=("pod", "laptop")) as testbed:
        testbed.pod("pod").serve(tcp=SERVING, reset=RESETTING, close=CLOSING, silent=SILENT)
        testbed.serve()
        yield testbed


def write(testbed, case):
    objects = [service_of(case), *slices_of(case, testbed.ip("pod"))]
    testbed.agent.manifests.write_objects(objects, name=f"{case.name}.yaml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_of_a_broken_service_is_named_everywhere(testbed, case):
    if case.needs:
        write(testbed, BY_NAME[case.needs])
        wait_for(case.needs, lambda: testbed.agent.frontends(case.needs))
    write(testbed, case)
    ask(testbed.agent, testbed[case.client], case)
    check(testbed.agent, expected_of(case, testbed.ip("pod")))


def test_a_firewall_that_drops_packets_to_services_is_named_everywhere(testbed):
    write(testbed, BY_NAME["labels"])
    with firewall(testbed):
        check(testbed.agent, FIREWALL)


def test_manifests_that_can_not_be_read_are_named_everywhere(testbed):
    write(testbed, BY_NAME["labels"])
    testbed.agent.manifests.write_text("spec: {", name="broken.yaml")
    check(testbed.agent, AWAY)


def dial(client, ip):
    """Dial, and wait for a byte: a reset may arrive during either."""
    client.connect((ip, 80))
    client.recv(1)


def test_a_fault_on_purpose_is_named_everywhere_and_is_no_failure(testbed):
    case = Case("faulty", CauseCode.FAULT_ON_PURPOSE, "", pod=Pod())
    service = service_of(case, ip="10.96.2.200")
    service["metadata"]["annotations"] = {"userspace-proxy.io/fault": "refuse"}
    objects = [service, *slices_of(case, testbed.ip("pod"))]
    testbed.agent.manifests.write_objects(objects, name="faulty.yaml")
    wait_for("the Service", lambda: testbed.agent.frontends("faulty"))
    with testbed["pod"].tcp() as client, pytest.raises(ConnectionResetError):
        dial(client, "10.96.2.200")
    sentence = f"{testbed.ip('pod')}:80 has a fault on purpose: refuse"
    check(testbed.agent, Expected("faulty", CauseCode.FAULT_ON_PURPOSE, sentence, Shown.PORT))
