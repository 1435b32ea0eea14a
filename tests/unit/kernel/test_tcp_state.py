import socket
import time

from userspace_proxy.kernel.tcp_state import is_connected, silent_s, unheard_s


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
                while silent_s(receiver) < 0.05:
                    pass
                client.shutdown(socket.SHUT_WR)
                assert receiver.recv(4) == b""
                assert 0.05 <= silent_s(receiver) <= time.monotonic() - began + 0.05


def test_a_fin_is_heard_and_the_rst_that_answers_a_byte_after_it_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            receiver, _ = server.accept()
            client.send(b"data")
        with receiver:
            ended = time.monotonic()
            assert receiver.recv(4) == b"data"
            while unheard_s(receiver) < 0.05:
                pass
            receiver.send(b"late")
            while not receiver.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                pass
            assert 0.05 <= unheard_s(receiver) <= time.monotonic() - ended + 0.05
