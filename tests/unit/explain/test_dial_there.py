"""Endpoints are dialled in the network namespace of the proxy, where a worker shows the way."""

import contextlib
import os
import socket
import subprocess

import pytest

from tests.netns import Net
from tests.unit.port_numbers import free_port
from tests.unit.status.views import make_view
from userspace_proxy.answering_child import ChildEnded
from userspace_proxy.explain.dial_there import dial_by, find_way
from userspace_proxy.facts import WorkerFacts
from userspace_proxy.kernel.own_namespace import network_namespace
from userspace_proxy.model import CauseCode, SocketAddress


@pytest.fixture
def there():
    net = Net("there")
    yield net
    net.close()


@pytest.fixture
def worker(there):
    """A process in that namespace."""
    command = ["nsenter", f"--net=/proc/self/fd/{there.fd}", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[there.fd]
    ) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def view_of(pid, namespace):
    workers = [WorkerFacts(pid=0), WorkerFacts(pid=pid)]
    return make_view(workers=workers, network_namespace=namespace)


def test_in_the_proxys_own_network_there_is_nothing_to_enter(worker):
    here = network_namespace()
    assert find_way(None) == ()
    assert find_way(view_of(worker.pid, 0)) == ()
    assert find_way(view_of(worker.pid, here)) == ()


def test_what_listens_there_answers_and_what_does_not_refuses(there, worker):
    with there, socket.create_server(("127.0.0.1", 0)) as server:
        open_at, closed_at = SocketAddress(*server.getsockname()), SocketAddress("127.0.0.1", 1)
        way = find_way(view_of(worker.pid, network_namespace(worker.pid)))
        results = dial_by(way, [open_at, closed_at])
    assert results[str(open_at)].cause is None
    assert results[str(open_at)].seconds < 60
    assert results[str(closed_at)].cause.code is CauseCode.ENDPOINT_REFUSES
    assert results[str(closed_at)].error == "Connection refused"


def test_without_a_way_dials_are_made_here():
    at = SocketAddress("127.0.0.1", free_port())
    assert dial_by((), [at])[str(at)].cause.code is CauseCode.ENDPOINT_REFUSES


def test_a_process_that_is_not_in_that_network_shows_no_way(worker):
    with contextlib.closing(Net("elsewhere")) as elsewhere:
        inode = os.fstat(elsewhere.fd).st_ino
        assert find_way(view_of(worker.pid, inode)) is None


def test_root_enters_no_user_namespace(monkeypatch):
    """Its creator could trace the child."""
    with subprocess.Popen(
        ["unshare", "-Urn", "sh", "-c", "ip link set lo up; echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        worker.stdout.readline()
        shown = view_of(worker.pid, network_namespace(worker.pid))
        way = find_way(shown)
        assert way[2:] == ("--net", "--")
        at = SocketAddress("127.0.0.1", 1)
        assert dial_by(way, [at])[str(at)].cause.code is CauseCode.ENDPOINT_REFUSES
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert find_way(shown)[2:] == ("--user", "--preserve-credentials", "--net", "--")
        worker.stdin.close()


def test_a_worker_that_has_ended_meanwhile_is_an_error(worker):
    way = find_way(view_of(worker.pid, network_namespace(worker.pid)))
    worker.stdin.close()
    worker.wait()
    with pytest.raises(ChildEnded):
        dial_by(way, [SocketAddress("127.0.0.1", 1)])
