"""The address that a client dialled."""

import _socket

import pytest

from tests.netns import Net
from userspace_proxy.dataplane.frontends import dialled_at
from userspace_proxy.model import SocketAddress

RULES = """
table inet steering {
  chain output {
    type nat hook output priority -100
    ip daddr 127.0.0.9 tcp dport 80 redirect to :17000
    ip6 daddr ::9 tcp dport 80 redirect to :17000
  }
}
"""


@pytest.fixture
def net():
    net = Net("frontends")
    yield net
    net.close()


def accepted(net, family, bound, dialled):
    """Return the accepted socket of a client that dialled this address."""
    listening, client = net.tcp(family), net.tcp(family)
    with listening, client:
        listening.bind(bound)
        listening.listen()
        client.connect(dialled)
        sock, _ = listening.accept()
        return _socket.socket(family, _socket.SOCK_STREAM, 0, sock.detach())


@pytest.mark.parametrize(
    ("family", "any_ip", "ip"),
    [
        pytest.param(_socket.AF_INET, "0.0.0.0", "127.0.0.9", id="IPv4"),
        pytest.param(_socket.AF_INET6, "::", "::9", id="IPv6"),
    ],
)
def test_a_redirected_client_has_dialled_the_frontend(net, family, any_ip, ip):
    net.run("ip -6 address replace ::9/128 dev lo")
    net.run(f"nft '{RULES}'")
    sock = accepted(net, family, (any_ip, 17000), (ip, 80))
    assert dialled_at(sock) == SocketAddress(ip, 80)
    sock.close()


@pytest.mark.parametrize(
    ("family", "ip"),
    [
        pytest.param(_socket.AF_INET, "127.0.0.1", id="IPv4"),
        pytest.param(_socket.AF_INET6, "::1", id="IPv6"),
    ],
)
def test_an_untranslated_socket_was_dialled_at_its_own_address(net, family, ip):
    sock = accepted(net, family, (ip, 80), (ip, 80))
    assert dialled_at(sock) == SocketAddress(ip, 80)
    sock.close()


def test_a_closed_socket_has_no_dialled_address():
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    sock.close()
    assert dialled_at(sock) is None
