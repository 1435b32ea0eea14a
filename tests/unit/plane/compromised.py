"""A worker of the previous control process that sends whatever a test requests."""

import asyncio
import socket

from userspace_proxy.plane.adoption import PreviousWorkers
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import HandedOver, ToWorker


async def next_at(worker_socket):
    """Accept and return the next connection to a worker socket."""
    accepting = asyncio.get_running_loop().sock_accept(worker_socket)
    return (await asyncio.wait_for(accepting, 60.0))[0]


class Compromised:
    """A worker that hands over arbitrary sockets, which the receiver must check."""

    def __init__(self, keep, previous_workers=None, theirs=None):
        loop = asyncio.get_running_loop()
        if previous_workers is None:
            ours, theirs = socket.socketpair()
            previous_workers = keep(PreviousWorkers(loop, [ours]))
        self.previous_workers = previous_workers
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
