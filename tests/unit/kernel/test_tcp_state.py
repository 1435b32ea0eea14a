import contextlib
import ctypes
import errno
import socket
import struct
import time

import pytest

from tests.cluster.waiting import wait_for
from tests.netns import Net
from userspace_proxy.kernel.tcp_state import (
    CLOSE_WAIT,
    LOSS_S,
    TcpInfo,
    endpoint_loss,
    is_connected,
    loss,
    reset_as,
    silence,
    since_sent_s,
    tcp_info,
    unacknowledged_bytes,
    unread_bytes,
)
from userspace_proxy.model import Failure
from userspace_proxy.model.connection_ends import EndedBy

ESTABLISHED = 1


def test_a_socket_is_connected_after_the_handshake():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        assert not is_connected(client)
        client.connect(server.getsockname())
        assert is_connected(client)


def test_silence_is_measured_from_the_last_data_and_not_from_the_fin():
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


def test_the_time_since_a_fin_is_measured_even_after_a_reset():
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


def test_the_time_since_the_last_sent_data_is_measured():
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


def test_unread_bytes_exclude_a_fin():
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
        assert unread_bytes(receiver) == 0, "a closed peer left bytes"


def test_unacknowledged_bytes_and_retransmissions_are_counted():
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


SO_ATTACH_FILTER = 26
# The lengths include the TCP header; an acknowledgement has 20 to 60 bytes.
LARGE, ALL = 1000, 0
RETRANSMITS, PROBES = 2, 3


class Ends:
    """A connection: the proxy's socket, and the peer's socket."""

    def __init__(self, stack):
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.other = stack.enter_context(socket.create_connection(server.getsockname()))
        self.ours = stack.enter_context(server.accept()[0])
        for sock in (self.ours, self.other):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def tcp_info(self, index):
        return self.ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, index + 1)[index]

    def is_sent_again(self, times=2):
        return self.tcp_info(RETRANSMITS) >= times

    def leaves(self, how):
        """Close the peer's socket, with a FIN or a RST."""
        if how == "reset":
            self.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.other.close()
        if how == "reset":
            wait_for("the RST", lambda: not is_connected(self.ours))
        else:
            self.ours.settimeout(60.0)
            assert self.ours.recv(1) == b""


