"""The kinds of backends, and their stop and restart."""

import asyncio
import atexit
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import types

import pytest

from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.model import SocketAddress
from userspace_proxy_testing import backends
from userspace_proxy_testing.backend import BackendError
from userspace_proxy_testing.backend_arguments import ReadyCommand
from userspace_proxy_testing.backends import echo, http, make_backend

from .clusters import refuses

SERVER = [
    sys.executable,
    "-m",
    "userspace_proxy_testing.sandbox.backends",
    "--tcp={port}",
    "--name=cmd",
]


@pytest.fixture
def make():
    """Yield a function that makes backends, which are closed at the end."""
    thread, made = LoopThread(), []
    thread.start()

    def make(like=None, *, name="web-1", protocol="TCP"):
        made.append(make_backend(like, name=name, protocol=protocol, thread=thread))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    thread.close()


def ask(address, sent=b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"):
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            return stream.read()


def test_a_udp_backend_replies_with_its_name_and_the_datagram_and_refuses_while_stopped(make):
    backend = make(protocol="UDP")
    for _ in range(2):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.sendto(b"hello", backend.address)
            assert client.recv(100) == b"web-1: hello"
        backend.stop()
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect(backend.address)
            client.send(b"hello")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)
        backend.start()


@pytest.mark.parametrize(
    ("like", "sent", "answer"),
    [
        pytest.param(echo, b"hello", b"hello", id="echo"),
        pytest.param(http("hi"), b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\nhi", id="http"),
        pytest.param(
            lambda request: request.path, b"GET /x HTTP/1.1\r\n\r\n", b"\r\n\r\n/x", id="function"
        ),
    ],
)
def test_a_function_can_be_a_backend(make, like, sent, answer):
    assert ask(make(like).address, sent).endswith(answer)


@pytest.mark.parametrize("like", [None, echo, SERVER], ids=["http", "echo", "command"])
def test_the_port_of_a_stopped_backend_is_reserved(make, like):
    backend = make(like)
    backend.stop()
    assert refuses(backend.address)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(backend.address)
    backend.start()
    backend.close()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(backend.address)


def test_closing_a_backend_detects_a_program_still_listening_at_its_address(make):
    backend = make()
    backend.stop()
    with socket.create_server(backend.address):
        backend.close()
    assert backend.is_left


def test_a_stopped_backend_resets_and_refuses_and_restarts_at_its_address(make):
    backend = make(echo)
    address = backend.address
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        backend.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert refuses(address)
    assert repr(backend) == f"<Backend web-1 at {address}, stopped>"
    backend.stop()
    backend.start()
    backend.start()
    assert backend.address == address
    assert ask(address, b"hello") == b"hello"
    assert repr(backend) == f"<Backend web-1 at {address}>"


def test_a_client_connecting_during_a_stop_is_reset(make):
    backend = make(echo)
    for _ in range(20):
        with socket.create_connection(backend.address, timeout=60) as client:
            backend.stop()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        backend.start()


def test_a_command_can_be_a_backend(make, monkeypatch):
    monkeypatch.setenv("PORT", "1")
    backend = make(["sh", "-c", 'exec "$@" --tcp=$PORT', "sh", *SERVER[:3], SERVER[4]])
    assert ask(backend.address).endswith(b"cmd\n")
    backend.stop()
    assert refuses(backend.address)
    assert repr(backend).endswith(", stopped>")
    backend.start()
    assert ask(backend.address).endswith(b"cmd\n")


def test_a_commands_children_are_killed_with_the_backend(make, tmp_path):
    pid = tmp_path / "pid"
    script = f'sleep 1000 & echo $! >{pid}.part; mv {pid}.part {pid}; exec "$@"'
    backend = make(["sh", "-c", script, "sh", *SERVER])
    child = os.pidfd_open(int(pid.read_text()))
    try:
        backend.stop()
        ended = select.poll()
        ended.register(child, select.POLLIN)
        assert ended.poll(60_000)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, signal.SIGKILL)
        os.close(child)


def test_a_command_that_exited_is_reported_as_stopped_and_can_be_restarted(make):
    backend = make(SERVER)
    os.kill(backend._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, backend._process.pid, os.WEXITED | os.WNOWAIT)
    assert backend.state == "stopped"
    backend.start()
    assert backend.state == ""
    assert ask(backend.address).endswith(b"cmd\n")


