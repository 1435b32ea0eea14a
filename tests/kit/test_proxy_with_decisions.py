import logging
import socket

from userspace_proxy_testing.decisions import LOGGER
from userspace_proxy_testing.proxy_with_decisions import ProxyWithDecisions


def test_a_proxy_lists_ended_connections_and_restores_the_logger_when_closed():
    level = logging.getLogger(LOGGER).level
    with ProxyWithDecisions() as proxy, socket.create_server(("127.0.0.1", 0)) as endpoint:
        web = proxy.add_service("web", port=8080, endpoints=[endpoint.getsockname()])
        with socket.create_connection(web.address, timeout=60) as client:
            endpoint.accept()[0].close()
            assert client.recv(1) == b""
        while not proxy.decisions_of(web.key):
            proxy.settled()
        (decision,) = proxy.decisions_of(web.key)
        assert decision.endpoint == "{}:{}".format(*endpoint.getsockname())
    assert logging.getLogger(LOGGER).level == level
