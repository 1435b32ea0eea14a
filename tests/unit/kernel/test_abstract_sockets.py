import contextlib
import errno
import os
import re
import socket
import threading

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel import abstract_sockets
from userspace_proxy.kernel.abstract_sockets import ProvenSocket

NAME = "\0userspace-proxy-test"


@pytest.fixture
def listener():
    with ProvenSocket(NAME) as sock:
        sock.setblocking(True)
        sock.listen(1)
        yield sock


@pytest.fixture
def unvouched():
    """A listener without a proof socket, as root without CAP_NET_ADMIN would open it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(NAME)
        sock.listen(1)
        yield sock


def test_an_abstract_socket_listener_is_listed_and_found(listener):
    shown = [m[1] for m in abstract_sockets.shown_names(f"@({re.escape(NAME[1:])})")]
    assert shown == [NAME[1:].encode()]
    assert abstract_sockets.find_listeners([NAME]) == {NAME: os.getpid()}


def test_a_listener_without_a_proof_socket_is_ignored(unvouched):
    assert list(abstract_sockets.shown_names(f"@({re.escape(NAME[1:])})")) == []
    with pytest.raises(PermissionError):
        abstract_sockets.connect(NAME)
    assert abstract_sockets.find_listeners([NAME]) == {}
    fill(unvouched)
    assert abstract_sockets.find_listeners([NAME]) == {}


WITHOUT_CAPABILITIES = f"""
from userspace_proxy.kernel import abstract_sockets
abstract_sockets.connect({NAME!r}).close()
print({{match[0] for match in abstract_sockets.shown_names("@userspace-proxy-test")}})
"""


def test_a_process_that_cannot_create_proofs_trusts_listeners_of_its_own_user(unvouched):
    assert run_without_capabilities(WITHOUT_CAPABILITIES) == "{b' @userspace-proxy-test'}\n"


def test_listening_on_a_name_in_use_leaves_no_proof_socket(unvouched):
    with pytest.raises(OSError, match="Address already in use"):
        ProvenSocket(NAME)
    with pytest.raises(PermissionError):
        abstract_sockets.connect(NAME)


def test_a_socket_name_without_a_listener_is_omitted():
    with ProvenSocket(NAME):
        assert abstract_sockets.find_listeners([NAME]) == {}
    with pytest.raises(ConnectionRefusedError):
        abstract_sockets.connect(NAME)


def test_both_ends_of_a_connection_identify_their_peers(listener):
    with abstract_sockets.connect(NAME) as client, listener.accept()[0] as server:
        assert abstract_sockets.is_trusted(server)
        assert abstract_sockets.peer(client) == (os.getpid(), os.geteuid())


def test_another_users_listener_is_not_trusted(listener, monkeypatch):
    monkeypatch.setattr(abstract_sockets, "peer", lambda _sock: (1, os.geteuid() + 1))
    with pytest.raises(PermissionError):
        abstract_sockets.connect(NAME)
    assert abstract_sockets.find_listeners([NAME]) == {}


def fill(_listener):
    """Fill the listener's accept queue; closing the clients doesn't remove its connections."""
    with contextlib.ExitStack() as stack, contextlib.suppress(BlockingIOError):
        while True:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect(NAME)


@pytest.fixture
def full(listener):
    """A listener whose accept queue is full."""
    fill(listener)
    return listener


def test_a_trusted_listener_with_a_full_queue_is_found(full):
    assert abstract_sockets.find_listeners([NAME]) == {NAME: 0}
    with pytest.raises(BlockingIOError):
        abstract_sockets.connect(NAME)


def test_connect_each_waits_for_room_in_the_accept_queue(full):
    def accept():
        full.accept()[0].close()

    timer = threading.Timer(0.05, accept)
    timer.start()
    ((_, sock),) = abstract_sockets.connect_each([NAME], 60.0)
    sock.close()
    timer.join()


def test_another_users_listener_with_a_full_queue_is_ignored(full, monkeypatch):
    monkeypatch.setattr(abstract_sockets, "user_of_listener", lambda _name: os.geteuid() + 1)
    assert abstract_sockets.find_listeners([NAME]) == {}
    with pytest.raises(PermissionError):
        abstract_sockets.connect(NAME)


def test_a_listener_with_a_full_queue_and_an_unknown_owner_is_trusted(full, monkeypatch):
    def refuse(_name):
        raise OSError(errno.ENOENT, "no unix_diag")

    monkeypatch.setattr(abstract_sockets, "user_of_listener", refuse)
    assert abstract_sockets.find_listeners([NAME]) == {NAME: 0}


def test_a_listener_that_closes_while_its_queue_is_full_is_not_found(full, monkeypatch):
    def end(_seconds_left, *_args):
        full.close()
        return [], [], []

    monkeypatch.setattr(abstract_sockets.select, "select", end)
    assert abstract_sockets.find_listeners([NAME]) == {}
