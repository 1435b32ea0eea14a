"""A gibibyte each way, checked by its digest, also where there are few pipes or none.

threads here: pour ──▶ a data plane in a process of its own ──▶ drink
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import itertools
import multiprocessing
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from tests.unit.dataplane.rig import Rig
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.pipes import PIPE_BYTES
from userspace_proxy.model import SocketAddress

GIB = 1 << 30
# Not a multiple of anything that is moved at once: pieces that change places are noticed.
BLOCKS = [random.Random(seed).randbytes((1 << 20) + 4099) for seed in (1, 2)]
NOBODY = 65534
DEADLINE_S = 120.0


async def serve(parent, endpoint, max_pipes):
    """Serve one endpoint until the parent ends it, then report the pipes."""
    rig = Rig(Tuning(max_pipes=max_pipes))
    parent.send(rig.service(endpoint).address)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(parent.fileno(), ended.set)
    await ended.wait()
    pipes = rig.engine.pipes
    parent.send((pipes.open_pipes, len(pipes._free), len(rig.connections)))
    rig.close()


def use_up_pipes():
    """Become a user that may have no large pipe any more, whatever the limit is."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        while True:
            fcntl.fcntl(os.pipe()[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError as exc:
        # EMFILE would mean that fs.pipe-user-pages-soft limits no user here.
        assert exc.errno == errno.EPERM  # noqa: PT017


def run_proxy(parent, endpoint, max_pipes, is_refused):
    if is_refused:
        use_up_pipes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parent, endpoint, max_pipes))


@contextlib.contextmanager
def proxy(*args):
    """Run a data plane in a process; gives its address, and what to ask for its pipes."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run_proxy, args=(theirs, *args))
    process.start()
    theirs.close()

    def receive():
        assert ours.poll(DEADLINE_S), "the data plane's process says nothing"
        return ours.recv()

    def ask():
        ours.send("enough")
        return receive()

    try:
        yield receive(), ask
    finally:
        process.kill()
        process.join(30)
        ours.close()


def pour(sock, block, count):
    """Send that many bytes, and a FIN."""
    whole, rest = divmod(count, len(block))
    for piece in [*itertools.repeat(block, whole), block[:rest]]:
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def drink(sock):
    """Return the digest of everything up to the FIN."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    while count := sock.recv_into(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def digest_of(block, count):
    whole, rest = divmod(count, len(block))
    digest = hashlib.sha256()
    for piece in [*itertools.repeat(block, whole), block[:rest]]:
        digest.update(piece)
    return digest.hexdigest()


@pytest.mark.long
@pytest.mark.parametrize(
    ("connections", "max_pipes", "is_refused", "opened"),
    [
        pytest.param(1, 32, False, 2, id="spliced"),
        pytest.param(4, 2, False, 2, id="fewer pipes than connections"),
        pytest.param(1, 0, False, 0, id="no pipes"),
        pytest.param(4, 32, True, 0, id="the kernel refuses large pipes"),
    ],
)
def test_a_gibibyte_arrives_unchanged_each_way_at_once(connections, max_pipes, is_refused, opened):
    each = GIB // connections
    with (
        contextlib.ExitStack() as ends,
        socket.create_server(("127.0.0.1", 0)) as pod,
        proxy(SocketAddress(*pod.getsockname()), max_pipes, is_refused) as (address, ask),
        ThreadPoolExecutor(4 * connections) as threads,
    ):
        heard = []
        for _ in range(connections):
            client = ends.enter_context(socket.create_connection(address, DEADLINE_S))
            server = ends.enter_context(pod.accept()[0])
            server.settimeout(DEADLINE_S)
            for sender, receiver, block in zip(
                (client, server), (server, client), BLOCKS, strict=True
            ):
                threads.submit(pour, sender, block, each)
                heard.append(threads.submit(drink, receiver))
        sent = [digest_of(block, each) for block in BLOCKS]
        assert [digest.result() for digest in heard] == sent * connections
        assert ask() == (opened, opened, 0)