def test_a_command_ends_when_the_program_exits_without_closing_its_proxy():
    # Commands that other threads start aren't tied to the process.
    program = f"""
from threading import Thread
from userspace_proxy_testing import ServiceProxy
proxy = ServiceProxy()
proxy.start()
start = Thread(target=proxy.service, kwargs=dict(backends=[{SERVER}]))
start.start()
start.join()
print("address", *proxy.services[0].backends[0].address)
raise SystemExit(3)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    # The command writes to the same stream, so a part of its line may precede the address.
    [(host, port)] = re.findall(r"address (\S+) (\d+)", ran.stdout)
    assert ran.returncode == 3
    assert refuses((host, int(port)))


def test_an_exiting_forked_child_does_not_end_its_parents_commands(make):
    backend = make(SERVER)
    child = os.fork()
    if not child:
        # Run the exit handlers, as sys.exit() would, without raising SystemExit into pytest.
        atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(child, 0)
    assert not refuses(backend.address)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(["no-such-program"], "cannot start backend web-1", id="missing"),
        pytest.param(
            [sys.executable, "-c", "raise SystemExit(3)"],
            r"ended with status 3: cannot connect to [\d.]+:\d+: Connection refused",
            id="ends",
        ),
        pytest.param(
            [sys.executable, "-c", "raise SystemExit('no such database')"],
            r"ended with status 1: .*; its stderr:\nno such database\n",
            id="writes",
        ),
    ],
)
def test_a_command_that_exits_without_serving_fails_immediately(make, command, words, monkeypatch):
    monkeypatch.setattr(backends, "_COMMAND_READY_S", 3600.0)
    with pytest.raises(BackendError, match=words):
        make(command)


def test_a_command_not_listening_at_its_address_is_an_error_with_its_stderr(make, monkeypatch):
    monkeypatch.setattr(backends, "_COMMAND_READY_S", 0.5)
    words = r"is not ready after 0 s: cannot connect to .*: Connection refused"
    with pytest.raises(BackendError, match=words) as caught:
        make(["sh", "-c", "echo at 8080 >&2; exec sleep 1000"])
    assert "its stderr:\nat 8080\n" in str(caught.value)


def test_a_command_is_ready_once_its_ready_function_stops_returning_false(make):
    answers = [False, False, None]
    backend = make(ReadyCommand(SERVER, ready=lambda address: answers.pop(0)))
    assert not answers
    assert ask(backend.address).endswith(b"cmd\n")


LATE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
first, _ = listener.accept()
first.recv(1)
print("it is up: 1", file=(sys.stdout, sys.stderr)[int(sys.argv[2]) - 1], flush=True)
listener.accept()
"""
"""A server that accepts one connection, before it is ready."""


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_command_is_ready_after_printing_the_ready_text(make, capfd, descriptor):
    make(ReadyCommand([sys.executable, "-c", LATE, "{port}", str(descriptor)], ready="is up"))
    assert capfd.readouterr()[descriptor - 1] == "it is up: 1\n"


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_command_that_never_becomes_ready_is_an_error_with_the_reason(make, monkeypatch, is_slow):
    now = [0.0]
    monkeypatch.setattr(backends, "Clocks", types.SimpleNamespace(monotonic=lambda: now[0]))

    def ready(_address):
        now[0] = 1e9
        if is_slow:
            return False
        raise LookupError("the database system is starting up")

    words = "ready returns False" if is_slow else "LookupError: the database system is starting up"
    with pytest.raises(BackendError, match=f"not ready after 20 s: .*{words}"):
        make(ReadyCommand(SERVER, ready=ready))


def test_a_pattern_given_as_ready_text_is_mentioned_in_the_error(make, monkeypatch):
    monkeypatch.setattr(backends, "_COMMAND_READY_S", 3.0)
    with pytest.raises(BackendError, match="a text and no pattern"):
        make(ReadyCommand(SERVER, ready="is .*"))


def test_a_commands_stderr_is_forwarded(make, capfd):
    make(["sh", "-c", 'echo ready >&2; exec "$@"', "sh", *SERVER])
    assert "ready\n" in capfd.readouterr().err


def test_an_address_served_by_another_program_can_be_a_backend(make):
    assert make("192.0.2.1:80").address == SocketAddress("192.0.2.1", 80)
    assert make(("192.0.2.1", 81)).address == SocketAddress("192.0.2.1", 81)


def test_a_function_cannot_be_a_udp_backend(make):
    with pytest.raises(TypeError, match="can't be a UDP backend"):
        make(echo, protocol="UDP")


def test_an_exception_of_a_stream_function_is_logged_with_the_backend(make, caplog):
    async def fail(reader, writer):
        raise LookupError("no such thing")

    assert ask(make(fail).address, b"") == b""
    assert caplog.messages == ["web-1: backend function raised an exception"]
    assert "LookupError: no such thing" in caplog.text


def test_a_stream_function_raising_system_exit_closes_only_its_connection(make, caplog):
    async def leave(reader, writer):
        sys.exit("no more")

    backend = make(leave)
    assert ask(backend.address, b"") == b""
    assert ask(backend.address, b"") == b""
    assert "SystemExit: no more" in caplog.text


def test_a_backends_coroutines_are_cancelled_with_the_backend(make):
    began, ended = threading.Event(), threading.Event()

    async def wait(reader, writer):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    backend = make(wait)
    with socket.create_connection(backend.address, timeout=60):
        assert began.wait(60)
        backend.stop()
        assert ended.wait(60)
