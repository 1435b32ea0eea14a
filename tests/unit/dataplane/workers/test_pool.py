"""A pool with real workers: who serves whom, and what becomes of those that die.

test_base.py has what all data planes keep.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from userspace_proxy.dataplane import Tuning, WorkerPool, default_workers
from userspace_proxy.dataplane.workers import pool as pools
from userspace_proxy.dataplane.workers.messages import (
    ChangeGroup,
    CloseListener,
    OpenListener,
    PauseListener,
    ResumeListener,
)
from userspace_proxy.errors import ShortageError
from userspace_proxy.model import Protocol, SocketAddress

from ..house import House, open_sockets
from ..peers import TcpEndpoint, UdpPeer, dial
from ..timers import TimerLoop
from ..waiting import until

TCP, UDP = Protocol.TCP, Protocol.UDP
CLIENTS = [f"127.0.1.{number}" for number in range(1, 13)]


class Shop(House):
    """A house whose data plane is a pool; its timers wait for the test, which lets time pass."""

    def __init__(self, count, tuning=None):
        self.timers = TimerLoop(asyncio.get_running_loop())
        super().__init__(
            plane=WorkerPool(self.timers, count, tuning, clock=self.timers.clock),
        )

    async def open(self):
        """Start the workers and wait until they run."""
        self.plane.start()
        await self.all_run()

    async def all_run(self):
        await until(lambda: all(worker.is_running for worker in self.plane._workers))

    @property
    def pids(self):
        return [worker.pid for worker in self.plane.state().workers]

    @property
    def restarts(self):
        return [worker.restarts for worker in self.plane.state().workers]

    async def is_restarted(self, worker, times):
        """Return when a worker runs that took the place of those before it."""
        await until(lambda: self.restarts[worker] == times and self.pids[worker])
        await self.all_run()

    async def place_of(self, service, pods, client=None):
        """Return which of these endpoints a new client comes to."""
        to = SocketAddress("127.0.0.1", service.address.port)
        if service.listener.protocol is TCP:
            self.keep(await dial(to, source=client))
        else:
            self.keep(UdpPeer(client or "127.0.0.1", to=to)).send(b"question")
        found = []

        def has_come():
            for place, pod in enumerate(pods):
                is_here = pod.accept_now() if isinstance(pod, TcpEndpoint) else pod.received()
                if is_here:
                    found.append(place)
            return found

        await until(has_come)
        return found[0]

    def pods(self, count, protocol=TCP):
        return [self.endpoint() if protocol is TCP else self.udp_peer() for _ in range(count)]

    def serve(self, pods, *, protocol=TCP, affinity_timeout_s=None, at="0.0.0.0"):
        return self.service(
            *(pod.address for pod in pods),
            protocol=protocol,
            at=at,
            affinity_timeout_s=affinity_timeout_s,
        )

    async def connect_by(self, worker, service, pod):
        """Return both ends of a new connection that this worker carries."""
        while True:
            before = await self.open_connections()
            client, server = await self.pair(service, pod)
            if (await self.open_connections())[worker] > before[worker]:
                return client, server

    async def open_connections(self):
        await self.plane.refresh()
        return [worker.connections for worker in self.plane.state().workers]


@pytest.fixture
async def make():
    before, shops = open_sockets(), []

    async def make(count=2, **kwargs):
        shops.append(Shop(count, **kwargs))
        await shops[-1].open()
        return shops[-1]

    yield make
    for shop in shops:
        shop.close()
        assert shop.bugs == []
        assert shop.timers.waiting == 0
    assert open_sockets() == before, "a socket was left open"


@pytest.fixture
async def shop(make):
    return await make()


def is_gone(pid):
    """Tell whether a process has ended, whoever its parent is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# -- whose turn it is ------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_turns_are_strict_with_one_worker(make, protocol):
    shop = await make(1)
    pods = shop.pods(3, protocol)
    web = shop.serve(pods, protocol=protocol)
    assert [await shop.place_of(web, pods) for _ in range(9)] == [0, 1, 2] * 3


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_turns_are_fair_in_sum_with_two(shop, protocol):
    pods = shop.pods(3, protocol)
    web = shop.serve(pods, protocol=protocol)
    counts = Counter([await shop.place_of(web, pods) for _ in range(50)])
    assert sum(counts.values()) == 50
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_with_affinity_a_client_has_one_endpoint_and_workers_share_the_clients(
    shop, protocol
):
    pods = shop.pods(3, protocol)
    web = shop.serve(pods, protocol=protocol, affinity_timeout_s=60.0)
    places = {client: {await shop.place_of(web, pods, client)} for client in CLIENTS}
    for client in CLIENTS * 3:
        places[client].add(await shop.place_of(web, pods, client))
    assert {len(seen) for seen in places.values()} == {1}
    assert set.union(*places.values()) == {0, 1, 2}
    if protocol is TCP:
        assert min(await shop.open_connections()) > 0


