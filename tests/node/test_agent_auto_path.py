"""Path ``auto``: dials that the kernel has sent to a silent endpoint are served in userspace."""

import contextlib
import select

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import echoes
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS, objects
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

FAMILY = {4: "IPv4", 6: "IPv6"}


class Endpoint:
    """A pod whose server echoes TCP data."""

    def __init__(self, pod):
        self.pod = pod
        pod.serve(None, echo=TARGET)

    def ip(self, version):
        return str(self.pod.ip if version == 4 else self.pod.ip6)


class Guarded:
    """A Service with path ``auto`` and two endpoints."""

    def __init__(self, testbed):
        self.agent = testbed.agent
        self.client = testbed["pod"]
        self.good, self.bad = (Endpoint(testbed.sandbox.add_pod(name)) for name in ("good", "bad"))
        documents = list(objects("web", 10, (self.good, "node-1"), (self.bad, "node-1")))
        documents[0]["metadata"]["annotations"] = {"userspace-proxy.io/path": "auto"}
        self.agent.manifests.write_objects(documents)

    def wait_for_path(self, path, version):
        wait_for(f"the path {path}", lambda: self.takes(path, version), hint=self.agent.log)

    def takes(self, path, version):
        (port,) = (
            one
            for one in self.agent.status()["ports"]
            if (one["protocol"], one["family"]) == ("TCP", FAMILY[version])
        )
        target = "the kernel" if path == "kernel" else "proxy port"
        return port["path"] == path and port["frontends"][0]["target"].startswith(target)


@pytest.fixture
def web(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=["pod"]) as testbed:
        web = Guarded(testbed)
        testbed.agent.start_until_ready()
        for version in VERSIONS:
            web.wait_for_path("kernel", version)
        yield web


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.long)])
def test_dials_pending_at_a_silent_endpoint_are_served_after_the_switch_to_userspace(web, version):
    address = CLUSTER_IPS[version].format(10), PORT
    web.bad.pod.drop_traffic()
    with contextlib.ExitStack() as stack:
        dials = [stack.enter_context(web.client.tcp(address[0])) for _ in range(12)]
        for dial in dials:
            dial.setblocking(False)
            dial.connect_ex(address)
        web.wait_for_path("userspace", version)
        for dial in dials:
            # A lost SYN is retransmitted after 1, 2, 4 … seconds.
            dial.settimeout(60)
            _, writable, _ = select.select([], [dial], [], 30)
            assert writable, "the proxy dials the other endpoint"
            assert echoes(dial)
