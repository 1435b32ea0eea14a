"""Broken Services, read from manifests: every observer shows the cause.

Soon after a client has dialled, the JSON has the cause; the page, ``explain`` and the metric have
it shortly afterwards.
"""

import asyncio
import json
import socket
import subprocess

import pytest

from tests.node.broken_services import (
    CASES,
    EMPTY,
    NAMESPACE,
    SERVING,
    Shown,
    ask,
    firewall,
    objects_of,
)
from tests.node.clients import http_get
from tests.node.observers import FIREWALL, Expected, check, expected_of
from tests.node.testbed import Testbed
from userspace_proxy import Options
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.proxy_with_faults import ProxyWithFaults

pytestmark = pytest.mark.netns

AWAY = Expected("labels", CauseCode.SOURCE_AWAY, "not YAML", Shown.NODE)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves nothing yet, and the pod "pod" with its ports."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", clients=("pod", "laptop")) as testbed:
        testbed.pod("pod").serve(tcp=SERVING)
        testbed.serve()
        yield testbed


def write(testbed, case):
    objects = objects_of(case, testbed.ip("pod"))
    testbed.agent.manifests.write_objects(objects, name=f"{case.name}.yaml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_of_a_broken_service_is_shown_in_every_output(testbed, case):
    write(testbed, case)
    ask(testbed, case)
    check(testbed.agent, expected_of(case, testbed.ip("pod")))


def test_a_firewall_dropping_service_packets_is_shown_in_every_output(testbed):
    write(testbed, EMPTY)
    with firewall(testbed):
        check(testbed.agent, FIREWALL)


def test_unreadable_manifests_are_shown_in_every_output(testbed):
    write(testbed, EMPTY)
    testbed.agent.manifests.write_text("spec: {", name="broken.yaml")
    check(testbed.agent, AWAY)


class Embedded:
    """A proxy in this process, with the methods of an agent that observers call."""

    def __init__(self, proxy):
        self._address = proxy.admin_address

    def read(self, path):
        return http_get(socket.socket(), self._address, path)

    def status(self):
        return json.loads(self.read("/api/v1/status")[1])

    def run(self, *, command):
        server = f"--server={SocketAddress(*self._address)}"
        return subprocess.run([*command, server], check=False, capture_output=True, text=True)


def dial(address):
    """Dial, and wait for a byte; an RST may arrive in either step."""
    with socket.create_connection(address, timeout=60) as client:
        client.recv(1)


async def test_an_injected_fault_is_shown_in_every_output_and_is_not_a_failure():
    sentence = "127.0.0.1:8081 has a fault on purpose: refuse"
    async with ProxyWithFaults(options=Options(admin=("127.0.0.1", 0))) as proxy:
        faulty = await proxy.add_service(
            "faulty", namespace=NAMESPACE, port=80, endpoints=["127.0.0.1:8081"]
        )
        proxy.add_fault(faulty.key, "refuse")
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(dial, faulty.address)
        expected = Expected("faulty", CauseCode.FAULT_ON_PURPOSE, sentence, Shown.PORT)
        await asyncio.to_thread(check, Embedded(proxy), expected)
