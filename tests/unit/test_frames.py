import socket
import threading

import pytest

from userspace_proxy.frames import make_frame, receive_frame, send_frame


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_frames_are_received_one_by_one(ends):
    ours, theirs = ends
    send_frame(ours, b"one")
    send_frame(ours, b"")
    assert receive_frame(theirs) == (b"one", [])
    assert receive_frame(theirs) == (b"", [])


def test_sockets_are_passed_with_their_message(ends):
    ours, theirs = ends
    with socket.create_server(("127.0.0.1", 0)) as listener:
        send_frame(ours, b"two", listener, ours)
        send_frame(ours, b"none")
        message, (first, second) = receive_frame(theirs)
        with first, second:
            assert message == b"two"
            assert first.getsockname() == listener.getsockname()
            assert second.family == socket.AF_UNIX
    assert receive_frame(theirs) == (b"none", [])


def test_a_message_longer_than_the_socket_buffer_arrives(ends):
    ours, theirs = ends
    message = b"0123456789" * 1_000_000
    sender = threading.Thread(target=send_frame, args=(ours, message, ours))
    sender.start()
    arrived, (passed,) = receive_frame(theirs)
    sender.join()
    passed.close()
    assert arrived == message


@pytest.mark.parametrize("sent", [0, 1, 4, 5, 7], ids=str)
def test_a_truncated_message_counts_as_a_closed_connection(ends, sent):
    ours, theirs = ends
    ours.sendall(make_frame(b"four")[:sent])
    ours.close()
    with pytest.raises(EOFError):
        receive_frame(theirs)
