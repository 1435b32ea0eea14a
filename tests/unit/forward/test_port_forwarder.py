"""Tests of dials through port-forwards of a fake API server, and of their connections."""

import asyncio
import contextlib
import errno
import socket

import pytest

from userspace_proxy.kernel.socket_options import reset
from userspace_proxy.model import SocketAddress
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.responses import TransportError
from userspace_proxy_kubectl.forward.port_forwarder import HALF_CLOSED_S, PING_S, PortForwarder
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ..dataplane.waiting import until
from ..sources.kubernetes.balancer import Balancer
from .pods import PORT, Pods

WEB = SocketAddress("10.244.0.1", PORT)
GONE = SocketAddress("10.244.0.9", PORT)

pytestmark = pytest.mark.usefixtures("nothing_of_this_machine")


class Rig:
    """A running forwarder and a pod that the test serves."""

    def __init__(self, api, stack):
        self.api = api
        self.pods = Pods(api, stack)
        self._stack = stack

    async def serve(self, handle, url="", **options):
        """Start a pod with this handler, and a forwarder."""
        pod = await self.pods.start(handle)
        self.client = ApiClient(Credentials(master=url or self.api.url))
        await self.client.open()
        self._stack.push_async_callback(self.client.close)
        self.forwarder = PortForwarder(
            self.client,
            lambda: {"shop/web:http": {WEB: ForwardTarget("shop", pod, PORT)}},
            **options,
        )
        self.run = asyncio.create_task(self.forwarder.run())
        self._stack.push_async_callback(self.stop)

    async def stop(self):
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)

    async def dial(self, endpoint=WEB, service_port="shop/web:http"):
        """Dial, and return a socket or an errno."""
        loop = asyncio.get_running_loop()
        while True:
            outcome = loop.create_future()
            self.forwarder.dial(service_port, endpoint, outcome.set_result)
            # Dials fail with EHOSTUNREACH until the forwarder's loop runs.
            if (found := await outcome) != errno.EHOSTUNREACH or self.api.pods.dialled:
                return found

    async def connect(self):
        """Dial, check the success, and return the streams."""
        sock = await self.dial()
        assert isinstance(sock, socket.socket)
        reader, writer = await asyncio.open_connection(sock=sock)
        self._stack.callback(writer.close)
        return reader, writer


@pytest.fixture
async def rig():
    async with contextlib.AsyncExitStack() as stack:
        yield Rig(await stack.enter_async_context(FakeApiServer()), stack)


async def silent(reader, _writer):
    await reader.read()


async def test_bytes_are_forwarded_in_both_directions(rig):
    async def echo(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)

    await rig.serve(echo)
    reader, writer = await rig.connect()
    sent = bytes(range(256)) * 4096
    writer.write(sent)
    assert await reader.readexactly(len(sent)) == sent


async def test_another_port_of_a_pod_is_dialled_at_the_same_pod(rig):
    await rig.serve(silent)
    outcome = await rig.dial(WEB._replace(port=PORT + 7))
    assert outcome == errno.ECONNREFUSED
    assert rig.api.pods.dialled[-1] == f"shop/web-1:{PORT + 7}"


async def test_a_response_after_the_clients_fin_arrives(rig):
    async def answer(reader, writer):
        question = await reader.readexactly(8)
        await asked.wait()
        writer.write(b"answer to " + question)

    asked = asyncio.Event()
    await rig.serve(answer, half_closed_s=60)
    reader, writer = await rig.connect()
    writer.write(b"question")
    writer.write_eof()
    asked.set()
    assert await reader.read() == b"answer to question"


async def test_a_response_after_a_fin_can_last_longer_than_the_silence_timeout(rig, monkeypatch):
    async def answer(_reader, writer):
        while piece := await pieces.get():
            writer.write(piece)

    pieces, loop, passed_s = asyncio.Queue(), asyncio.get_running_loop(), 0.0
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + passed_s)
    await rig.serve(answer)
    reader, writer = await rig.connect()
    writer.write_eof()
    for piece in (b"a", b"b", b"c", b""):
        pieces.put_nowait(piece)
        assert await reader.read(1) == piece
        passed_s += 0.8 * HALF_CLOSED_S


async def test_a_pod_silent_after_a_clients_fin_gets_eof(rig):
    ended = asyncio.Event()

    async def wait_for_end(reader, _writer):
        assert await reader.read() == b"question"
        ended.set()

    await rig.serve(wait_for_end, half_closed_s=0.05)
    reader, writer = await rig.connect()
    writer.write(b"question")
    writer.write_eof()
    assert await reader.read() == b""
    await asyncio.wait_for(ended.wait(), 60)


async def test_a_client_reset_closes_the_pods_connection_immediately(rig):
    ended = asyncio.Event()

    async def wait_for_end(reader, _writer):
        await reader.read()
        ended.set()

    await rig.serve(wait_for_end, half_closed_s=600)
    _, writer = await rig.connect()
    reset(writer)
    await asyncio.wait_for(ended.wait(), 60)


