"""Data planes of every kind, and helpers that observe them as clients."""

import asyncio
import contextlib
import socket
import time

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import Plane

from ..dataplane.peers import Peer, TcpEndpoint, UdpPeer, dial
from ..dataplane.rig import Rig
from ..dataplane.waiting import until

TCP, UDP = Protocol.TCP, Protocol.UDP
PLANES = {"in-loop": None, "1-worker": 1, "2-workers": 2}
"""The number of workers of each plane; None if the caller's loop carries the traffic."""
_ASK_AGAIN_S = 1.0


def make_plane(workers):
    plane = Plane(asyncio.get_running_loop(), workers)
    plane.start()
    return plane


class SharedRig(Rig):
    """A rig in a shared data plane, which closes the groups that it has opened."""

    def service(self, *endpoints, **kwargs):
        service = super().service(*endpoints, **kwargs)
        self.keep(service)
        return service

    def group_of(self, group):
        """Return the group that adds up the counters of all workers."""
        return group

    async def totals(self, service):
        """Return a Service's current totals."""
        await self.plane.refresh()
        return service.group.totals()


async def serves(client, pod):
    """Return whether a TCP client and this endpoint exchange bytes."""
    server = await pod.accept()
    await client.send(b"question")
    question = await server.read()
    await server.send(b"answer")
    return (question, await client.read()) == (b"question", b"answer")


async def asked(client, pod):
    """Send datagrams from a UDP client until one reaches the endpoint; return the next answer.

    During a change, a client's datagram may be lost.
    """

    def has_come():
        with contextlib.suppress(OSError):
            client.sock.recv(100)
        with contextlib.suppress(ConnectionRefusedError):
            client.send(b"question")
        return pod.received()

    await until(has_come)
    client.received()
    client.send(b"question")
    _, proxy = await pod.receive_from()
    pod.send_to(b"answer", proxy)
    return await client.receive()


async def is_refused(client):
    """Send datagrams from a UDP client until one is refused; return True."""

    def is_told():
        try:
            client.send(b"anybody there?")
            client.received()
        except ConnectionRefusedError:
            return True
        return False

    await until(is_told)
    return True


async def place_of(rig, service, pods, client):
    """Return the index of the endpoint that serves a client with this address."""
    to = SocketAddress("127.0.0.1", service.address.port)
    asker = None
    if service.listener.protocol is TCP:
        rig.keep(await dial(to, source=client))
    else:
        asker = rig.keep(UdpPeer(client, to=to))
        asker.send(b"question")
    found = []
    ask_again_at = time.monotonic() + _ASK_AGAIN_S

    def has_come():
        nonlocal ask_again_at
        # A worker that hasn't read a change yet drops a datagram, which is correct.
        if asker is not None and time.monotonic() >= ask_again_at:
            asker.send(b"question")
            ask_again_at = time.monotonic() + _ASK_AGAIN_S
        for place, pod in enumerate(pods):
            if isinstance(pod, TcpEndpoint):
                if pod.accept_now() is not None:
                    found.append(place)
            elif pod.received():
                found.append(place)
        return found

    await until(has_come)
    return found[0]


async def is_dropped(rig, service, client):
    """Return whether a client with this address gets no answer and reaches no endpoint.

    On loopback a SYN or a datagram is answered, or refused, before its system call returns.
    """
    to = SocketAddress("127.0.0.1", service.address.port)
    if service.listener.protocol is UDP:
        peer = rig.keep(UdpPeer(client, to=to))
        for _ in range(2):
            peer.send(b"anybody there?")
        return not peer.received()
    knocking = rig.keep(Peer(socket.socket()))
    knocking.sock.bind((client, 0))
    knocking.sock.connect_ex(to)
    error = knocking.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with contextlib.suppress(OSError):
        knocking.sock.getpeername()
        return False
    return error == 0
