import socket

from userspace_proxy.kernel.held_bytes import send_at_once, send_held


def test_bytes_are_held_back_until_they_are_to_be_sent_at_once():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        receiver.setblocking(False)
        send_held(sender, b"held")
        # On loopback a packet is there once it is sent.
        try:
            receiver.recv(4)
        except BlockingIOError:
            pass
        else:
            raise AssertionError("they weren't held")
        send_at_once(sender)
        assert receiver.recv(4) == b"held"


def test_a_socket_that_has_gone_takes_no_option():
    sock = socket.socket()
    sock.close()
    send_at_once(sock)
