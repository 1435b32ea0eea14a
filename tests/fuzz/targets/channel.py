"""Targets for frames between a worker and its control process, or a later control process.

    data = step …       step = kind (1 byte), descriptors (1), length (2), that many bytes

A step sends its bytes and descriptors: unchanged, or, if its kind is odd, as a well-formed frame.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from userspace_proxy.frames import make_frame
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import FromWorker, ToWorker

_STEP = struct.Struct(">BBH")
_DESCRIPTORS_MAX = 4


class Loop:
    """The event loop of a channel; the target calls its reader."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.add_reader = self.readers.__setitem__

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    remove_writer = remove_reader


def check_channel(data: bytes) -> None:
    """Check a worker's frames, as a control process reads them."""
    _check(data, FromWorker)


def check_worker_channel(data: bytes) -> None:
    """Check a control process's frames, as a worker reads them."""
    _check(data, ToWorker)


def _check(data: bytes, reads: Any) -> None:
    """Check that messages have a type, one error closes the channel, and no descriptor leaks."""
    before = _open_descriptors()
    received: list[Any] = []
    losses: list[str] = []
    loop = Loop()

    def receive(message: Any, descriptors: list[int]) -> None:
        received.append(message)
        for descriptor in descriptors:
            os.close(descriptor)

    ours, theirs = socket.socketpair()
    channel: Channel[Any, Any] = Channel(
        loop,  # type: ignore[arg-type]
        ours,
        reads=reads,
        receive=receive,
        lost=losses.append,
    )
    with theirs:
        theirs.setblocking(False)
        for frame, count in read_steps(data):
            _send(theirs, frame, count)
            for callback in list(loop.readers.values()):
                callback()
    channel.read()
    channel.close()
    assert losses in ([], *([why] for why in losses))
    for message in received:
        assert isinstance(message, get_args(reads))
        assert msgspec.json.decode(msgspec.json.encode(message), type=reads) == message
    assert _open_descriptors() == before, "a descriptor stays open"


def read_steps(data: bytes) -> Iterator[tuple[bytes, int]]:
    start = 0
    while start + _STEP.size < len(data):
        kind, count, length = _STEP.unpack_from(data, start)
        start += _STEP.size
        body = data[start : start + length]
        start += length
        count %= _DESCRIPTORS_MAX
        yield (make_frame(body, count) if kind % 2 else body), count


def _send(sock: socket.socket, frame: bytes, count: int) -> None:
    if not frame:
        return
    with Path(os.devnull).open() as file:
        rights = array.array("i", [file.fileno()] * count)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else []
        try:
            sock.sendmsg([frame], ancillary, socket.MSG_NOSIGNAL)
        except OSError:
            # The other end is closed.
            return


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
