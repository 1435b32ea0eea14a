"""A restart after all processes were killed: the node has no plan yet.

Clients wait on the old listeners' ports for the first plan: the API server is suspended (SIGSTOP),
so there is no plan until a test resumes it.
"""

import pytest

from tests.cluster.waiting import wait_for
from tests.node.api_servers import ApiServer
from tests.node.clients import read_all
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

LB_IP = "203.0.113.21"
WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
CART = Service("cart", "10.96.0.20")
GONE = Service("gone", "10.96.0.30")
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


class Ranged(Service):
    """A Service whose load balancer IP admits the pod, but no client outside."""

    def objects(self):
        service, endpoint_slice = super().objects()
        yield {**service, "status": {"loadBalancer": {"ingress": [{"ip": LB_IP}]}}}
        yield endpoint_slice


RANGED = Ranged(
    "ranged",
    "10.96.0.40",
    more={"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.244.0.0/16"]},
)


class Site:
    """A node whose agent is killed and restarted while the API server doesn't answer."""

    def __init__(self, testbed, folder):
        self.testbed = testbed
        self.agent = testbed.agent
        self.pod, self.laptop = testbed["pod"], testbed["laptop"]
        self.api = ApiServer(testbed.node, testbed._sockets, folder)
        self.agent.source = f"--master={self.api.url}"
        self.ips = testbed.add_pods("one", tcp=8080, udp=53)

    def kill_everything(self, *services):
        """Serve these Services and WEB, kill the agent, and start it while it can't read them."""
        self.api.start(*(with_endpoints(service, self.ips) for service in (WEB, *services)))
        self.agent.start_until_ready()
        self.api.hang()
        self.agent.kill()
        assert self.pod.tcp_refusal(WEB.address) == "refused"
        self.agent.log_path.write_text("")
        self.agent.start()
        wait_for("a listener", lambda: self.pod.tcp_refusal(WEB.address) == "accepted")

    def has_plan(self):
        return "plan applied" in self.agent.log()

    def wait_for_plan(self):
        wait_for("the first plan", self.has_plan, hint=self.agent.log)


@pytest.fixture(params=steerings("nftables", "iptables", "local", "local-on-a-node"))
def site(request, tmp_path):
    with Testbed(tmp_path, request.param, "--workers=2", clients=("pod", "laptop")) as testbed:
        site = Site(testbed, tmp_path)
        yield site
        site.api.kill()


def test_clients_connecting_before_the_first_plan_are_served_later(site):
    site.kill_everything(DNS)
    web, dns = site.pod.dial(WEB.address), site.pod.udp(DNS.address)
    web.sendall(REQUEST)
    dns.send(b"hello")
    assert not site.has_plan()

    site.api.resume()
    assert read_all(web).endswith(b"one\n")
    assert dns.recv(99) == b"one: hello"
    # One worker may have served both clients before the other worker runs.
    wait_for("both workers", lambda: site.agent.log().count("worker started") == 2)


def test_clients_arriving_before_source_ranges_are_known_reach_no_endpoint(site):
    site.kill_everything(RANGED)
    dialled = [client.dial((LB_IP, 80)) for client in (site.laptop, site.pod)]
    for sock in dialled:
        sock.sendall(REQUEST)
    assert not site.has_plan()

    site.api.resume()
    for sock in dialled:
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    site.wait_for_plan()
    assert site.pod.get((LB_IP, 80)) == "one"


def test_clients_of_a_vanished_service_are_reset_and_then_refused(site):
    site.kill_everything(GONE)
    gone = site.pod.dial(GONE.address)
    gone.sendall(REQUEST)
    assert not site.has_plan()

    site.api.kill()
    site.api.start(with_endpoints(WEB, site.ips))
    with pytest.raises(ConnectionResetError):
        read_all(gone)
    site.wait_for_plan()
    assert site.pod.get(WEB.address) == "one"
    assert site.agent.frontends("gone") == {}
