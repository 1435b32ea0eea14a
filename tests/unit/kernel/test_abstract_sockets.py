import os
import re
import socket

import pytest

from userspace_proxy.kernel import abstract_sockets

NAME = "\0userspace-proxy-test"


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(NAME)
        sock.listen(1)
        yield sock


def test_a_listener_is_shown_and_found(listener):
    shown = [m[1] for m in abstract_sockets.shown_names(f"@({re.escape(NAME[1:])})")]
    assert shown == [NAME[1:].encode()]
    assert abstract_sockets.find_listeners([NAME]) == {NAME: os.getpid()}


def test_a_name_without_a_listener_is_left_out():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(NAME)
        assert abstract_sockets.find_listeners([NAME]) == {}
    with pytest.raises(ConnectionRefusedError):
        abstract_sockets.connect(NAME)


def test_both_ends_know_each_other(listener):
    with abstract_sockets.connect(NAME) as client, listener.accept()[0] as server:
        assert abstract_sockets.is_trusted(server)
        assert abstract_sockets.peer(client) == (os.getpid(), os.geteuid())


def test_the_listener_of_another_user_counts_for_nothing(listener, monkeypatch):
    monkeypatch.setattr(abstract_sockets, "peer", lambda _sock: (1, os.geteuid() + 1))
    with pytest.raises(PermissionError):
        abstract_sockets.connect(NAME)
    assert abstract_sockets.find_listeners([NAME]) == {}
