"""Simulates a slow, lossy or cut link: forwards IP packets between two TUN devices.

    node ── near ──▶ Line ──▶ far ── pod
         ◀────────── Line ◀──

Started in the node's namespace as ``relay.py NEAR FAR``; it creates both devices and prints
``ready``. Each line of standard input, a JSON object with the fields of :class:`Conditions`,
replaces the conditions of both directions. It exits when standard input ends. It imports only the
standard library, so that it starts quickly and in any namespace.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

# Constants from linux/if_tun.h.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_MAX_PACKET_BYTES = 65535
_SEED = 14


@dataclass(frozen=True)
class Conditions:
    """The conditions of one direction."""

    delay_s: float = 0.0
    loss: float = 0.0
    """The share of lost packets."""
    reordered: float = 0.0
    """The share of packets that are delayed by another ``reordered_by_s``, so that later packets
    overtake them."""
    reordered_by_s: float = 0.01
    bits_per_s: float = 0.0
    """The rate of the link; 0 if it is unlimited."""
    queue_bytes: int = 100_000
    """The size of the queue of a link with a rate; packets beyond that are dropped."""
    is_cut: bool = False
    """Whether all packets are lost."""


class Line:
    """The packets in flight in one direction; callers pass the current time."""

    def __init__(self) -> None:
        self.conditions = Conditions()
        self._random = random.Random(_SEED)
        self._under_way: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._free_at = 0.0

    def push(self, packet: bytes, now: float) -> None:
        """Add a packet to the packets in flight, unless the line drops it."""
        conditions = self.conditions
        if conditions.is_cut or self._random.random() < conditions.loss:
            return
        due = now
        if rate := conditions.bits_per_s:
            starts = max(now, self._free_at)
            if (starts - now) * rate / 8 > conditions.queue_bytes:
                return
            due = self._free_at = starts + len(packet) * 8 / rate
        due += conditions.delay_s
        if self._random.random() < conditions.reordered:
            due += conditions.reordered_by_s
        self._count += 1
        heapq.heappush(self._under_way, (due, self._count, packet))

    def pop(self, now: float) -> Iterator[bytes]:
        """Yield the packets that have arrived, in order of arrival."""
        while self._under_way and self._under_way[0][0] <= now:
            yield heapq.heappop(self._under_way)[2]

    @property
    def next_s(self) -> float | None:
        """The time at which the next packet arrives; None if none is in flight."""
        return self._under_way[0][0] if self._under_way else None


def open_tun(name: str) -> int:
    """Create a TUN device in this namespace, which exists as long as the descriptor is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


def receive(descriptor: int, line: Line) -> None:
    """Move all packets in a device's queue into a line."""
    while True:
        try:
            packet = os.read(descriptor, _MAX_PACKET_BYTES)
        except (BlockingIOError, OSError):
            # The device's queue is empty, or the device is down.
            return
        line.push(packet, time.monotonic())


def deliver(descriptor: int, line: Line) -> None:
    """Write a line's arrived packets to a device."""
    for packet in line.pop(time.monotonic()):
        try:
            os.write(descriptor, packet)
        except OSError:
            # The device is down or its queue is full, so the packet is lost, as on a link.
            continue


def relay(near: int, far: int, control: int) -> None:
    """Forward packets until the control descriptor is closed."""
    # One line to the far end, and one back.
    lines = {near: (Line(), far), far: (Line(), near)}
    commands = b""
    while True:
        times = [line.next_s for line, _ in lines.values() if line.next_s is not None]
        wait_s = max(0.0, min(times) - time.monotonic()) if times else None
        readable, _, _ = select.select([near, far, control], [], [], wait_s)
        for descriptor, (line, _) in lines.items():
            if descriptor in readable:
                receive(descriptor, line)
        for line, target in lines.values():
            deliver(target, line)
        if control in readable:
            chunk = os.read(control, 65536)
            if not chunk:
                return
            *complete, commands = (commands + chunk).split(b"\n")
            for command in complete:
                conditions = Conditions(**json.loads(command))
                for line, _ in lines.values():
                    line.conditions = conditions
                os.write(sys.stdout.fileno(), b"done\n")


def main() -> None:
    """Create the devices and forward packets between them."""
    near, far = map(open_tun, sys.argv[1:])
    os.write(sys.stdout.fileno(), b"ready\n")
    relay(near, far, sys.stdin.fileno())


if __name__ == "__main__":
    main()