def drop(sock, longer_than):
    """Drop packets to a socket that are longer than this, headers included."""
    # ld len; jgt #longer_than ? ret 0 : ret all
    code = ((0x80, 0, 0, 0), (0x25, 0, 1, longer_than), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    filters = struct.pack("@HP", len(code), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def accept_all(sock):
    drop(sock, 0xFFFFFFFF)


@pytest.fixture
def made():
    with contextlib.ExitStack() as stack:
        yield Ends(stack), Ends(stack)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_packets_count_as_lost_if_the_client_acknowledges_no_response_bytes(made, how):
    client, endpoint = made
    drop(client.other, LARGE)
    client.ours.send(b"a" * 3000)
    wait_for("it is sent again", client.is_sent_again)
    client.leaves(how)
    assert loss(client.ours, endpoint.ours, LOSS_S) is Failure.NOT_TO_CLIENT
    assert loss(client.ours, endpoint.ours, LOSS_S - 0.01) is None
    assert loss(client.ours, endpoint.ours, LOSS_S, errno.ETIMEDOUT) is None, "no FIN or RST"


@pytest.mark.parametrize("leaves", ["close", "reset", ""])
def test_data_that_a_rule_of_this_node_drops_counts_as_lost(leaves):
    net = Net("node")
    with contextlib.closing(net), contextlib.ExitStack() as stack:
        with net:
            client, endpoint = Ends(stack), Ends(stack)
        at = client if leaves else endpoint
        port = at.ours.getsockname()[1]
        net.run(
            "nft add table ip f; nft add chain ip f out '{ type filter hook output priority 0; }'"
            f"; nft add rule ip f out tcp sport {port} drop"
        )
        at.ours.send(b"a" * 3000)
        if leaves:
            at.leaves(leaves)
        failure = Failure.NOT_TO_CLIENT if leaves else Failure.NOT_TO_ENDPOINT
        assert loss(client.ours, endpoint.ours, LOSS_S) is failure


def test_packet_loss_towards_the_endpoint_is_reported_before_loss_towards_the_client(made):
    client, endpoint = made
    for each in made:
        drop(each.other, LARGE)
        each.ours.send(b"a" * 3000)
    for each in made:
        wait_for("it is sent again", each.is_sent_again)
    assert endpoint_loss(endpoint.ours) is Failure.NOT_TO_ENDPOINT
    assert loss(client.ours, endpoint.ours, LOSS_S) is Failure.NOT_TO_ENDPOINT
    # Bytes that were sent to the endpoint before its FIN don't matter.
    endpoint.ours.shutdown(socket.SHUT_WR)
    assert endpoint_loss(endpoint.ours) is Failure.NOT_TO_ENDPOINT


@pytest.mark.parametrize("has_ended", [False, True])
def test_out_of_order_bytes_show_that_an_endpoints_packets_are_lost(made, has_ended):
    client, endpoint = made
    drop(endpoint.ours, LARGE)
    endpoint.other.send(b"a" * 3000)
    endpoint.other.send(b"tail")
    if has_ended:
        endpoint.other.shutdown(socket.SHUT_WR)
        endpoint.ours.shutdown(socket.SHUT_WR)
    assert endpoint_loss(endpoint.ours) is None, "the gap may be filled"
    wait_for("a while", lambda: silence(endpoint.ours)[0] >= LOSS_S)
    assert loss(client.ours, endpoint.ours, LOSS_S) is Failure.FROM_ENDPOINT


@pytest.mark.parametrize("sends", ["nothing", "bytes", "end"])
def test_neither_unread_bytes_nor_a_fin_count_as_packet_loss(made, sends):
    client, endpoint = made
    if sends == "bytes":
        endpoint.other.send(b"not read")
    elif sends == "end":
        endpoint.other.shutdown(socket.SHUT_WR)
    wait_for("a while", lambda: silence(endpoint.ours)[0] >= LOSS_S)
    assert loss(client.ours, endpoint.ours, LOSS_S) is None


@pytest.mark.parametrize("at_call", range(1, 6))
def test_a_fin_arriving_during_a_check_does_not_count_as_packet_loss(made, at_call):
    _, endpoint = made
    endpoint.ours.setblocking(False)

    class Looked:
        """The endpoint's socket, whose peer closes before one of the calls."""

        def __init__(self):
            self._left = at_call

        def __getattr__(self, name):
            return getattr(endpoint.ours, name)

        def getsockopt(self, level, option, *size):
            self._left -= 1
            if self._left == 0:
                endpoint.other.close()
                wait_for("the FIN", lambda: endpoint.tcp_info(0) == CLOSE_WAIT)
            return endpoint.ours.getsockopt(level, option, *size)

    wait_for("silence", lambda: silence(endpoint.ours)[0] >= LOSS_S)
    assert endpoint_loss(Looked()) is None


def test_a_client_that_does_not_read_does_not_count_as_packet_loss(made):
    client, endpoint = made
    client.ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.ours.send(bytes(65536))
    wait_for("it is probed", lambda: client.tcp_info(PROBES) >= 1)
    assert loss(client.ours, endpoint.ours, LOSS_S) is None
    client.leaves("reset")
    assert loss(client.ours, endpoint.ours, LOSS_S) is None


def test_a_single_retransmission_does_not_count_as_packet_loss(made):
    client, endpoint = made
    drop(client.other, LARGE)
    client.ours.send(b"a" * 3000)
    wait_for("it is sent again", lambda: client.is_sent_again(1))
    assert loss(client.ours, endpoint.ours, LOSS_S) is None
    accept_all(client.other)
    assert len(client.other.recv(3000, socket.MSG_WAITALL)) == 3000
    client.leaves("close")
    assert loss(client.ours, endpoint.ours, LOSS_S) is None


def test_an_unacknowledged_fin_does_not_count_as_packet_loss(made):
    client, endpoint = made
    drop(client.other, ALL)
    client.ours.shutdown(socket.SHUT_WR)
    wait_for("it is sent again", client.is_sent_again)
    assert loss(client.ours, endpoint.ours, LOSS_S) is None


@pytest.mark.parametrize(
    ("gone", "number", "shown"),
    [
        ("client", errno.ECONNRESET, ("reset", EndedBy.CLIENT)),
        ("client", errno.ETIMEDOUT, ("timed out", EndedBy.CLIENT)),
        ("endpoint", errno.ECONNRESET, ("reset", EndedBy.ENDPOINT)),
        ("both", None, ("reset", EndedBy.CLIENT)),
    ],
    ids=["reset-by-client", "client-timed-out", "reset-by-endpoint", "reset-by-both"],
)
def test_a_lost_connection_is_attributed_to_the_side_that_ended_it_or_the_client_if_both_did(
    made, gone, number, shown
):
    client, endpoint = made
    for name, each in (("client", client), ("endpoint", endpoint)):
        if gone in (name, "both"):
            each.leaves("reset")
    assert reset_as(number, client.ours, endpoint.ours) == shown
