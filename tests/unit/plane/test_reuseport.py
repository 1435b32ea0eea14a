"""The kernel assigns clients to sockets: by their address, or randomly."""

import contextlib
import socket
from collections import defaultdict

import pytest

from userspace_proxy.kernel.listening_sockets import open_listening
from userspace_proxy.kernel.socket_options import IPV6_FREEBIND
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane.reuseport import choose_by_client, order_left

from ..dataplane.peers import family_of

IPV4 = [f"127.{n}.{n + 9}.{80 - n}" for n in range(60)]
# These addresses aren't routed, but a datagram on this node may have such a source.
IPV6 = [f"2001:db8:{a:x}::{b:x}" for a in range(5) for b in range(1, 9)]
TIMES = 3


class Sharers:
    """Sockets that share one port."""

    def __init__(self, protocol, ip, count):
        self.protocol = protocol
        self.family = family_of(ip)
        self.at = SocketAddress(ip, 0)
        self.socks = []
        for _ in range(count):
            plain = open_listening(protocol, self.at, freebind=False, share=True)
            self.at = SocketAddress(ip, plain.getsockname()[1])
            self.socks.append(socket.socket(fileno=plain.detach()))

    def choose_by_client(self):
        choose_by_client(self.socks[0], self.family, len(self.socks))

    def who_hears(self, client):
        """Return the index of the socket that a client reaches."""
        kind = socket.SOCK_STREAM if self.protocol is Protocol.TCP else socket.SOCK_DGRAM
        with socket.socket(self.family, kind) as sock:
            if self.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sock.bind((client, 0))
            sock.connect(self.at)
            if kind == socket.SOCK_DGRAM:
                sock.send(b"hello")
            (place,) = [place for place, sock in enumerate(self.socks) if heard(sock)]
            return place

    def who_hears_all(self, clients):
        """Return the indexes of the sockets that each client has reached."""
        places = defaultdict(set)
        for client in clients * TIMES:
            places[client].add(self.who_hears(client))
        return places

    def close(self):
        for sock in self.socks:
            sock.close()


def heard(sock):
    try:
        if sock.type == socket.SOCK_STREAM:
            sock.accept()[0].close()
        else:
            sock.recv(100)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(params=list(Protocol))
def share(request):
    with contextlib.ExitStack() as stack:

        def share(ip, count):
            sharers = Sharers(request.param, ip, count)
            stack.callback(sharers.close)
            return sharers

        yield share


def test_the_clients_address_selects_the_socket_index(share):
    sharers = share("127.0.0.1", 3)
    sharers.choose_by_client()
    places = {client: sharers.who_hears(client) for client in IPV4}
    assert places == {
        client: int.from_bytes(socket.inet_aton(client), "big") % 3 for client in IPV4
    }


def test_an_ipv6_client_always_reaches_the_same_socket(share):
    sharers = share("::1", 3)
    sharers.choose_by_client()
    # The only non-zero word of ::1 is the last one, and it is 1.
    assert sharers.who_hears_all(["::1"]) == {"::1": {1}}


def test_ipv6_clients_are_distinguished_by_their_full_address():
    sharers = Sharers(Protocol.UDP, "::1", 3)
    with contextlib.closing(sharers):
        sharers.choose_by_client()
        places = sharers.who_hears_all(IPV6)
        assert {len(seen) for seen in places.values()} == {1}
        assert set.union(*places.values()) == {0, 1, 2}
        for words in ("2001:db8:{:x}::1", "2001:db8:0:{:x}::1", "2001:db8::{:x}:0:1"):
            clients = [words.format(number) for number in range(1, 9)]
            assert len({sharers.who_hears(client) for client in clients}) == 3, words


@pytest.mark.parametrize("left", range(4))
def test_the_last_socket_takes_over_the_index_of_a_closed_socket(share, left):
    sharers = share("127.0.0.1", 4)
    sharers.socks[left].close()
    order = order_left({0, 1, 2, 3} - {left})
    sharers.socks = [sharers.socks[place] for place in order]
    sharers.choose_by_client()
    for client in IPV4:
        assert sharers.who_hears(client) == int.from_bytes(socket.inet_aton(client), "big") % 3


def test_sockets_with_unknown_positions_are_all_kept_when_they_are_ordered():
    assert sorted(order_left([-5, 1, 10**12])) == [-5, 1, 10**12]
    assert order_left([]) == []


def test_the_socket_selection_program_can_be_replaced(share):
    sharers = share("127.0.0.1", 3)
    choose_by_client(sharers.socks[0], socket.AF_INET, 1)
    assert {sharers.who_hears(client) for client in IPV4} == {0}
    sharers.choose_by_client()
    assert {sharers.who_hears(client) for client in IPV4} == {0, 1, 2}
