"""Ends of connections that act as hypothesis draws, and the checks after the last action."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from hypothesis import strategies as st

from userspace_proxy.dataplane.tuning import BUFFER_BYTES

from .peers import Peer
from .rig import Rig
from .waiting import turns, until

MIB = 1 << 20

SIZES = st.one_of(st.integers(1, 3000), st.sampled_from([65536, BUFFER_BYTES, 3 * BUFFER_BYTES]))
ACTIONS = st.one_of(
    st.tuples(st.just("send"), SIZES),
    st.tuples(st.just("read"), SIZES),
    st.tuples(st.just("pause"), st.integers(1, 3)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("reset"), st.just(0)),
)
"""An end's possible actions, each with a number: bytes, or for a pause iterations of the loop."""

ONE_SIDE, OTHER_SIDE = (memoryview(random.Random(seed).randbytes(12 * MIB)) for seed in (1, 2))


class Actor:
    """One end of a connection, which acts step by step and records the bytes and errors it sees.

    Args:
        peer: The socket of this end.
        data: The bytes to send, in order; ``act`` determines how many are sent.
    """

    def __init__(self, peer: Peer, data: memoryview) -> None:
        self.peer = peer
        self.data = data
        self.sent = 0
        self.heard = bytearray()
        self.has_finished = self.has_reset = self.heard_fin = self.saw_error = False

    async def act(self, what: str, how: int = 0) -> None:
        """Do one of ACTIONS, if it is still possible."""
        if what == "pause":
            await turns(how)
        if self.has_reset:
            return
        try:
            if what == "send" and not self.has_finished:
                self.sent += self.peer.send_some(self.data[self.sent : self.sent + how])
            elif what == "read":
                self.take(self.peer.sock.recv(how))
            elif what == "finish" and not self.has_finished:
                self.has_finished = True
                self.peer.finish()
            elif what == "reset":
                self.has_reset = True
                self.peer.reset()
        except BlockingIOError:
            pass
        except OSError:
            self.saw_error = True

    def take(self, piece: bytes) -> None:
        """Record received bytes; no bytes mean a FIN."""
        self.heard += piece
        self.heard_fin = self.heard_fin or not piece

    async def hear_the_end(self) -> None:
        """Read up to a FIN or an error, unless this end has reset the connection."""
        while not (self.heard_fin or self.saw_error or self.has_reset):
            try:
                self.take(await self.peer.read())
            except OSError:
                self.saw_error = True


async def end_all(rig: Rig, actors: Sequence[Actor]) -> None:
    """Finish all ends, read the remaining bytes, and wait until no connection is open."""
    for actor in actors:
        await actor.act("finish")
    await asyncio.gather(*(actor.hear_the_end() for actor in actors))
    await until(lambda: not rig.connections.open, "the connections have ended")


def assert_equal_or_told(first: Actor, second: Actor) -> None:
    """Fail unless each end received all bytes that the other end sent, or saw a reset."""
    for one, other in ((first, second), (second, first)):
        assert one.heard == other.data[: len(one.heard)]
        if not (one.has_reset or other.has_reset):
            assert len(one.heard) == other.sent
            assert not one.saw_error
        if other.has_reset and not one.has_reset and not other.has_finished:
            assert one.saw_error