async def test_affinity_may_begin_and_end_while_it_serves(shop):
    pods = shop.pods(2)
    web = shop.serve(pods)
    addresses = [pod.address for pod in pods]
    shop.plane.update(web.group, addresses, affinity_timeout_s=60.0)
    await shop.plane.refresh()
    assert len({await shop.place_of(web, pods, CLIENTS[0]) for _ in range(10)}) == 1
    shop.plane.update(web.group, addresses, affinity_timeout_s=None)
    await shop.plane.refresh()
    assert len({await shop.place_of(web, pods, CLIENTS[0]) for _ in range(10)}) == 2


# -- a worker dies ---------------------------------------------------------------


async def test_who_comes_while_a_worker_is_dead_waits_and_is_served(shop):
    pod = shop.endpoint()
    web = shop.serve([pod])
    os.kill(shop.pids[0], signal.SIGKILL)
    clients = [await shop.client(web) for _ in range(20)]
    for _ in clients:
        server = await pod.accept()
        await server.send(b"hello")
    assert [await client.read() for client in clients] == [b"hello"] * 20
    await shop.is_restarted(0, times=1)


async def test_udp_clients_who_come_while_a_worker_is_dead_are_served(shop):
    pod = shop.udp_peer()
    dns = shop.serve([pod], protocol=UDP)
    os.kill(shop.pids[0], signal.SIGKILL)
    for _ in range(20):
        shop.udp_client(dns).send(b"question")
    got = []
    await until(lambda: got.extend(pod.received()) or len(got) == 20)
    await shop.is_restarted(0, times=1)


async def test_the_successor_has_the_same_sockets_and_the_pins_of_others_stay(shop):
    pods = shop.pods(3)
    web = shop.serve(pods, affinity_timeout_s=60.0)
    places = {client: await shop.place_of(web, pods, client) for client in CLIENTS}
    sockets = inodes(web)
    os.kill(shop.pids[0], signal.SIGKILL)
    await shop.is_restarted(0, times=1)
    assert inodes(web) == sockets
    by_other = [client for client in CLIENTS if int(client.rpartition(".")[2]) % 2]
    assert {client: await shop.place_of(web, pods, client) for client in by_other} == {
        client: places[client] for client in by_other
    }


def inodes(service):
    socks = service.listener.sockets.by_worker.values()
    return [os.fstat(sock.fileno()).st_ino for sock in socks]


async def test_open_connections_of_other_workers_go_on(shop):
    pod = shop.endpoint()
    web = shop.serve([pod], at="127.0.0.1")
    dead, alive = [await shop.connect_by(worker, web, pod) for worker in (0, 1)]
    os.kill(shop.pids[0], signal.SIGKILL)
    await shop.is_restarted(0, times=1)
    with contextlib.suppress(ConnectionResetError):
        assert await dead[0].read() == b""
    await alive[0].send(b"still here")
    assert await alive[1].read() == b"still here"


async def test_what_a_dead_worker_counted_stays_and_its_open_connections_do_not(shop):
    pod = shop.endpoint()
    web = shop.serve([pod], at="127.0.0.1")
    for worker in (0, 1):
        client, server = await shop.connect_by(worker, web, pod)
        await client.send(b"12345")
        await server.read_exactly(5)
    open_then = await shop.open_connections()
    before = web.group.totals()
    os.kill(shop.pids[0], signal.SIGKILL)
    await shop.is_restarted(0, times=1)
    assert await shop.open_connections() == [0, open_then[1]]
    after = web.group.totals()
    assert (after.connections, after.received_bytes) == (before.connections, before.received_bytes)
    assert (before.active, after.active) == (sum(open_then), open_then[1])


