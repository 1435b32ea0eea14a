"""Calls from a test's process to objects in the process of its network's proxy.

    send_call(link, Call(target, name, …)) ──▶ receive()  ──▶ the object's method
    receive()                              ◀── send_answer(link, CallResult)

Each message is its length and a pickle; both processes run the same program for the same user, and
nothing else has the link. A socket is passed beside the message.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

_LENGTH = struct.Struct("!I")


class Reference(NamedTuple):
    """An object that stays in the other process."""

    number: int


PROXY = Reference(0)
"""The proxy itself."""


class Call(NamedTuple):
    """A call of a method, or the value of a property."""

    target: Reference
    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = {}


class CallResult(NamedTuple):
    """What a call returned or raised."""

    value: object = None
    error: BaseException | None = None


def send(link: socket.socket, message: object, *, passed: socket.socket | None = None) -> None:
    """Send a message.

    Args:
        passed: A socket for the other side; this side keeps its own descriptor.
    """
    data = pickle.dumps(message)
    if passed is None:
        link.sendall(_LENGTH.pack(len(data)))
    else:
        socket.send_fds(link, [_LENGTH.pack(len(data))], [passed.fileno()])
    link.sendall(data)


def receive(link: socket.socket) -> tuple[Any, socket.socket | None]:
    """Wait for a message; return it and the socket that was passed with it.

    Raises:
        EOFError: The other side has ended.
    """
    head, descriptors, _, _ = socket.recv_fds(link, _LENGTH.size, 1)
    passed = socket.socket(fileno=descriptors[0]) if descriptors else None
    (length,) = _LENGTH.unpack(head + _exactly(link, _LENGTH.size - len(head)))
    return pickle.loads(_exactly(link, length)), passed


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
