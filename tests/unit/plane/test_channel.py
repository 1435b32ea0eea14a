"""One end of a channel against a raw socket or another end, without a running event loop."""

import os
import socket
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import channel as channels
from userspace_proxy.plane.channel import MAX_WAITING_BYTES, Channel
from userspace_proxy.plane.messages import (
    CloseGroup,
    Drain,
    FromWorker,
    Logged,
    OpenListener,
    Report,
    ToWorker,
)

from ..dataplane.rig import open_sockets

LONG = Logged("userspace_proxy", 20, 0.0, "x" * 300_000, {}, "")
AT = SocketAddress("0.0.0.0", 80)
Message = ToWorker | FromWorker
encode = msgspec.json.encode
GARBAGE = b"\0\0\0\5\0hello"


class Loop:
    """The readers and writers of an event loop; the test calls them."""

    def __init__(self):
        self.readers, self.writers = {}, {}
        self.add_reader, self.add_writer = self.readers.__setitem__, self.writers.__setitem__

    def remove_reader(self, fd):
        self.readers.pop(fd, None)

    def remove_writer(self, fd):
        self.writers.pop(fd, None)

    def turn(self):
        """Call all readers and writers once."""
        for callback in [*self.readers.values(), *self.writers.values()]:
            callback()


@dataclass
class End:
    """A channel, and the messages and errors that it has reported."""

    loop: Loop
    got: list[tuple[Message, list[int]]] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    channel: Channel | None = None

    @property
    def messages(self):
        return [message for message, _ in self.got]

    @property
    def losses(self):
        return len(self.why)

    def close(self):
        self.channel.close()
        for _, descriptors in self.got:
            for descriptor in descriptors:
                os.close(descriptor)


def end_of(sock, **kwargs):
    end = End(Loop())
    end.channel = Channel(
        end.loop,
        sock,
        reads=Message,
        receive=lambda *arrived: end.got.append(arrived),
        lost=end.why.append,
        **kwargs,
    )
    return end


@pytest.fixture
def make():
    """Yield a function that returns an end and the raw socket of its peer."""
    before, closers = open_sockets(), []

    def make(**kwargs):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        end = end_of(ours, **kwargs)
        closers.extend((end, theirs))
        return end, theirs

    yield make
    for closer in closers:
        closer.close()
    assert open_sockets() == before, "a descriptor was left open"


@pytest.fixture
def ends(make):
    """Both ends of one channel."""
    first, raw = make()
    second = end_of(raw.dup())
    raw.close()
    yield first, second
    second.close()


def frames(*messages):
    """Return the bytes of messages on the wire."""
    ours, theirs = socket.socketpair()
    with theirs:
        end = end_of(ours)
        for message in messages:
            end.channel.send(message)
        end.close()
        return take_all_until_eof(theirs)


def take_all_until_eof(sock):
    with sock.makefile("rb") as stream:
        return stream.read()


@given(st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=30))
def test_frames_split_anywhere_arrive_whole_and_in_order(sizes):
    sent = [Report(1), OpenListener(7, 3, Protocol.TCP, AT), CloseGroup(2), Drain(0.5)]
    wire = frames(*sent)
    ours, theirs = socket.socketpair()
    end = end_of(ours)
    with theirs:
        while wire:
            size = sizes[len(wire) % len(sizes)]
            theirs.send(wire[:size])
            wire = wire[size:]
            end.channel.read()
    assert end.messages == sent
    end.close()


def turn_until(end, count):
    """Run up to 1,000 turns of an end's loop, until this many messages have arrived."""
    for _ in range(1000):
        if len(end.messages) >= count:
            return
        end.loop.turn()


def test_a_long_queue_lets_other_loop_callbacks_run(make, monkeypatch):
    monkeypatch.setattr(channels, "_READ_S", 0)
    end, theirs = make()
    wire = frames(*[Logged("userspace_proxy", 20, 0.0, "x" * 900, {}, "")] * 20)
    while True:
        try:
            theirs.sendall(wire)
        except BlockingIOError:
            break
    end.loop.turn()
    taken = sum(len(encode(message)) + 5 for message in end.messages)
    assert 0 < taken <= channels._READ_BYTES


def test_a_deferred_message_is_encoded_when_it_is_sent(ends):
    sender, receiver = ends
    made = []

    def make():
        made.append(True)
        return Report(2)

    for message in (LONG, LONG):
        sender.channel.send(message)
    sender.channel.send_later(make)
    sender.channel.send(Report(3))
    sender.loop.turn()
    assert not made, "the long messages fill the socket"
    while sender.loop.writers:
        receiver.loop.turn()
        sender.loop.turn()
    turn_until(receiver, 4)
    assert receiver.messages == [LONG, LONG, Report(2), Report(3)]
    assert (made, sender.channel.waiting_bytes) == ([True], 0)


def test_an_oversized_message_is_dropped_and_the_channel_stays_open(ends, caplog):
    sender, receiver = ends
    huge = Logged("userspace_proxy", 20, 0.0, "x" * (channels.MAX_FRAME_BYTES + 1), {}, "")
    sender.channel.send(huge)
    sender.channel.send_later(lambda: huge)
    sender.channel.send(Report(1))
    sender.loop.turn()
    turn_until(receiver, 1)
    assert (receiver.messages, receiver.losses, sender.losses) == ([Report(1)], 0, 0)
    assert sender.channel.waiting_bytes == 0
    assert [record.getMessage() for record in caplog.records] == [
        "Logged message is too large for a worker's channel, dropping it"
    ] * 2


def inodes(descriptors):
    return [os.fstat(descriptor).st_ino for descriptor in descriptors]