async def test_a_death_is_told_in_the_log_and_in_the_state(shop, caplog):
    caplog.set_level(logging.INFO)
    pid = shop.pids[1]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: shop.restarts == [0, 1])
    cause = "worker 1 ended by signal 9 and is started again"
    assert shop.plane.state().problems == (cause,)
    await shop.is_restarted(1, times=1)
    assert shop.plane.state().problems == ()
    said = [(r.getMessage(), r.worker) for r in caplog.records if "worker" in vars(r)]
    assert said == [("a worker is missing", 1), ("worker runs", 1)]
    assert caplog.records[0].cause == cause
    assert shop.pids[1] != pid


async def test_the_successor_knows_who_refuses(shop):
    pod = shop.endpoint()
    web, dns = shop.serve([pod]), shop.serve([shop.udp_peer()], protocol=UDP)
    for service in (web, dns):
        shop.update(service)
    os.kill(shop.pids[0], signal.SIGKILL)
    await shop.is_restarted(0, times=1)
    await shop.plane.refresh()
    with pytest.raises(ConnectionRefusedError):
        await dial(SocketAddress("127.0.0.1", web.address.port))
    # Nobody holds the port of UDP that refuses.
    shop.keep(UdpPeer(port=dns.address.port)).close()
    shop.update(web, pod.address)
    assert {await shop.place_of(web, [pod]) for _ in range(10)} == {0}


async def test_a_worker_that_dies_between_refusal_and_closing_holds_no_port(shop):
    pod = shop.udp_peer()
    dns = shop.serve([pod], protocol=UDP)
    for pid in shop.pids:
        os.kill(pid, signal.SIGSTOP)
    shop.update(dns)
    os.kill(shop.pids[0], signal.SIGKILL)
    await until(lambda: shop.restarts[0] == 1)
    os.kill(shop.pids[1], signal.SIGCONT)
    await shop.all_run()
    await until(lambda: dns.listener.sockets.by_worker == {})
    await shop.plane.refresh()
    shop.keep(UdpPeer(port=dns.address.port)).close()


async def test_a_refusing_udp_port_is_kept_until_every_copy_is_closed(make):
    """Else who serves again meanwhile finds it taken: by our own worker."""
    shop = await make(1)
    pod = shop.udp_peer()
    dns = shop.serve([pod], protocol=UDP)
    (worker,) = shop.plane._workers
    os.kill(shop.pids[0], signal.SIGSTOP)
    for endpoints in ((), (pod.address,), ()):
        shop.update(dns, *endpoints)
    for is_kept in (True, False):
        shop.plane._on_listener_closed(worker, dns.listener.number)
        assert bool(dns.listener.sockets.by_worker) is is_kept
    os.kill(shop.pids[0], signal.SIGCONT)


async def test_the_second_of_two_short_lives_is_followed_by_a_pause(shop):
    for times in (1, 2):
        os.kill(shop.pids[0], signal.SIGKILL)
        await until(lambda times=times: shop.restarts[0] == times)
        if times == 1:
            await shop.all_run()
    assert shop.pids[0] == 0
    assert shop.plane.state().is_running
    shop.timers.advance(pools._SHORT_LIFE_S - 0.1)
    assert shop.pids[0] == 0
    shop.timers.advance(0.1)
    await shop.is_restarted(0, times=2)


async def test_after_a_long_life_there_is_no_pause(shop):
    for times in (1, 2, 3):
        shop.timers.advance(pools._SHORT_LIFE_S)
        os.kill(shop.pids[0], signal.SIGKILL)
        await shop.is_restarted(0, times)


async def test_one_that_dies_of_its_start_again_and_again_hurts_nobody_else(shop):
    pod = shop.endpoint()
    web = shop.serve([pod], at="127.0.0.1")
    pair = await shop.connect_by(1, web, pod)
    for times in range(1, 5):
        os.kill(shop.pids[0], signal.SIGKILL)
        await until(lambda times=times: shop.restarts[0] == times)
        shop.timers.advance(pools._SHORT_LIFE_S - 1)
        shop.timers.advance(1)
        await until(lambda: shop.pids[0])
    await pair[0].send(b"still here")
    assert await pair[1].read() == b"still here"


# -- a worker is stuck -------------------------------------------------------------


async def test_a_stuck_worker_is_replaced(shop, caplog):
    stuck = shop.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    shop.timers.advance(pools.REPORT_S)
    await until(lambda: shop.plane._workers[1].asked == {})
    shop.timers.advance(pools.STUCK_S - 1)
    assert shop.restarts == [0, 0]
    assert "stuck" not in caplog.text
    shop.timers.advance(pools.REPORT_S)
    await shop.is_restarted(0, times=1)
    assert is_gone(stuck)
    assert "a worker is stuck" in caplog.text
    assert shop.restarts == [1, 0]


