"""Tests in their own network: run them by ``pytest examples/pytest``.

The fixture ``service_network`` is part of the package. It needs no root if the kernel allows user
namespaces; otherwise these tests are skipped.
"""

import sys

import pytest

from userspace_proxy_testing import ServiceNetwork

# Represents the program under test: it fetches a page of the Service "web".
PROGRAM = """
from urllib.request import urlopen

print(urlopen("http://web/").read().decode().strip())
"""


def test_pods_answer_on_the_cluster_ip(service_network: ServiceNetwork) -> None:
    """Backends are pods, which see the client's own address."""
    web = service_network.service("web", port=80, backends=2)
    client = service_network.client()
    assert [client.get(web.url).text for _ in range(2)] == ["web-1\n", "web-2\n"]
    web.eventually(lambda web: len(web.decisions) == 2)
    assert web.decisions[0].client.startswith(client.ip)


def test_a_program_finds_services_by_name(service_network: ServiceNetwork) -> None:
    """The program runs in a pod with the resolv.conf of its namespace."""
    web = service_network.service("web", port=80, namespace="shop", backends=2)
    web.backends[0].stop()
    client = service_network.client(namespace="shop")
    assert client.run([sys.executable, "-c", PROGRAM]).stdout == "web-2\n"
    assert web.stats.saved == 1


def test_a_service_without_endpoints_refuses_clients(service_network: ServiceNetwork) -> None:
    """The client gets the same ICMP error or RST as in a cluster."""
    web = service_network.service("web", backends=0)
    with pytest.raises(ConnectionRefusedError):
        service_network.client().connect(web)


def test_a_silent_backends_client_is_served_by_another_backend(
    service_network: ServiceNetwork,
) -> None:
    """One pod is silent, so the proxy dials the other one after a second."""
    web = service_network.service("web", backends=2)
    web.backends[0].pod.drop_traffic()
    assert service_network.client().get(web.url).text == "web-2\n"
    assert "does not answer" in web.stats.state