def test_sockets_arrive_in_order_with_their_messages(ends):
    sender, receiver = ends
    with socket.socket() as first, socket.socket() as second:
        sender.channel.send(Report(1))
        sender.channel.send(OpenListener(1, 0, Protocol.TCP, AT), first)
        sender.channel.send(Report(2))
        sender.channel.send(OpenListener(2, 0, Protocol.TCP, AT), second)
        expected = [[], inodes([first.fileno()]), [], inodes([second.fileno()])]
        sender.loop.turn()
        turn_until(receiver, 4)
        assert [inodes(descriptors) for _, descriptors in receiver.got] == expected
        assert not any(os.get_inheritable(d) for _, (d, *_) in receiver.got[1::2])


def test_a_message_with_a_closed_socket_is_dropped(ends):
    sender, receiver = ends
    sender.channel.send(LONG)
    with socket.socket() as short_lived:
        sender.channel.send(OpenListener(7, 0, Protocol.TCP, AT), short_lived)
    sender.channel.send(Report(2))
    while sender.loop.writers:
        receiver.loop.turn()
        sender.loop.turn()
    turn_until(receiver, 2)
    assert receiver.messages == [LONG, Report(2)]
    assert (sender.channel.waiting_bytes, sender.losses) == (0, 0)


def test_sockets_of_a_partial_message_are_closed_with_the_channel(make):
    end, theirs = make()
    with socket.socket() as sock:
        socket.send_fds(theirs, [frames(Report(1))[:3]], [sock.fileno()])
    before = open_sockets()
    end.channel.read()
    assert open_sockets() == before + 1
    end.channel.close()
    assert open_sockets() == before - 1


@pytest.mark.parametrize("is_later", [False, True], ids=["messages", "messages-for-later"])
def test_a_peer_that_does_not_read_counts_as_lost_and_other_peers_continue(make, ends, is_later):
    slow, _ = make()
    sender, receiver = ends
    size = channels._LATER_BYTES if is_later else len(encode(LONG))
    sent = 0
    while sent * size < 2 * MAX_WAITING_BYTES and not slow.losses:
        slow.channel.send_later(lambda: LONG) if is_later else slow.channel.send(LONG)
        sent += 1
    assert 0.99 < sent * size / MAX_WAITING_BYTES < 1.01
    assert (slow.losses, slow.channel.is_stalled) == (1, True)
    assert (slow.loop.readers, slow.loop.writers) == ({}, {})
    sender.channel.send(Report(1))
    sender.loop.turn()
    turn_until(receiver, 1)
    assert (receiver.messages, sender.losses) == ([Report(1)], 0)


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(GARBAGE, id="no-message"),
        pytest.param(b"\xff\xff\xff\xff\0", id="too-long"),
        pytest.param(frames(Report(1))[:4] + b"\1" + encode(Report(1)), id="a-missing-socket"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="another-protocol"),
    ],
)
def test_a_malformed_message_closes_the_channel(make, nonsense):
    end, theirs = make()
    theirs.send(frames(Report(7)) + nonsense + frames(Report(8)))
    end.channel.read()
    assert (end.messages, end.losses) == ([Report(7)], 1)
    assert end.why[0], "the reason is reported"
    assert not end.loop.readers


def test_received_sockets_that_no_message_claims_are_closed(make):
    end, theirs = make()
    before = open_sockets()
    with socket.socket() as sock:
        for _ in range(3):
            socket.send_fds(theirs, [frames(Report(1))], [sock.fileno()] * 100)
        end.channel.read()
        assert end.losses == 1
    assert open_sockets() == before - 1


@pytest.mark.parametrize("is_rude", [False, True], ids=["eof", "unread-data"])
def test_the_close_of_a_channel_by_its_peer_is_reported_once(make, is_rude):
    end, theirs = make()
    if is_rude:
        end.channel.send(Report(1))
    theirs.close()
    for _ in range(2):
        end.channel.read()
    end.channel.send(Report(2))
    assert end.why == [""]


def test_messages_sent_before_a_close_are_delivered_after_a_failed_send(make):
    end, theirs = make()
    body = encode(CloseGroup(7))
    theirs.sendall(channels.make_frame(body, 0))
    theirs.close()
    end.channel.send(Report(1))
    for callback in [*end.loop.writers.values()]:
        callback()
    assert end.messages == [CloseGroup(7)]
    assert end.losses == 1


def test_closing_a_channel_sends_the_queued_messages(make):
    end, theirs = make()
    end.channel.send(Report(1))
    end.channel.send(Report(2))
    end.channel.close()
    assert take_all_until_eof(theirs) == frames(Report(1), Report(2))


def test_queued_messages_share_a_system_call_up_to_the_descriptor_limit(make):
    end, theirs = make()
    with socket.socket() as sock:
        for number in range(300):
            end.channel.send(Report(number))
            end.channel.send(OpenListener(number, 0, Protocol.TCP, AT), sock)
        end.loop.turn()
    for expected in (253, 47):
        # A recvmsg() stops before the data of the next sendmsg() that carries descriptors.
        _, descriptors, _, _ = socket.recv_fds(theirs, 1 << 20, 300)
        for descriptor in descriptors:
            os.close(descriptor)
        assert len(descriptors) == expected


def test_a_closed_channel_calls_no_receiver(make):
    end, theirs = make()
    theirs.send(frames(Report(1)))
    for _ in range(2):
        end.channel.close()
    end.channel.read()
    end.channel.send(Report(2))
    assert (end.got, end.losses) == ([], 0)
    assert (end.loop.readers, end.loop.writers) == ({}, {})


def test_no_message_is_delivered_after_the_receiver_closed_the_channel(make):
    end, theirs = make()
    end.channel._receive = lambda message, _: (end.got.append((message, [])), end.channel.close())
    theirs.send(frames(Report(1), Report(2)))
    end.channel.read()
    assert end.messages == [Report(1)]