async def test_a_worker_that_is_stuck_in_its_start_is_replaced(shop):
    shop.timers.advance(pools._SHORT_LIFE_S)
    os.kill(shop.pids[0], signal.SIGKILL)
    await until(lambda: shop.restarts[0] == 1)
    stuck = shop.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    shop.timers.advance(pools.STUCK_S + pools.REPORT_S)
    await until(lambda: shop.restarts[0] == 2)
    assert is_gone(stuck)
    await shop.all_run()


async def test_who_reads_counters_does_not_wait_for_a_stuck_worker(shop):
    loop = asyncio.get_running_loop()
    os.kill(shop.pids[0], signal.SIGSTOP)
    began = loop.time()
    await shop.plane.refresh()
    assert loop.time() - began < 5
    os.kill(shop.pids[0], signal.SIGCONT)
    await shop.plane.refresh()


async def test_who_waits_for_counters_of_a_worker_that_dies_waits_no_longer(shop):
    pid = shop.pids[0]
    os.kill(pid, signal.SIGSTOP)
    refreshing = asyncio.create_task(shop.plane.refresh())
    await until(lambda: shop.plane._workers[0].asked)
    os.kill(pid, signal.SIGKILL)
    await refreshing
    await shop.is_restarted(0, times=1)
    # Its debts are not its successor's, who would be taken for stuck.
    assert shop.plane._workers[0].asked == {}


async def test_a_drain_ends_with_the_last_worker_even_if_it_dies(shop):
    pod = shop.endpoint()
    pairs = [await shop.connect_by(worker, shop.serve([pod]), pod) for worker in (0, 1)]
    draining = asyncio.create_task(shop.plane.drain(60))
    await until(lambda: shop.plane._drained is not None)
    pids = shop.pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert await draining == 0
    assert shop.restarts == [0, 0]
    assert all(map(is_gone, pids))
    assert len(pairs) == 2


# -- signals, and the end of the control process -----------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_workers_leave_signals_to_the_control_process(shop, number):
    pod = shop.endpoint()
    pids = shop.pids
    for pid in pids:
        os.kill(pid, number)
    assert {await shop.place_of(shop.serve([pod]), [pod]) for _ in range(4)} == {0}
    await shop.plane.refresh()
    assert shop.pids == pids


