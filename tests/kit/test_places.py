import contextlib
import errno
import os
import select
import signal
import socket
import sys
import threading

import pytest

from tests.processes import started
from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.places import BackendPlace, family_of

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("type_", [TCP, UDP])
def test_a_bound_socket_has_the_backends_address(host, type_):
    place = BackendPlace(host)
    with place.bind(type_, place.address) as bound:
        assert bound.getsockname()[0] == host
        assert bound.getsockname()[1] > 0
        assert (bound.family, bound.type) == (family_of(host), type_)


def test_a_tcp_port_can_be_rebound_despite_time_wait():
    place = BackendPlace()
    with place.bind(TCP, place.address) as listener, place.open_socket(TCP) as client:
        listener.listen()
        address = SocketAddress(*listener.getsockname())
        client.connect(address)
        # The side that closes first holds the port in TIME_WAIT.
        listener.accept()[0].close()
    place.bind(TCP, address).close()


def test_an_address_in_use_is_an_error():
    place = BackendPlace()
    with place.bind(UDP, place.address) as bound, pytest.raises(OSError, match="in use") as caught:
        place.bind(UDP, SocketAddress(*bound.getsockname()))
    assert caught.value.errno == errno.EADDRINUSE


def test_the_given_arguments_end_the_command_of_a_backend():
    assert BackendPlace().command(["no-such-program"]) == ["no-such-program"]
    assert list(BackendPlace().command(["sh", "-c", "a b"]))[-3:] == ["sh", "-c", "a b"]
    BackendPlace().leave()


def test_a_program_started_by_another_thread_is_not_tied_to_it():
    commands = []
    thread = threading.Thread(target=lambda: commands.append(BackendPlace().command(["sh"])))
    thread.start()
    thread.join()
    assert commands == [["sh"]]


# A script that starts a program, prints the program's PID, waits for a line, then kills itself.
DIES = """
import os, signal, sys
from userspace_proxy_testing.places import BackendPlace
import subprocess

program = "import signal; print(flush=True); signal.pause()"
command = BackendPlace().command([sys.executable, "-c", program])
child = subprocess.Popen(command, stdout=subprocess.PIPE)
# From here on setpriv has asked for the signal.
child.stdout.readline()
print(child.pid, flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_ends_with_this_process_even_after_sigkill():
    with started([sys.executable, "-c", DIES]) as dies:
        program = os.pidfd_open(int(dies.stdout.readline()))
        try:
            dies.communicate("\n", timeout=60)
            ended = select.poll()
            ended.register(program, select.POLLIN)
            assert ended.poll(60_000)
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(program, signal.SIGKILL)
            os.close(program)
