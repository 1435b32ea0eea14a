"""A worker of the last control process that sends what a test has it send."""

import asyncio
import socket

from userspace_proxy.plane.adoption import Predecessors
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import HandedOver, ToWorker


async def next_at(rendezvous):
    """Return the next connection to a rendezvous."""
    accepting = asyncio.get_running_loop().sock_accept(rendezvous)
    return (await asyncio.wait_for(accepting, 60.0))[0]


class Compromised:
    """A worker that hands over what it likes; what a worker sends is examined."""

    def __init__(self, keep, predecessors=None, theirs=None):
        loop = asyncio.get_running_loop()
        if predecessors is None:
            ours, theirs = socket.socketpair()
            predecessors = keep(Predecessors(loop, [ours]))
        self.predecessors = predecessors
        self.channel = keep(
            Channel(
                loop,
                theirs,
                reads=ToWorker,
                receive=lambda message, _: self.got.append(message),
                lost=lambda _malformed: None,
            )
        )
        self.got = []

    def hand_over(self, *socks, worker=0, kept=(), is_last=False):
        self.channel.send(HandedOver(worker, list(kept), is_last=is_last), *socks)
