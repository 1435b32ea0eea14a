import socket
import time

from userspace_proxy.kernel.tcp_silence import silent_s


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