CONTROL = """
import asyncio, sys
from userspace_proxy.dataplane import WorkerPool
from userspace_proxy.model import Protocol, SocketAddress
async def main():
    pool = WorkerPool(asyncio.get_running_loop(), 2)
    pool.start()
    group = pool.open_group("shop/web", [SocketAddress("127.0.0.1", 9)], affinity_timeout_s=None)
    at = SocketAddress("127.0.0.1", 0)
    ports = [pool.listen(group, protocol, at).address.port for protocol in Protocol]
    while sum(worker.is_running for worker in pool._workers) < 2:
        await pool.refresh()
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(int))])
    print(*(worker.pid for worker in pool.state().workers), *ports, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_when_the_control_process_is_killed_its_workers_end_and_the_ports_are_free():
    control = subprocess.Popen(  # noqa: ASYNC220 - the test waits for what it says
        [sys.executable, "-c", CONTROL], stdout=subprocess.PIPE, text=True
    )
    with control:
        first, second, tcp, udp = map(int, control.stdout.readline().split())
        control.kill()
    await until(lambda: is_gone(first) and is_gone(second))
    for kind, port in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.bind(("127.0.0.1", port))


# -- descriptors -------------------------------------------------------------------


@contextlib.contextmanager
def descriptor_limit(limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_short_of_descriptors_a_listener_has_one_socket_and_then_none(make):
    limit = pools._RESERVE * 2 + 40
    with descriptor_limit(limit):
        shop = await make()
    pod = shop.endpoint()
    group = shop.plane.open_group("shop/web", [pod.address], affinity_timeout_s=None)

    def listen():
        return shop.keep(shop.plane.listen(group, TCP, SocketAddress("127.0.0.1", 0)))

    twice = limit // 4
    once = limit - pools._RESERVE - twice * 2
    listeners = [listen() for _ in range(twice + once)]
    with pytest.raises(ShortageError, match="half of the descriptors"):
        listen()
    sizes = [len(listener.workers) for listener in listeners]
    assert sizes == [2] * twice + [1] * once
    # They take turns, and each serves.
    assert {listener.workers for listener in listeners[-4:]} == {(0,), (1,)}
    for listener in listeners[-4:]:
        shop.keep(await dial(listener.address))
        await pod.accept()
    listeners[0].close()
    listen()


async def test_closed_listeners_leave_nothing_behind(shop):
    await shop.plane.refresh()
    before = open_sockets(), shop.plane.state().descriptors
    group = shop.plane.open_group("shop/web", [], affinity_timeout_s=None)
    for protocol in list(Protocol) * 5:
        shop.plane.listen(group, protocol, SocketAddress("127.0.0.1", 0)).close()
    shop.plane.update(group, [shop.refusing()], affinity_timeout_s=None)
    for protocol in list(Protocol) * 5:
        shop.plane.listen(group, protocol, SocketAddress("127.0.0.1", 0)).close()
    shop.plane.close_group(group)
    await until(lambda: not shop.plane._leaving)
    await shop.plane.refresh()
    shop.dismiss()
    assert (open_sockets(), shop.plane.state().descriptors) == before
    assert (shop.plane._socket_count, shop.plane._groups, shop.plane._listeners) == (0, {}, {})


# -- what one learns, all know -----------------------------------------------------


@pytest.mark.parametrize("kind", ["refusing", "silent"])
async def test_an_endpoint_that_one_worker_found_dead_is_dialled_by_no_other(make, kind):
    shop = await make(tuning=Tuning(connect_timeout_s=0.2))
    pod = shop.endpoint()
    dead = getattr(shop, kind)()
    web = shop.service(pod.address, dead)
    # Worker 1's first turn is the second endpoint's.
    while not web.group.totals().failures:
        await shop.pair(web, pod)
        await shop.plane.refresh()
    # The first has told the second before it has answered.
    await shop.plane.refresh()
    for _ in range(20):
        await shop.pair(web, pod)
    assert min(await shop.open_connections()) > 0
    assert web.group.totals().failures == 1
    assert set(web.group.ejected(shop.timers.now)) == {dead}


# -- figures -----------------------------------------------------------------------


async def test_a_change_tells_workers_what_changed_and_no_more(shop):
    pods = [SocketAddress("10.0.0.1", port) for port in range(1, 1001)]
    group = shop.plane.open_group("shop/web", pods, affinity_timeout_s=None)
    sent = []
    for worker in shop.plane._workers:
        worker.process.send = lambda message, *socks: sent.append(message)
    shop.plane.update(group, pods, affinity_timeout_s=None)
    assert sent == []
    shop.plane.update(group, pods[1:], affinity_timeout_s=None)
    assert [(message.removed, message.added) for message in sent] == [([pods[0]], [])] * 2


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        pytest.param(TCP, [PauseListener, ChangeGroup, ChangeGroup, ResumeListener], id="tcp"),
        pytest.param(UDP, [CloseListener, ChangeGroup, ChangeGroup, OpenListener], id="udp"),
    ],
)
async def test_a_worker_accepts_only_while_it_has_endpoints(make, protocol, expected):
    """However late it hears of a change: it looks away first, and looks again last."""
    shop, sent = await make(1), []
    pods = shop.pods(1, protocol)
    web = shop.serve(pods, protocol=protocol)
    process = shop.plane._workers[0].process
    process.send = lambda message, *_socks: sent.append(type(message))
    shop.update(web)
    shop.update(web, pods[0].address)
    assert sent == expected


async def test_pipes_are_shared_out():
    pool = WorkerPool(asyncio.get_running_loop(), 4, Tuning(max_pipes=10))
    assert pool._tuning.max_pipes == 3
    assert WorkerPool(asyncio.get_running_loop(), 64)._tuning.max_pipes == 1


def test_there_is_a_worker_for_two_cores_and_four_at_the_most():
    assert default_workers() == max(1, min(4, len(os.sched_getaffinity(0)) // 2))


async def test_a_pool_whose_workers_were_not_started_yet_opens_and_serves_later():
    shop = Shop(2)
    pod = shop.endpoint()
    web = shop.serve([pod])
    client = await shop.client(web)
    assert not shop.plane.state().is_running
    await shop.open()
    server = await pod.accept()
    await client.send(b"patience")
    assert await server.read() == b"patience"
    shop.close()
