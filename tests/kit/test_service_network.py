"""A network with Services, as a test author uses it."""

import os
import signal
import sys
from ipaddress import ip_address

import pytest

from userspace_proxy_testing.sandbox import holder
from userspace_proxy_testing.sandbox.reaper import namespace_of
from userspace_proxy_testing.service_network import ServiceNetwork


def get(network, service):
    return network.client().get(service.url).text.strip()


def test_backends_of_a_cluster_ip_take_turns(network):
    web = network.service("web", port=80, backends=2)
    assert web.host.startswith("10.96.0.")
    assert web.port == 80
    assert [get(network, web) for _ in range(4)] == ["web-1", "web-2", "web-1", "web-2"]


def test_each_backend_is_a_pod_with_its_own_address(network):
    web = network.service("web", backends=2)
    ips = {backend.address.ip for backend in web.backends}
    assert len(ips) == 2
    assert ips < {str(pod.ip) for pod in network.sandbox.pods.values()}
    assert {backend.address.port for backend in web.backends} == {8080}


def test_an_endpoint_sees_the_address_of_the_client(network):
    async def peer(_reader, writer):
        writer.write(writer.get_extra_info("peername")[0].encode())

    client = network.client()
    with client.connect(network.service("peer", backends=[peer])) as sock:
        assert sock.recv(100).decode() == client.ip


def test_ipv6_services_have_ipv6_pods(network):
    web = network.service("six", cluster_ip="fd00:10:96::7")
    assert web.url == "http://[fd00:10:96::7]:80"
    assert ":" in web.backends[0].address.ip
    assert get(network, web) == "six-1"


def test_a_cluster_ip_in_use_is_not_allocated_again(network):
    first = network.service("first", backends=0)
    following = str(ip_address(first.host) + 1)
    taken = network.service("taken", cluster_ip=following, backends=0)
    assert network.service("other", backends=0).host not in (first.host, taken.host)


def test_a_dead_backend_fails_no_request_and_can_restart(network):
    web = network.service("web", backends=2)
    web.backends[0].stop()
    assert [get(network, web) for _ in range(3)] == ["web-2"] * 3
    assert web.stats.saved == 1
    assert "stopped" in repr(web.backends[0])
    web.backends[0].start()
    web.backends[1].stop()
    web.eventually(lambda web: get(network, web) == "web-1")


def test_faults_of_a_backend_or_service_apply_until_it_is_healed(network):
    web = network.service("web", backends=2)
    web.backends[0].fault("refuse")
    assert get(network, web) == "web-2"
    assert web.faults == {"web-1": ["refuse"]}
    web.heal()
    web.fault("reset_peer")
    with pytest.raises(ConnectionResetError):
        get(network, web)
    web.heal()
    assert web.faults == {}


def test_clients_of_a_silent_pod_are_served_by_another_endpoint(network):
    web = network.service("web", backends=2)
    silent = web.backends[0].pod
    silent.drop_traffic()
    web.next_endpoint = web.backends[0]
    assert get(network, web) == "web-2"
    assert "does not answer" in web.stats.state
    web.remove()
    # The next backend on the same pod answers.
    assert not silent.drops_traffic


FINDER = """
import http.server, os, socket

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(socket.gethostbyname(self.path[1:]).encode())

http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_program_can_be_a_backend_and_resolves_names(network):
    db = network.service("db", namespace="shop", backends=0)
    web = network.service("program", namespace="shop", backends=[[sys.executable, "-c", FINDER]])
    assert network.client().get(f"{web.url}/db").text == db.host
    web.backends[0].stop()
    with pytest.raises(ConnectionResetError):
        get(network, web)


def test_pods_of_a_removed_service_are_reused(network):
    network.service("web", backends=3)
    count = len(network.sandbox.pods)
    for _ in range(3):
        network.service("web", backends=3)
    assert len(network.sandbox.pods) == count


def test_each_client_name_and_namespace_has_its_own_pod(network):
    client = network.client("alice")
    assert network.client("alice") is client
    assert network.client("alice", namespace="shop").ip != client.ip
    assert network.client("bob").ip != client.ip


def test_an_unstarted_network_explains_how_to_start():
    own = ServiceNetwork()
    for use in (own.service, own.client, lambda: own.service(backends=0)):
        with pytest.raises(RuntimeError, match="isn't started: use it in a with block"):
            use()
    own.close()


def test_a_closed_network_leaves_no_process_or_file():
    with ServiceNetwork() as own:
        web = own.service("web")
        assert get(own, web) == "web-1"
        assert repr(own) == "<ServiceNetwork, 1 Service, 1 client>"
        pid, folder = own.sandbox.node.pid, own._folder
        client = own.client().connect(web)
    assert client.fileno() == -1
    assert namespace_of(pid) == ""
    assert not folder.exists()
    own.close()


@pytest.mark.long
def test_a_killed_proxy_process_is_an_error_at_close():
    own = ServiceNetwork()
    own.start()
    pid = own.sandbox.node.pid
    os.kill(own._process.pid, signal.SIGKILL)
    with pytest.raises(AssertionError, match="the proxy of the network ended with status -9"):
        own.close()
    assert namespace_of(pid) == ""


@pytest.mark.long
def test_a_process_left_running_at_close_is_an_error(monkeypatch, tmp_path):
    # This reaper kills no process.
    idle = tmp_path / "reaper.py"
    idle.write_text("import sys; sys.stdin.read()")
    monkeypatch.setattr(holder, "REAPER", idle)
    own = ServiceNetwork()
    own.start()
    detached = "sleep 1000 >/dev/null 2>&1 & echo $!"
    left = int(own.client().run(["sh", "-c", detached]).stdout)
    try:
        # On a busy machine, the list may also contain exiting processes.
        words = rf"processes of the network are left: \[.*\b{left}\b"
        with pytest.raises(AssertionError, match=words):
            own.close()
    finally:
        os.kill(left, signal.SIGKILL)
