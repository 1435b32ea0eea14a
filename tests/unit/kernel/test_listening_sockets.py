import _socket
import contextlib
import socket

import pytest

from tests.netns import Net
from userspace_proxy.errors import ListenError
from userspace_proxy.kernel.listening_sockets import (
    dialled_at,
    family_of,
    hold_port,
    is_self_connected,
    is_wildcard,
    listen_again,
    open_listening,
    share_port,
    stop_listening,
)
from userspace_proxy.kernel.socket_options import (
    IP_TRANSPARENT,
    IPV6_TRANSPARENT,
    hops_left,
    set_hop_limit,
)
from userspace_proxy.model import Protocol, SocketAddress

PROTOCOLS = pytest.mark.parametrize("protocol", list(Protocol))
IPS = pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "0.0.0.0", "::"])
WAIT_S = 10.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
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
def opened():
    """Yield a function that opens listening sockets, which are closed at the end."""
    socks = []

    def opened(protocol, ip="127.0.0.1", port=0, *, freebind=False):
        socks.append(open_listening(protocol, SocketAddress(ip, port), freebind=freebind))
        return socks[-1]

    yield opened
    for sock in socks:
        sock.close()


@PROTOCOLS
@IPS
def test_a_socket_is_bound_to_the_requested_address(opened, protocol, ip):
    sock = opened(protocol, ip)
    assert sock.getsockname()[0] == ip
    assert sock.getsockname()[1] > 0
    assert sock.gettimeout() == 0


@PROTOCOLS
def test_both_families_can_use_the_same_port(opened, protocol):
    port = opened(protocol, "::").getsockname()[1]
    assert opened(protocol, "0.0.0.0", port).getsockname()[1] == port


@PROTOCOLS
def test_a_port_in_use_is_an_error_with_a_hint(opened, protocol):
    port = opened(protocol).getsockname()[1]
    with pytest.raises(ListenError) as caught:
        opened(protocol, port=port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}/{protocol}: Address already in use "
        f"(another program holds port {port}: see ss -lntup)"
    )


@PROTOCOLS
def test_an_address_of_another_node_is_an_error_with_a_hint(opened, protocol):
    with pytest.raises(ListenError, match=r"192\.0\.2\.1 is not an address of"):
        opened(protocol, "192.0.2.1", 8080)


@PROTOCOLS
@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1"])
def test_an_address_not_yet_on_the_node_can_be_bound(opened, protocol, ip):
    sock = opened(protocol, ip, freebind=True)
    assert sock.getsockname()[0] == ip
    option = (
        (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
        if ":" in ip
        else (socket.IPPROTO_IP, IP_TRANSPARENT)
    )
    assert not sock.getsockopt(*option), "accepted sockets match the rules for answers"


def test_accepted_sockets_have_tcp_nodelay(opened):
    sock = opened(Protocol.TCP)
    with socket.create_connection(sock.getsockname()):
        accepted = socket.socket(fileno=sock._accept()[0])
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_listen_again_reopens_a_port_that_was_kept_reserved(opened):
    sock = opened(Protocol.TCP)
    name = sock.getsockname()
    stop_listening(sock, keeps_port=True)
    assert sock.getsockname() == name
    listen_again([sock], SocketAddress(*name))
    with socket.create_connection(name):
        pass


def test_a_released_port_can_be_taken_by_another_program(opened):
    sock = opened(Protocol.TCP)
    address = SocketAddress(*sock.getsockname())
    stop_listening(sock, keeps_port=False)
    opened(Protocol.TCP, port=address.port)
    with pytest.raises(ListenError, match="another program holds port"):
        listen_again([sock], address)


def test_a_datagram_to_a_wildcard_socket_reports_its_destination(opened):
    sock = opened(Protocol.UDP, "0.0.0.0")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"", ("127.0.0.9", sock.getsockname()[1]))
    _, ancillary, _, _ = sock.recvmsg(10, 128)
    assert ancillary[0][2][4:8] == socket.inet_aton("127.0.0.9")


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_the_hop_limit_is_the_last_ancillary_item_of_a_datagram(opened, ip):
    sock = opened(Protocol.UDP, ip)
    to = LOOPBACK.get(ip, ip)
    with socket.socket(family_of(ip), socket.SOCK_DGRAM) as client:
        set_hop_limit(client, 7)
        client.sendto(b"", (to, sock.getsockname()[1]))
    _, ancillary, _, _ = sock.recvmsg(10, 128)
    assert hops_left(ancillary[-1]) == 7


def test_the_wildcard_addresses_of_both_families_are_recognized():
    assert [is_wildcard(ip) for ip in ("0.0.0.0", "::", "127.0.0.1", "::1")] == [1, 1, 0, 0]


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_a_socket_connected_to_itself_is_detected(ip, kind):
    sock = _socket.socket(family_of(ip), kind)
    try:
        sock.bind((ip, 0))
        address = SocketAddress(*sock.getsockname()[:2])
        assert sock.connect_ex(address) == 0
        assert is_self_connected(sock, address)
        for other in (SocketAddress(ip, address.port ^ 1), address._replace(ip="192.0.2.1")):
            assert not is_self_connected(sock, other)
    finally:
        sock.close()


def new_socket(ip):
    return socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def held(request):
    """An address whose port only the reservation holds."""
    ip = request.param
    with new_socket(ip) as before:
        before.bind((ip, 0))
        at = SocketAddress(ip, before.getsockname()[1])
        hold = hold_port(at, [before])
    assert hold is not None
    with contextlib.closing(hold):
        yield at


def test_a_reserved_port_refuses_clients(held):
    at = (LOOPBACK.get(held.ip, held.ip), held.port)
    for _ in range(3):
        with new_socket(held.ip) as client:
            client.settimeout(WAIT_S)
            client.connect(at)
            client.send(b"hello")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


def test_another_program_cannot_bind_a_reserved_port(held):
    for ip in (held.ip, LOOPBACK.get(held.ip, held.ip)):
        with new_socket(ip) as thief, pytest.raises(OSError, match="in use"):
            thief.bind((ip, held.port))


def test_sockets_that_share_a_reserved_port_receive_all_datagrams(held):
    at = (LOOPBACK.get(held.ip, held.ip), held.port)
    with contextlib.ExitStack() as stack:
        serving = [stack.enter_context(new_socket(held.ip)) for _ in range(2)]
        for sock in serving:
            sock.settimeout(WAIT_S)
            share_port(sock, is_shared=True)
            sock.bind(tuple(held))
        clients = [stack.enter_context(new_socket(held.ip)) for _ in range(40)]
        for client in clients:
            client.sendto(b"hello", at)
        got = dict.fromkeys(serving, 0)
        for sock in serving:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while sock.recv(100):
                    got[sock] += 1
    assert sum(got.values()) == 40
    assert all(got.values()), "a socket received no datagram"


def test_a_port_used_by_another_program_cannot_be_reserved():
    with new_socket("127.0.0.1") as other:
        other.bind(("127.0.0.1", 0))
        assert hold_port(SocketAddress(*other.getsockname()), []) is None


@pytest.fixture
def net():
    net = Net("sockets")
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
