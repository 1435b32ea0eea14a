"""Services that are broken for real, read from manifests: every observer names the cause.

A case is written, a client dials, and within a second the JSON has the cause; then the page,
``explain`` and the metric have it, too.
"""

from __future__ import annotations

import contextlib

import pytest

from tests.cluster.waiting import wait_for
from tests.node.broken_services import (
    CASES,
    CLOSING,
    RESETTING,
    SERVING,
    SILENT,
    Shown,
    cluster_ip,
    service_of,
    slices_of,
)
from tests.node.observers import OBSERVERS, Expected, dump, in_json
from tests.node.testbed import Testbed
from userspace_proxy.model import CauseCode

pytestmark = pytest.mark.netns

WITHIN_S = 1.0
BY_NAME = {case.name: case for case in CASES}
FIREWALL = Expected("labels", CauseCode.FIREWALL_DROPS, "may drop packets", Shown.NODE)
AWAY = Expected("labels", CauseCode.SOURCE_AWAY, "not YAML", Shown.NODE)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves nothing yet, and the pod "pod" with its ports."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", clients=("pod", "laptop")) as testbed:
        testbed.pod("pod").serve(tcp=SERVING, reset=RESETTING, close=CLOSING, silent=SILENT)
        testbed.serve()
        yield testbed


def expected(testbed, case):
    sentence = case.sentence.format(ip=testbed.ip("pod"))
    return Expected(case.name, case.code, sentence, case.shown, case.is_problem)


def write(testbed, case):
    objects = [service_of(case), *slices_of(case, testbed.ip("pod"))]
    testbed.agent.manifests.write_objects(objects, name=f"{case.name}.yaml")


def dial(testbed, case):
    """Let a client ask, and wait until it has noticed."""
    if case.dialled == "none":
        return
    address = (case.dialled or cluster_ip(case), 80)
    wait_for("the Service", lambda: testbed.agent.frontends(case.name))
    for _ in range(case.dials):
        with testbed[case.client].tcp() as sock, contextlib.suppress(OSError):
            # A client that is dropped would wait for minutes.
            sock.settimeout(5.0)
            sock.connect(address)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while sock.recv(4096):
                pass


def check(testbed, wanted):
    """Check that each observer names it."""
    agent = testbed.agent
    wait_for(
        f"{wanted.code} in the JSON",
        lambda: in_json(agent, wanted),
        deadline_s=WITHIN_S,
        hint=lambda: dump(agent, wanted),
    )
    silent = [name for name, names in OBSERVERS.items() if not names(agent, wanted)]
    assert silent == [], f"{wanted}: not named by {silent}"


@pytest.mark.parametrize(
    # Clients that a source range excludes aren't counted yet.
    "case",
    [case for case in CASES if case.code is not CauseCode.SOURCE_DENIED],
    ids=lambda case: case.name,
)
def test_the_cause_of_a_broken_service_is_named_everywhere_within_a_second(testbed, case):
    if case.needs:
        write(testbed, BY_NAME[case.needs])
        wait_for(case.needs, lambda: testbed.agent.frontends(case.needs))
    write(testbed, case)
    dial(testbed, case)
    check(testbed, expected(testbed, case))


def test_a_firewall_that_drops_packets_to_services_is_named_everywhere(testbed):
    write(testbed, BY_NAME["labels"])
    testbed.shell(
        "nft add table ip filter; nft add chain ip filter INPUT "
        "'{ type filter hook input priority 0; policy drop; }'; "
        "nft add rule ip filter INPUT iifname lo accept"
    )
    try:
        check(testbed, FIREWALL)
    finally:
        testbed.shell("nft delete table ip filter")


def test_manifests_that_can_not_be_read_are_named_everywhere(testbed):
    write(testbed, BY_NAME["labels"])
    testbed.agent.manifests.write_text("spec: {", name="broken.yaml")
    check(testbed, AWAY)
