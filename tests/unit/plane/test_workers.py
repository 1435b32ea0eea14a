"""A plane with real workers: how clients are distributed, and what happens if a worker dies.

test_link.py has the guarantees of all planes.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections import Counter

import pytest

from tests.processes import started
from userspace_proxy import child
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import Protocol
from userspace_proxy.plane import Plane, default_workers
from userspace_proxy.plane import workers as slots

from ..dataplane.timers import TimerLoop
from ..dataplane.waiting import until
from .pool import TCP, UDP, Pool, is_gone

CLIENTS = [f"127.0.1.{number}" for number in range(1, 13)]


async def test_round_robin_is_fair_over_two_workers(pool):
    for protocol in Protocol:
        pods = pool.pods(3, protocol)
        web = pool.serve(pods, protocol=protocol)
        counts = Counter([await pool.place_of(web, pods) for _ in range(50)])
        assert sum(counts.values()) == 50
        assert max(counts.values()) - min(counts.values()) <= 2


async def test_with_affinity_a_client_keeps_an_endpoint_across_workers(pool):
    for protocol in Protocol:
        pods = pool.pods(3, protocol)
        web = pool.serve(pods, protocol=protocol, affinity_timeout_s=60)
        places = {client: {await pool.place_of(web, pods, client)} for client in CLIENTS}
        for client in CLIENTS * 3:
            places[client].add(await pool.place_of(web, pods, client))
        assert {len(seen) for seen in places.values()} == {1}
        assert set.union(*places.values()) == {0, 1, 2}
        if protocol is TCP:
            assert min(await pool.open_connections()) > 0


async def test_all_readers_that_wait_for_a_slow_worker_receive_its_next_report(make):
    pool = await make(1)
    pool.serve([pool.endpoint()])
    (slot,), (pid,) = pool.workers, pool.pids
    await pool.plane.refresh()
    os.kill(pid, signal.SIGSTOP)
    readers = [slot.ask() for _ in range(5)]
    os.kill(pid, signal.SIGCONT)
    await asyncio.wait_for(asyncio.gather(*readers), 60.0)
    assert not slot.asked


async def test_clients_dialling_while_a_worker_is_dead_wait_and_are_served(pool):
    pod = pool.endpoint()
    web = pool.serve([pod])
    os.kill(pool.pids[0], signal.SIGKILL)
    clients = [await pool.client(web) for _ in range(20)]
    for _ in clients:
        server = await pod.accept()
        await server.send(b"hello")
    assert [await client.read() for client in clients] == [b"hello"] * 20
    await pool.wait_for_restarts(0, times=1)
    await until(lambda: not pool.plane._listeners._substitutes._by_missing, "the substitute's end")


async def test_a_restarted_workers_sockets_and_other_workers_affinity_entries_are_kept(pool):
    pods = pool.pods(3)
    web = pool.serve(pods, affinity_timeout_s=60)
    places = {client: await pool.place_of(web, pods, client) for client in CLIENTS}
    sockets = inodes(web)
    os.kill(pool.pids[0], signal.SIGKILL)
    await pool.wait_for_restarts(0, times=1)
    assert inodes(web) == sockets
    by_other = [client for client in CLIENTS if int(client.rpartition(".")[2]) % 2]
    assert {client: await pool.place_of(web, pods, client) for client in by_other} == {
        client: places[client] for client in by_other
    }


def inodes(service):
    socks = service.listener.sockets.by_worker.values()
    return [os.fstat(sock.fileno()).st_ino for sock in socks]


async def test_open_connections_of_other_workers_continue(pool):
    pod = pool.endpoint()
    web = pool.serve([pod], at="127.0.0.1")
    dead, alive = [await pool.connect_by(worker, web, pod) for worker in (0, 1)]
    os.kill(pool.pids[0], signal.SIGKILL)
    await pool.wait_for_restarts(0, times=1)
    connections = await pool.open_connections()
    assert connections == [0, web.group.totals().active]
    with contextlib.suppress(ConnectionResetError):
        assert await dead[0].read() == b""
    await alive[0].send(b"still here")
    assert await alive[1].read() == b"still here"


async def test_a_workers_death_is_logged_and_shown_in_the_state(pool, caplog):
    caplog.set_level(logging.INFO)
    pid = pool.pids[1]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.restarts == [0, 1])
    cause = "worker 1 exited (signal 9), restarting it"
    assert pool.plane.state().problems == (cause,)
    await pool.wait_for_restarts(1, times=1)
    assert pool.plane.state().problems == ()
    said = [(r.getMessage(), r.worker) for r in caplog.records if "worker" in vars(r)]
    assert said == [(cause, 1), ("worker started", 1)]
    assert caplog.records[0].cause == "signal 9"
    assert pool.pids[1] != pid


async def test_udp_is_refused_even_if_a_worker_is_killed_before_closing_its_socket(pool):
    pod = pool.udp_peer()
    dns = pool.serve([pod], protocol=UDP)
    for pid in pool.pids:
        os.kill(pid, signal.SIGSTOP)
    pool.update(dns)
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pool.restarts[0] == 1)
    os.kill(pool.pids[1], signal.SIGCONT)
    await pool.all_run()
    await until(lambda: dns.listener.sockets.by_worker == {})
    client = pool.udp_client(dns)
    client.send(b"hello")
    with pytest.raises(ConnectionRefusedError):
        await client.receive()


@pytest.mark.long
async def test_after_repeated_early_exits_the_pause_before_a_restart_doubles(pool):
    await dies_of_its_start(pool, 1)
    for times, pause_s in enumerate((0.1, 0.2, 0.4), start=2):
        await pool.wait_for_restarts(0, times - 1)
        await dies_of_its_start(pool, times)
        assert pool.pids[0] == 0
        pool.timers.jump(pause_s - 0.01)
        assert pool.pids[0] == 0
        pool.timers.jump(0.01)
    await pool.wait_for_restarts(0, times)


async def dies_of_its_start(pool, times):
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pool.restarts[0] == times)


async def test_a_worker_that_ran_for_half_a_second_is_restarted_immediately(pool):
    for times in (1, 2):
        pool.timers.jump(slots._SOUND_S)
        os.kill(pool.pids[0], signal.SIGKILL)
        await pool.wait_for_restarts(0, times)


async def test_a_worker_that_cannot_be_started_is_retried_after_a_pause(pool, monkeypatch):
    interpreter = child.RUNNING_INTERPRETER
    monkeypatch.setattr(child, "RUNNING_INTERPRETER", "/nowhere/python")
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pool.restarts[0] == 1)
    assert pool.plane.state().problems == ("cannot start worker 0: No such file or directory",)
    monkeypatch.setattr(child, "RUNNING_INTERPRETER", interpreter)
    pool.timers.jump(0.1)
    await pool.wait_for_restarts(0, times=1)
    assert pool.plane.state().problems == ()


async def test_without_a_worker_socket_no_worker_is_started_and_the_problem_is_reported():
    timers = TimerLoop(asyncio.get_running_loop())
    # The kernel rejects a socket name of this length; running out of descriptors would fail at the
    # same step.
    plane = Plane(timers, 1, clock=timers.clock, label="x" * 100)
    with contextlib.closing(plane):
        plane.start()
        timers.jump(0.1)
        state = plane.state()
    assert [problem.partition(":")[0] for problem in state.problems] == ["cannot start worker 0"]
    assert [worker.pid for worker in state.workers] == [0]
    assert timers.waiting == 0


async def test_a_refresh_does_not_wait_for_a_stuck_worker(pool):
    os.kill(pool.pids[0], signal.SIGSTOP)
    await pool.plane.refresh()
    os.kill(pool.pids[0], signal.SIGCONT)
    await pool.plane.refresh()


async def test_a_refresh_does_not_wait_for_a_dying_worker(pool):
    pid = pool.pids[0]
    os.kill(pid, signal.SIGSTOP)
    refreshing = asyncio.create_task(pool.plane.refresh())
    await until(lambda: pool.workers[0].asked)
    os.kill(pid, signal.SIGKILL)
    await refreshing
    await pool.wait_for_restarts(0, times=1)
    # The pool expects no report any more: the replacement would never send the killed worker's.
    await until(lambda: pool.workers[0].asked == {})


async def test_a_drain_ends_with_the_last_worker_even_if_it_is_killed(pool):
    pod = pool.endpoint()
    pairs = [await pool.connect_by(worker, pool.serve([pod]), pod) for worker in (0, 1)]
    draining = asyncio.create_task(pool.plane.drain(60))
    await until(lambda: pool.workers[0].drained is not None)
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert await draining == 0
    assert pool.restarts == [0, 0]
    assert all(map(is_gone, pids))
    assert len(pairs) == 2


async def test_workers_ignore_signals_handled_by_the_control_process(pool):
    pod = pool.endpoint()
    pids = pool.pids
    for pid, number in itertools.product(pids, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        os.kill(pid, number)
    assert {await pool.place_of(pool.serve([pod]), [pod]) for _ in range(4)} == {0}
    await pool.plane.refresh()
    assert pool.pids == pids


CONTROL = """
import asyncio, sys
from userspace_proxy.model import PortKey, Protocol, ServicePortName, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane, Wanted
WEB = PortKey(ServicePortName("shop", "web", ""))
async def main():
    plane = Plane(asyncio.get_running_loop(), 2)
    plane.start()
    at = SocketAddress("127.0.0.1", 0)
    wanted = {protocol: Wanted(protocol, (at,)) for protocol in Protocol}
    serving = Serving((SocketAddress("127.0.0.1", 9),))
    answer = plane.serve(plane.open_group(WEB), serving, wanted)
    while sum(worker.is_running for worker in plane._workers) < 2:
        await plane.refresh()
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(int))])
    ports = [answer.listeners[protocol].address.port for protocol in Protocol]
    print(*(worker.pid for worker in plane.state().workers), *ports, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_killing_a_control_process_without_a_label_ends_its_workers_and_frees_the_ports():
    with started([sys.executable, "-c", CONTROL]) as control:
        first, second, tcp, udp = map(int, control.stdout.readline().split())
        control.kill()
    await until(lambda: is_gone(first) and is_gone(second))
    for kind, port in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.bind(("127.0.0.1", port))


@pytest.mark.parametrize("kind", ["refusing", "silent"])
async def test_an_endpoint_ejected_by_one_worker_is_not_dialled_by_other_workers(make, kind):
    pool = await make(tuning=Tuning(connect_timeout_s=0.2))
    pod = pool.endpoint()
    dead = getattr(pool, kind)()
    web = pool.service(pod.address, dead)
    # Worker 1 picks the second endpoint first.
    while not web.group.totals().failures:
        await pool.pair(web, pod)
        await pool.plane.refresh()
    # The first worker's result is sent to the second worker before the second one answers.
    await pool.plane.refresh()
    for _ in range(20):
        await pool.pair(web, pod)
    assert min(await pool.open_connections()) > 0
    assert web.group.totals().failures == 1
    assert set(web.group.ejected(pool.timers.now)) == {dead}


def test_the_default_number_of_workers_is_half_the_cores_up_to_four():
    assert default_workers() == max(1, min(4, len(os.sched_getaffinity(0)) // 2))


async def test_a_plane_started_later_serves_clients_that_already_wait():
    pool = Pool(2)
    pod = pool.endpoint()
    web = pool.serve([pod])
    client = await pool.client(web)
    assert not pool.plane.state().is_running
    await pool.open()
    server = await pod.accept()
    await client.send(b"patience")
    assert await server.read() == b"patience"
    pool.close()
