"""Firewalls that drop packets of the kernel path, as several programs write them."""

import pytest

from tests.cluster.waiting import wait_for
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS, objects
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

# A short timeout of clients, because each SYN counts.
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


class Web:
    """A Service with one endpoint on the kernel path."""

    def __init__(self, testbed):
        self.testbed, self.agent = testbed, testbed.agent
        self.pod = testbed.sandbox.add_pod("web")
        self.server = self.pod.serve(None, echo=TARGET)
        documents = list(objects("web", 10, (self, "node-1")))
        documents[0]["metadata"]["annotations"] = {"userspace-proxy.io/path": "kernel"}
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

    def wait_for(self, version, holds, what, clients=()):
        """Wait until a Service port is in the wanted state, while these clients dial."""

        def is_so():
            for name in clients:
                self.answers(name, version)
            return holds(self.port(version))

        # Scans may use 0.2 % of a core: after long scans on a busy machine, the next scan is late.
        wait_for(what, is_so, deadline_s=400, hint=self.agent.log)


# Each test has its own agent: scans of earlier tests would delay the next test's scan by minutes.
@pytest.fixture
def kernel(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1") as testbed:
        yield Web(testbed)


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
