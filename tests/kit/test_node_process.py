import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.node_process import NodeProcess
from userspace_proxy_testing.sandbox import Sandbox

TCP = socket.SOCK_STREAM


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def process(sandbox):
    process = NodeProcess(sandbox.node)
    process.wait_until_ready()
    yield process
    assert process.close() == 0


def test_a_node_process_serves_a_service_until_its_removal(sandbox, process):
    sandbox.node.serve("web-1", tcp=8080)
    web = process.add_service(
        "web", port=80, endpoints=[f"{sandbox.node.ip}:8080"], cluster_ip="10.96.0.10"
    )
    assert (str(web.key), str(web.address)) == ("default/web", "10.96.0.10:80")
    assert repr(web) == "<Service default/web at 10.96.0.10:80, 1 endpoint>"
    with process.open_socket(sandbox.node, socket.AF_INET, TCP) as client:
        client.settimeout(60)
        client.connect(web.address)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"web-1\n")
    (found,) = process.look_up("web.default", 80, TCP, "shop")
    assert found[4] == web.address
    web.remove()
    with pytest.raises(LookupError, match="default/web is not served"):
        web.address  # noqa: B018 - a property that raises
    assert process.status().ports == ()


def test_looking_up_an_unknown_name_fails(process):
    with pytest.raises(socket.gaierror):
        process.look_up("web.shop.svc.cluster.local", 80, TCP, "default")


def test_concurrent_calls_from_several_threads_return_their_own_results(sandbox, process):
    def ask(number):
        name = f"web-{number}"
        web = process.add_service(name, port=80, cluster_ip=f"10.96.1.{number + 1}")
        answers = [str(web.key) for _ in range(20)]
        web.remove()
        return set(answers)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4), timeout=60))
    assert answers == [{f"default/web-{number}"} for number in range(4)]


def test_arguments_are_validated_in_the_node_process(process):
    with pytest.raises(ValueError, match="port: 0 is not in 1–65535"):
        process.add_service("web", port=0)


def test_a_call_to_a_killed_process_is_an_error(sandbox):
    node = sandbox.add_node()
    process = NodeProcess(node)
    process.wait_until_ready()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SandboxError, match="the proxy of the network ended with status -9"):
        process.status()
    assert process.close() == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="this network has ended"):
        process.status()
