"""Firewalls that drop packets that the kernel path forwards, in their programs' own forms."""

import pytest

from tests.cluster.waiting import wait_for
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS, objects
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

# The timeout of a client that gives up soon: each of its SYNs counts.
GIVES_UP_S = 0.5
BOTH = "for t in iptables-nft ip6tables-nft; do {}; done"
FLUSH = BOTH.format("$t -P FORWARD ACCEPT; $t -F FORWARD")
FIREWALLS = {
    "docker": (
        BOTH.format(
            "$t -P FORWARD DROP; $t -N DOCKER-USER; $t -A FORWARD -j DOCKER-USER;"
            " $t -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;"
            " $t -A FORWARD -i docker0 ! -o docker0 -j ACCEPT"
        ),
        f"{FLUSH}; {BOTH.format('$t -X DOCKER-USER')}",
    ),
    "firewalld": (
        "nft add table inet firewalld; nft 'add chain inet firewalld filter_FORWARD"
        " { type filter hook forward priority filter + 10; }';"
        " nft add rule inet firewalld filter_FORWARD ct state established,related accept;"
        " nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
        "nft delete table inet firewalld",
    ),
}
ANSWERS = (
    "nft add table inet own; nft 'add chain inet own f { type filter hook forward priority 0; }';"
    # The proxy can't evaluate a condition on the packet's length.
    " nft add rule inet own f meta length gt 30 drop"
)


class Web:
    """A Service with one endpoint, on path kernel or auto."""

    def __init__(self, testbed, path):
        self.testbed, self.agent = testbed, testbed.agent
        self.pod = testbed.sandbox.add_pod("web")
        self.server = self.pod.serve(None, echo=TARGET)
        documents = list(objects("web", 10, (self, "node-1")))
        documents[0]["metadata"]["annotations"] = {"userspace-proxy.io/path": path}
        self.agent.manifests.write_objects(documents)
        self.agent.start_until_ready()
        for version in VERSIONS:
            self.wait_for(version, lambda port: port["path"] == "kernel", "the kernel path")

    def ip(self, version):
        return str(self.pod.ip if version == 4 else self.pod.ip6)

    def port(self, version):
        wanted = ("TCP", f"IPv{version}")
        ports = self.agent.status()["ports"]
        (found,) = (one for one in ports if (one["protocol"], one["family"]) == wanted)
        return found

    def answers(self, name, version):
        """Return whether a client is served."""
        address = CLUSTER_IPS[version].format(10), PORT
        with self.testbed[name].tcp(address[0]) as sock:
            sock.settimeout(GIVES_UP_S)
            try:
                sock.connect(address)
            except OSError:
                return False
            return True

    def wait_for_answers(self, version):
        clients = ("pod", "node-1", *(["laptop"] if version == 4 else []))
        wait_for(
            "all clients to be served",
            lambda: all(self.answers(name, version) for name in clients),
            hint=self.agent.log,
        )

    def wait_for(self, version, holds, what, clients=()):
        """Dial until the Service port is in the wanted state."""

        def is_so():
            for name in clients:
                self.answers(name, version)
            return holds(self.port(version))

        # Scans may use 0.2 % of a core: after long scans on a busy machine, the next scan is late.
        wait_for(what, is_so, deadline_s=400, hint=self.agent.log)


# An agent of its own for each test: scans of earlier tests would delay the next one's by minutes.
@pytest.fixture
def kernel(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1") as testbed:
        yield Web(testbed, "kernel")


@pytest.mark.parametrize(("firewall", "version"), [("docker", 6), ("firewalld", 4)])
def test_a_firewall_dropping_forwarded_packets_is_reported_as_the_cause_until_removed(
    kernel, firewall, version
):
    appear, go = FIREWALLS[firewall]
    kernel.testbed.shell(appear)
    clients = ("pod", "node-1")
    kernel.wait_for(version, lambda port: port["unanswered"], "the cause", clients)
    port = kernel.port(version)
    assert port["state"]["level"] == "trouble"
    assert port["unanswered"]["code"] == "firewall-drops"
    assert kernel.answers("node-1", version)
    kernel.testbed.shell(go)
    kernel.wait_for(version, lambda port: not port["unanswered"], "its end", clients)


def test_a_silent_endpoint_is_not_attributed_to_a_firewall(kernel):
    kernel.pod.drop_traffic()
    kernel.wait_for(4, lambda port: port["unanswered"], "the cause", ("pod",))
    assert kernel.port(4)["unanswered"]["code"] in ("endpoint-silent", "endpoint-no-host")
    kernel.pod.pass_traffic()
    kernel.wait_for(4, lambda port: not port["unanswered"], "its end", ("pod",))


def test_dropped_replies_are_detected_without_a_known_chain(kernel):
    kernel.testbed.shell(ANSWERS)
    kernel.wait_for(4, lambda port: port["unanswered"], "the cause", ("pod",))
    assert kernel.port(4)["unanswered"]["code"] == "packets-lost"


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.long)])
def test_auto_falls_back_to_userspace_behind_a_firewall_and_returns(tmp_path, version):
    with Testbed(tmp_path, "nftables", "--workers=1") as testbed:
        web = Web(testbed, "auto")
        appear, go = FIREWALLS["docker"]
        testbed.shell(appear)
        web.wait_for(version, lambda port: port["path"] == "userspace", "the way out", ("pod",))
        web.wait_for_answers(version)
        assert "dropped by" in web.port(version)["path_reason"]
        testbed.shell(go)
        web.wait_for(version, lambda port: port["path"] == "kernel", "the way back")
        web.wait_for_answers(version)
