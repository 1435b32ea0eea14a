import socket
import struct
import threading

import pytest

from tests.unit.port_numbers import free_port
from userspace_proxy.explain.dial import dial, dial_all
from userspace_proxy.model import CauseCode, SocketAddress


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def accepting(server, then):
    def accept():
        connection, _ = server.accept()
        with connection:
            then(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    return thread


def address_of(server):
    return SocketAddress(*server.getsockname())


def test_an_endpoint_that_accepts_and_waits_answers(listener):
    result = dial(address_of(listener))
    assert result.cause is None
    assert 0 < result.seconds < 1


def test_an_endpoint_that_speaks_first_answers(listener):
    thread = accepting(listener, lambda connection: connection.sendall(b"220 ready"))
    result = dial(address_of(listener))
    thread.join()
    assert result.cause is None


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["close", "reset"])
def test_an_endpoint_that_ends_connections_at_once_does_not(end, listener):
    thread = accepting(listener, end)
    result = dial(address_of(listener))
    thread.join()
    assert result.cause is not None
    assert result.cause.code is CauseCode.ENDPOINT_RESETS


def test_a_port_without_a_listener_refuses():
    result = dial(SocketAddress("127.0.0.1", free_port()))
    assert result.cause is not None
    assert result.cause.code is CauseCode.ENDPOINT_REFUSES
    assert result.error == "Connection refused"


def test_silence_ends_after_the_deadline(listener):
    """A full accept queue drops further SYNs, like a silent host."""
    listener.listen(0)
    with socket.create_connection(listener.getsockname()):
        results = [dial(address_of(listener), silence_s=0.05) for _ in range(3)]
    causes = [result.cause for result in results if result.cause is not None]
    assert {cause.code for cause in causes} == {CauseCode.ENDPOINT_SILENT}


def test_an_address_of_another_family_is_dialled(listener):
    result = dial(SocketAddress("::1", free_port()))
    assert result.cause is not None


def test_all_addresses_are_dialled_once(listener):
    at, dead = address_of(listener), SocketAddress("127.0.0.1", free_port())
    results = dial_all([at, dead, at])
    assert {address: result.cause is None for address, result in results.items()} == {
        str(at): True,
        str(dead): False,
    }
    assert dial_all([]) == {}
