import socket
import time

from tests.unit.kernel.test_tcp_ends import ALL, accept_all, drop
from userspace_proxy.kernel.tcp_state import (
    CLOSE_WAIT,
    TcpInfo,
    is_connected,
    silence,
    since_sent_s,
    tcp_info,
    unacknowledged_bytes,
    unread_bytes,
)

ESTABLISHED = 1


def test_a_dial_is_answered_once_the_kernel_is_connected():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        assert not is_connected(client)
        client.connect(server.getsockname())
        assert is_connected(client)


def test_the_silence_begins_with_the_last_data_and_not_with_the_fin():
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with socket.create_connection(server.getsockname()) as client:
            receiver, _ = server.accept()
            with receiver:
                client.send(b"data")
                assert receiver.recv(4) == b"data"
                while silence(receiver)[0] < 0.05:
                    pass
                client.shutdown(socket.SHUT_WR)
                assert receiver.recv(4) == b""
                assert 0.05 <= silence(receiver)[0] <= time.monotonic() - began + 0.05


def test_a_fin_is_heard_and_the_rst_that_answers_a_byte_after_it_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            receiver, _ = server.accept()
            client.send(b"data")
        with receiver:
            ended = time.monotonic()
            assert receiver.recv(4) == b"data"
            while silence(receiver)[1] < 0.05:
                pass
            receiver.send(b"late")
            while not receiver.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                pass
            assert 0.05 <= silence(receiver)[1] <= time.monotonic() - ended + 0.05


def test_a_socket_has_said_nothing_since_its_last_data_whatever_comes():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as asking,
        server.accept()[0] as other,
    ):
        asking.send(b"question")
        while since_sent_s(asking) < 0.1:
            pass
        other.send(b"answer")
        assert asking.recv(6) == b"answer"
        other.shutdown(socket.SHUT_WR)
        assert asking.recv(6) == b""
        assert since_sent_s(asking) >= 0.1
        asking.send(b"more")
        assert since_sent_s(asking) < 0.1


def test_bytes_are_unread_until_they_are_read_and_a_fin_is_none():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            receiver, _ = server.accept()
            client.send(b"data")
            while unread_bytes(receiver) < 4:
                pass
        with receiver:
            assert receiver.recv(4) == b"data"
            while tcp_info(receiver).state != CLOSE_WAIT:
                pass
            assert unread_bytes(receiver) == 0


def test_what_is_not_acknowledged_is_counted_and_sent_again():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as receiver,
    ):
        assert tcp_info(client) == TcpInfo(ESTABLISHED, sent_again=0, probed=0)
        drop(receiver, longer_than=ALL)
        client.send(b"data")
        assert unacknowledged_bytes(client) == 4
        while not tcp_info(client).sent_again:
            pass
        accept_all(receiver)
        while unacknowledged_bytes(client):
            pass
        assert tcp_info(client) == TcpInfo(ESTABLISHED, sent_again=0, probed=0)
