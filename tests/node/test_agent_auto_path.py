"""Path ``auto``: kernel while all endpoints answer probes, userspace after the first failure."""

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
# Half of the dials get the bad endpoint, so this many in a row show that none does any more.
MANY = 30


class Endpoint:
    """A pod whose server echoes TCP data, and answers its name by UDP."""

    def __init__(self, pod):
        self.pod = pod
        self.start()

    def ip(self, version):
        return str(self.pod.ip if version == 4 else self.pod.ip6)

    def start(self):
        self.server = self.pod.serve(None, echo=TARGET, udp=TARGET)

    def die(self):
        """Kill the pod's server, so that the kernel refuses clients."""
        self.server.stop()

    def has_clients(self):
        return bool(self.pod.run(["ss", "-Htn", "state", "established"]).stdout)

    def go_silent(self):
        self.pod.drop_traffic()

    def come_back(self):
        self.pod.pass_traffic()


class Guarded:
    """A Service with path ``auto`` and two endpoints."""

    def __init__(self, testbed):
        self.agent = testbed.agent
        self.client = testbed["pod"]
        self.good, self.bad = (Endpoint(testbed.sandbox.add_pod(name)) for name in ("good", "bad"))
        self.write(self.good, self.bad)

    def write(self, *endpoints):
        documents = list(objects("web", 10, *((one, "node-1") for one in endpoints)))
        documents[0]["metadata"]["annotations"] = {"userspace-proxy.io/path": "auto"}
        self.agent.manifests.write_objects(documents)

    def port(self, version, protocol="TCP"):
        (found,) = (
            one
            for one in self.agent.status()["ports"]
            if (one["protocol"], one["family"]) == (protocol, FAMILY[version])
        )
        return found

    def wait_for_path(self, path, version):
        wait_for(f"the path {path}", lambda: self.takes(path, version), hint=self.agent.log)

    def takes(self, path, version):
        port = self.port(version)
        target = "the kernel" if path == "kernel" else "proxy port"
        return port["path"] == path and port["frontends"][0]["target"].startswith(target)

    def fails(self, version):
        """Return whether a new connection fails, or gets no answer within 0.5 s."""
        address = CLUSTER_IPS[version].format(10), PORT
        with self.client.tcp(address[0]) as sock:
            sock.settimeout(0.5)
            try:
                sock.connect(address)
                sock.settimeout(60)
                return not echoes(sock)
            except OSError:
                return True

    def open_to_good(self, version):
        """Return a connection and a flow to the endpoint that keeps working."""
        address = CLUSTER_IPS[version].format(10), PORT
        while True:
            connection = self.client.dial(address)
            if echoes(connection) and self.good.has_clients():
                break
        while name_of(flow := self.client.udp(address)) != "good":
            pass
        return connection, flow

    def dial_until(self, path, version):
        """Dial until the Service uses a path; return how many connections failed."""
        failed = 0
        while not self.takes(path, version):
            failed += self.fails(version)
        return failed


def name_of(flow):
    flow.send(b"?")
    return flow.recv(100).decode().partition(":")[0]


@pytest.fixture
def web(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=["pod"]) as testbed:
        web = Guarded(testbed)
        testbed.agent.start_until_ready()
        for version in VERSIONS:
            web.wait_for_path("kernel", version)
        yield web


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("fail", "recover", "words"),
    [
        pytest.param(Endpoint.die, Endpoint.start, "refuses", id="killed"),
        pytest.param(Endpoint.go_silent, Endpoint.come_back, "does not answer", id="cut"),
    ],
)
def test_after_the_switch_to_userspace_a_failed_endpoint_fails_no_new_or_open_connection(
    web, version, fail, recover, words
):
    connection, flow = web.open_to_good(version)
    assert not any(web.fails(version) for _ in range(MANY))
    fail(web.bad)
    web.dial_until("userspace", version)
    assert not any(web.fails(version) for _ in range(MANY)), "the proxy dials the other one"
    why = web.port(version)["path_reason"]
    assert words in why
    assert web.bad.ip(version) in why
    assert echoes(connection)
    assert name_of(flow) == "good"
    recover(web.bad)
    assert web.dial_until("kernel", version) == 0
    assert web.port(version)["path_reason"] == "auto, and 2 endpoints answer probes"
    carried = web.port(version)["connections"]
    assert not any(web.fails(version) for _ in range(MANY))
    assert web.port(version)["connections"] == carried, "the kernel translates them"
    assert echoes(connection)
    assert name_of(flow) == "good"


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.long)])
def test_dials_pending_at_a_silent_endpoint_are_served_after_the_switch_to_userspace(web, version):
    address = CLUSTER_IPS[version].format(10), PORT
    web.bad.go_silent()
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
