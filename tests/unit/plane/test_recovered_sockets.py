"""Clients wait on an earlier run's ports until a listener takes the sockets, or are refused."""

import contextlib

import pytest

from userspace_proxy.model import IPFamily, Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.recovered_sockets import RecoveredSockets

from ..dataplane.peers import TcpEndpoint, UdpPeer, dial
from ..dataplane.rig import open_sockets
from ..port_numbers import free_port

TCP, UDP = Protocol.TCP, Protocol.UDP
POD_A = SocketAddress("10.0.0.1", 80)
SERVES = Serving((POD_A,))
# Servings that serve only some clients, or none.
OTHERS = [
    pytest.param(Serving(), id="no-endpoint"),
    pytest.param(Serving((POD_A,), admits=("192.0.2.0/24",)), id="source-ranges"),
    pytest.param(Serving(admits=()), id="all-dropped"),
]


def free(protocol=TCP):
    return protocol, SocketAddress("127.0.0.1", free_port(protocol, IPFamily.IPV4))


@pytest.fixture
def recovered():
    before = open_sockets()
    recovered = RecoveredSockets()
    yield recovered
    recovered.close()
    assert open_sockets() <= before, "a socket was left open"


async def test_a_client_connecting_before_its_listener_is_known_is_accepted_later(recovered):
    protocol, at = free()
    recovered.open([(protocol, at)], 1, transparent=False)
    with contextlib.closing(await dial(at)) as client:
        await client.send(b"question")
        (sock,) = recovered.take(protocol, at, SERVES)
        with sock, sock.accept()[0] as accepted:
            assert accepted.recv(99) == b"question"
    assert recovered.take(protocol, at, SERVES) == ()


async def test_datagrams_arriving_before_their_listener_is_known_are_kept(recovered):
    protocol, at = free(UDP)
    recovered.open([(protocol, at)], 1, transparent=False)
    with contextlib.closing(UdpPeer(to=at)) as client:
        client.send(b"question")
        (sock,) = recovered.take(protocol, at, SERVES)
        with sock:
            assert sock.recv(99) == b"question"


@pytest.mark.parametrize("serving", OTHERS)
async def test_clients_that_a_listener_may_reject_are_reset(recovered, serving):
    protocol, at = free()
    recovered.open([(protocol, at)], 1, transparent=False)
    with contextlib.closing(await dial(at)) as client:
        assert recovered.take(protocol, at, serving) == ()
        assert await client.was_reset()


async def test_an_unclaimed_recovered_socket_refuses_again(recovered):
    protocol, at = free()
    recovered.open([(protocol, at)], 1, transparent=False)
    with contextlib.closing(await dial(at)) as client:
        for _ in range(2):
            recovered.close()
        assert await client.was_reset()
    with pytest.raises(ConnectionRefusedError):
        await dial(at)


def test_a_recovered_port_used_by_another_program_is_omitted(recovered):
    with contextlib.closing(TcpEndpoint()) as thief:
        wanted = [(TCP, thief.address), free()]
        recovered.open(wanted, 2, transparent=False)
        assert len(recovered) == 1
        assert recovered.take(*wanted[0], SERVES) == ()


def test_recovered_sockets_are_limited_to_the_available_room(recovered):
    wanted = [free(UDP) for _ in range(3)]
    recovered.open(wanted, 2, transparent=False)
    assert len(recovered) == 2
