import socket

from userspace_proxy.kernel.socket_memory import buffered_bytes, packets_lost


def test_what_a_socket_has_received_counts_until_it_is_read():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        assert buffered_bytes(receiver) == 0
        receiver.sendto(bytes(10_000), receiver.getsockname())
        assert buffered_bytes(receiver) >= 10_000
        receiver.recv(10_000)
        assert buffered_bytes(receiver) == 0


def test_datagrams_for_which_there_is_no_room_are_counted():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        assert packets_lost(receiver) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(bytes(1000), receiver.getsockname())
        assert packets_lost(receiver) > 50
