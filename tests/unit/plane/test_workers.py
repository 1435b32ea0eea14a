"""A plane with real workers: how clients are distributed, and what happens if a worker dies.

test_link.py has what all planes keep.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import default_workers
from userspace_proxy.plane import workers as pools

from ..dataplane.peers import UdpPeer, dial
from ..dataplane.waiting import until
from .shop import TCP, UDP, Shop

CLIENTS = [f"127.0.1.{number}" for number in range(1, 13)]


def is_gone(pid):
    """Return whether a process has ended, even if its parent hasn't waited for it."""
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
    shop.update(web, *addresses, affinity_timeout_s=60.0)
    await shop.plane.refresh()
    assert len({await shop.place_of(web, pods, CLIENTS[0]) for _ in range(10)}) == 1
    shop.update(web, *addresses)
    await shop.plane.refresh()
    assert len({await shop.place_of(web, pods, CLIENTS[0]) for _ in range(10)}) == 2


# -- a worker dies ---------------------------------------------------------------


async def test_clients_that_dial_while_a_worker_is_dead_wait_and_are_served(shop):
    pod = shop.endpoint()
    web = shop.serve([pod])
    os.kill(shop.pids[0], signal.SIGKILL)
    clients = [await shop.client(web) for _ in range(20)]
    for _ in clients:
        server = await pod.accept()
        await server.send(b"hello")
    assert [await client.read() for client in clients] == [b"hello"] * 20
    await shop.is_restarted(0, times=1)


async def test_udp_clients_that_send_while_a_worker_is_dead_are_served(shop):
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


async def test_a_death_is_in_the_log_and_in_the_state(shop, caplog):
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


async def test_the_successor_does_not_serve_listeners_that_refuse(shop):
    pod = shop.endpoint()
    web, dns = shop.serve([pod]), shop.serve([shop.udp_peer()], protocol=UDP)
    for service in (web, dns):
        shop.update(service)
    os.kill(shop.pids[0], signal.SIGKILL)
    await shop.is_restarted(0, times=1)
    await shop.plane.refresh()
    with pytest.raises(ConnectionRefusedError):
        await dial(SocketAddress("127.0.0.1", web.address.port))
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=dns.address.port)
    shop.update(web, pod.address)
    assert {await shop.place_of(web, [pod]) for _ in range(10)} == {0}


async def test_udp_is_refused_though_a_worker_dies_between_refusal_and_closing(shop):
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
    client = shop.udp_client(dns)
    client.send(b"hello")
    with pytest.raises(ConnectionRefusedError):
        await client.receive()


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


async def test_a_worker_that_keeps_dying_of_its_start_does_not_affect_the_others(shop):
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
    await until(lambda: shop.workers[1].asked == {})
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


async def test_a_refresh_does_not_wait_for_a_stuck_worker(shop):
    loop = asyncio.get_running_loop()
    os.kill(shop.pids[0], signal.SIGSTOP)
    began = loop.time()
    await shop.plane.refresh()
    assert loop.time() - began < 5
    os.kill(shop.pids[0], signal.SIGCONT)
    await shop.plane.refresh()


async def test_a_refresh_does_not_wait_for_a_worker_that_dies(shop):
    pid = shop.pids[0]
    os.kill(pid, signal.SIGSTOP)
    refreshing = asyncio.create_task(shop.plane.refresh())
    await until(lambda: shop.workers[0].asked)
    os.kill(pid, signal.SIGKILL)
    await refreshing
    await shop.is_restarted(0, times=1)
    # Its reports are not owed by its successor, which would count as stuck.
    assert shop.workers[0].asked == {}


async def test_a_drain_ends_with_the_last_worker_even_if_it_dies(shop):
    pod = shop.endpoint()
    pairs = [await shop.connect_by(worker, shop.serve([pod]), pod) for worker in (0, 1)]
    draining = asyncio.create_task(shop.plane.drain(60))
    await until(lambda: shop.workers[0].drained is not None)
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
from userspace_proxy.dataplane import Serving
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import Plane, Wanted
async def main():
    plane = Plane(asyncio.get_running_loop(), 2)
    plane.start()
    at = SocketAddress("127.0.0.1", 0)
    wanted = {protocol: Wanted(protocol, (at,)) for protocol in Protocol}
    serving = Serving((SocketAddress("127.0.0.1", 9),))
    answer = plane.serve(plane.open_group("shop/web"), serving, wanted)
    while sum(worker.is_running for worker in plane._workers) < 2:
        await plane.refresh()
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(int))])
    ports = [answer.listeners[protocol].address.port for protocol in Protocol]
    print(*(worker.pid for worker in plane.state().workers), *ports, flush=True)
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
    # The first worker's message is sent to the second one before it answers.
    await shop.plane.refresh()
    for _ in range(20):
        await shop.pair(web, pod)
    assert min(await shop.open_connections()) > 0
    assert web.group.totals().failures == 1
    assert set(web.group.ejected(shop.timers.now)) == {dead}


# -- figures -----------------------------------------------------------------------


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
