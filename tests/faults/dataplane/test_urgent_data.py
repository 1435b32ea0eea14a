"""Urgent data (MSG_OOB) arrives in order at any position of a stream, also before a FIN."""

import asyncio
import hashlib
import random
import socket

import pytest

from tests.port_keys import port_key
from tests.unit.dataplane.peers import Peer
from tests.unit.dataplane.waiting import turns, until, writable
from userspace_proxy.dataplane import EndpointGroup, Tuning
from userspace_proxy.model.serving import Serving

MIB = 1 << 20
DATA = random.Random(1).randbytes(8 * MIB)
SIDES = pytest.mark.parametrize("sender", ["client", "endpoint"])
ENDS = pytest.mark.parametrize("ends", [True, False], ids=["fin", "answer"])
PIPES = pytest.mark.parametrize("pipes", [32, 0], ids=["spliced", "copied"])


async def joined(rig, sender):
    """Return both ends of a connection, the sender's end first, and the stream's direction."""
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    await until(lambda: all(c.up for c in rig.connections.open), "the dial is answered")
    (connection,) = rig.connections.open
    if sender == "client":
        return client, server, connection.up
    return server, client, connection.down


async def joined_after(rig, sender, send):
    """Call ``send`` with the sender before the proxy joins the legs; return both ends."""
    pod = rig.endpoint()
    if sender == "client":
        client = rig.keep(Peer(socket.create_connection(rig.service(pod.address).address)))
        send(client)
        assert not rig.connections.open, "the proxy was quicker than the test"
        return client, await pod.accept()
    connection, client = await rig.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    connection.begin()
    server = pod.accept_now()
    assert server is not None
    send(server)
    assert connection.up is None, "the proxy was quicker than the test"
    return server, client


async def send_mark(peer):
    while True:
        try:
            peer.sock.send(b"!", socket.MSG_OOB)
        except BlockingIOError:
            await writable(peer.sock)
        else:
            return


async def check(sends, hears, data, *, ends):
    """Check that all data arrives, followed by a FIN or an answer."""
    if ends:
        got = await hears.read_all()
    else:
        got = await hears.read_exactly(len(data))
        await hears.send(b"answer")
        assert await sends.read_exactly(6) == b"answer"
    assert len(got) == len(data)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


@SIDES
@PIPES
async def test_repeated_urgent_data_arrives_in_order(build, sender, pipes):
    rig = build(Tuning(max_pipes=pipes))
    sends, hears, _ = await joined(rig, sender)
    rng = random.Random(2)
    places = sorted(rng.randrange(len(DATA)) for _ in range(200))
    pieces = [DATA[a:b] for a, b in zip([0, *places], [*places, len(DATA)], strict=True)]

    async def pour():
        await sends.send(pieces[0])
        for piece in pieces[1:]:
            await send_mark(sends)
            await sends.send(piece)
        sends.finish()

    await asyncio.gather(pour(), check(sends, hears, b"!".join(pieces), ends=True))


@SIDES
@ENDS
@PIPES
async def test_urgent_data_behind_a_stalled_reader_arrives_in_order(build, sender, ends, pipes):
    rig = build(Tuning(max_pipes=pipes))
    sends, hears, direction = await joined(rig, sender)
    data = bytearray()
    rest = memoryview(DATA * 4)

    async def send_some(count):
        nonlocal rest
        await sends.send(rest[:count])
        data.extend(rest[:count])
        rest = rest[count:]

    async def is_stuck():
        await send_some(65536)
        await turns(5)
        return direction.is_stuck

    while not await is_stuck():
        pass
    await send_mark(sends)
    data.extend(b"!")
    await send_some(100_000)
    if ends:
        sends.finish()
    await check(sends, hears, bytes(data), ends=ends)


@SIDES
@ENDS
@PIPES
@pytest.mark.parametrize("head", [0, 3, 100_000])
@pytest.mark.parametrize("tail", [0, 3, 100_000])
async def test_urgent_data_before_the_join_arrives_in_order(build, sender, ends, pipes, head, tail):
    rig = build(Tuning(max_pipes=pipes))
    data = DATA[:head] + b"!" + DATA[head : head + tail]

    def send(peer):
        peer.sock.setblocking(True)
        peer.sock.sendall(data[:head])
        peer.sock.send(b"!", socket.MSG_OOB)
        peer.sock.sendall(data[head + 1 :])
        peer.sock.setblocking(False)
        if ends:
            peer.finish()

    sends, hears = await joined_after(rig, sender, send)
    await check(sends, hears, data, ends=ends)
