"""The proxy as the DNS of a cluster: pods reach it through a Service that it serves itself."""

import subprocess
import sys

import pytest

from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("kube-dns", "10.96.0.53", 53, "UDP", target=53)
DNS_TCP = Service("kube-dns-tcp", "10.96.0.54", 53, "TCP", target=53)
LOOK_UP = "import socket, sys; print(socket.gethostbyname_ex(sys.argv[1])[2])"


@pytest.fixture(scope="module", params=steerings("local", "nftables"))
def testbed(request, tmp_path_factory):
    with Testbed(tmp_path_factory.mktemp("agent"), request.param) as testbed:
        node = str(testbed.node.ip)
        testbed.agent.flags = (f"--dns-bind-address={node}",)
        web = with_endpoints(WEB, testbed.add_pods("one", tcp=8080))
        testbed.serve(web, with_endpoints(DNS, [node]), with_endpoints(DNS_TCP, [node]))
        yield testbed


@pytest.fixture
def look_up(testbed, tmp_path):
    """Looks up a name in a pod; returns its addresses, or the end of the error."""
    nsswitch = tmp_path / "nsswitch.conf"
    nsswitch.write_text("hosts: files dns\n")
    resolv = tmp_path / "resolv.conf"
    files = {"/etc/resolv.conf": resolv, "/etc/nsswitch.conf": nsswitch}

    def look_up(name, server, options="ndots:5"):
        resolv.write_text(
            f"nameserver {server.ip}\n"
            "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
            f"options {options}\n"
        )
        prefix = testbed["pod"].host.prefix_with_files(files)
        done = subprocess.run(
            [*prefix, sys.executable, "-c", LOOK_UP, name], capture_output=True, text=True
        )
        return (done.stdout or done.stderr).strip().splitlines()[-1]

    return look_up


@pytest.mark.parametrize("name", ["web", "web.shop", "web.shop.svc.cluster.local"])
def test_a_pod_resolves_services_over_udp(look_up, name):
    assert look_up(name, DNS) == f"['{WEB.ip}']"


def test_a_pod_resolves_services_over_tcp(look_up):
    assert look_up("web", DNS_TCP, "ndots:5 use-vc") == f"['{WEB.ip}']"