async def test_a_pod_reset_resets_the_client(rig):
    async def reset_it(reader, writer):
        await reader.readexactly(1)
        reset(writer)

    await rig.serve(reset_it)
    reader, writer = await rig.connect()
    writer.write(b"hello")
    with pytest.raises(ConnectionResetError):
        await reader.read()


async def test_a_broken_stream_resets_the_client(rig):
    await rig.serve(silent)
    reader, _ = await rig.connect()
    rig.api.pods.break_streams()
    with pytest.raises(ConnectionResetError):
        await reader.read()


async def test_an_abandoned_dial_has_no_outcome(rig):
    await rig.serve(silent)
    await rig.connect()
    rig.api.pods.hold()
    outcomes = []
    give_up = rig.forwarder.dial("shop/web:http", WEB, outcomes.append)
    await rig.api.until(lambda api: len(api.pods.dialled) == 2)
    give_up()
    give_up()
    rig.api.pods.release()
    await rig.connect()
    assert outcomes == []


async def test_stopping_the_forwarder_resets_connections_and_fails_further_dials(rig):
    await rig.serve(silent)
    reader, _ = await rig.connect()
    await rig.stop()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await until(lambda: not rig.api.pods.open)
    assert await rig.dial() == errno.EHOSTUNREACH


async def test_a_removed_endpoint_is_unreachable(rig):
    await rig.serve(silent)
    await rig.connect()
    assert await rig.dial(GONE) == errno.EHOSTUNREACH


async def test_the_address_of_a_pod_is_unreachable_through_another_service_port(rig):
    await rig.serve(silent)
    await rig.connect()
    assert await rig.dial(WEB, "tenant/evil:http") == errno.EHOSTUNREACH
    assert rig.api.pods.dialled == ["shop/web-1:8080"]


async def test_dials_to_a_closed_port_or_a_vanished_pod_fail_and_log_one_line(rig, caplog):
    await rig.serve(silent)
    await rig.connect()
    rig.api.pods.run("web-1", {}, "shop")
    assert [await rig.dial() for _ in range(2)] == [errno.ECONNREFUSED] * 2
    rig.api.pods.kill("web-1", "shop")
    assert await rig.dial() == errno.EHOSTUNREACH
    lines = [record.getMessage() for record in caplog.records if "port-forward" in record.msg]
    assert len(lines) == 1
    assert lines[0].startswith("port-forward failed: pod shop/web-1, port 8080: ")


async def test_a_dial_without_a_free_descriptor_fails_with_emfile(rig, monkeypatch):
    await rig.serve(silent)
    await rig.connect()

    def none_left(*_args, **_more):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("userspace_proxy_kubectl.forward.port_forwarder._loopback_pair", none_left)
    assert await rig.dial() == errno.EMFILE
    await until(lambda: rig.api.pods.open == 1)


async def echo_once(reader, writer):
    writer.write(await reader.readexactly(5))


async def test_an_idle_stream_survives_a_load_balancers_idle_limit(rig):
    async with Balancer(rig.api, limit_s=20) as balancer:
        await rig.serve(echo_once, url=balancer.url, pause=balancer.pause)
        reader, writer = await rig.connect()
        for _ in range(12):
            # The stream waits for its next ping, and the forwarder for its next check.
            await until(lambda: balancer.pauses == 2)
            balancer.pass_time(PING_S)
            await until(lambda: not balancer.idle_s, "a ping passes")
        writer.write(b"later")
        assert await reader.readexactly(5) == b"later"


async def test_a_stream_cut_by_a_load_balancer_resets_the_client(rig):
    async def never(_seconds):
        await asyncio.Event().wait()

    async with Balancer(rig.api, limit_s=20) as balancer:
        await rig.serve(echo_once, url=balancer.url, pause=never)
        reader, _ = await rig.connect()
        balancer.pass_time(20)
        with pytest.raises(ConnectionResetError):
            await reader.read()


@pytest.mark.parametrize("asleep_s", [0, 8 * 3600])
async def test_watches_are_restarted_only_after_the_machine_has_slept(rig, asleep_s):
    unix_s, pauses = 0.0, asyncio.Queue()

    async def pause(seconds):
        nonlocal unix_s
        await pauses.get()
        unix_s += seconds + asleep_s

    await rig.serve(silent, pause=pause, unix=lambda: unix_s)
    async with rig.client.stream("/api/v1/services", {"watch": "1"}) as watch:
        await rig.api.until(lambda api: api.watch_count("services") == 1)
        pauses.put_nowait(None)
        await until(lambda: unix_s and pauses.empty())
        if asleep_s:
            with pytest.raises(TransportError):
                await watch.read(silence_s=30)
        else:
            with pytest.raises(TimeoutError):
                await watch.read(silence_s=0.05)
