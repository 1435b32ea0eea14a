"""A worker in this process, and the channel over which tests command it."""

import asyncio
import logging
import os
import socket

from tests.port_keys import port_key
from userspace_proxy.dataplane import Tuning
from userspace_proxy.kernel.listening_sockets import open_listening
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import (
    Counted,
    FromWorker,
    OpenGroup,
    OpenListener,
    Report,
    Start,
)
from userspace_proxy.plane.worker_main import WorkerMain

from ..dataplane.peers import dial
from ..dataplane.waiting import until
from .reports import counted

GROUP, LISTENER = 3, 7
TCP, UDP = Protocol.TCP, Protocol.UDP


class Control:
    """The control process's end of the channel."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.got = []
        self.confined = 0
        self.main = WorkerMain(loop, theirs, confine=self._confine)
        self.channel = Channel(
            loop, ours, reads=FromWorker, receive=self._receive, lost=lambda _malformed: None
        )
        self.send = self.channel.send
        self.kept = [self.channel, self.main]
        self._reports = 0

    def _confine(self, *, keeps_net_raw):
        assert not keeps_net_raw
        self.confined += 1

    def _receive(self, message, descriptors):
        self.got.append(message)
        for descriptor in descriptors:
            os.close(descriptor)

    def keep(self, closeable):
        """Close an object at the end of the test; return the object."""
        self.kept.append(closeable)
        return closeable

    def start(self, index=0, **tuning):
        self.send(Start(index, Tuning(**tuning), {"userspace_proxy": logging.INFO}))

    def serve(self, *endpoints, protocol=TCP, affinity_timeout_s=None):
        """Make the worker serve these endpoints; return the address. This end keeps the socket."""
        at = SocketAddress("127.0.0.1", 0)
        self.sock = self.keep(open_listening(protocol, at, freebind=False))
        at = SocketAddress(*self.sock.getsockname())
        self.send(
            OpenGroup(GROUP, port_key("shop/web:http"), Serving(endpoints, affinity_timeout_s))
        )
        self.send(OpenListener(LISTENER, GROUP, protocol, at), self.sock)
        return at

    def said(self, kind):
        """Return the received messages of a type."""
        return [message for message in self.got if isinstance(message, kind)]

    async def hear(self, kind):
        """Wait for the next message of a type; remove and return the message."""
        await until(lambda: self.said(kind), kind.__name__)
        message = self.said(kind)[0]
        self.got.remove(message)
        return message

    async def report(self):
        """Request and return the worker's next report."""
        self._reports += 1
        self.send(Report(self._reports))
        counted = await self.hear(Counted)
        assert counted.number == self._reports
        return counted

    async def status(self):
        """Return the worker's status from a new report."""
        return (await self.report()).status

    async def counted(self):
        """Return the non-zero figures by endpoint and name, from a report about the only group."""
        (group,) = (await self.report()).groups
        return dict(map(counted, group.endpoints))

    async def pair(self, at, pod):
        """Return both ends of a new connection through the worker."""
        return self.keep(await dial(at)), self.keep(await pod.accept())
