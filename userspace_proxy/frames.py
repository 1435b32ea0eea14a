"""Sends and receives frames: messages with sockets, between two processes over a Unix socket.

    frame: length (4 bytes), number of sockets (1 byte), the message

These calls block; in an event loop, ``plane.channel`` sends and reads the same frames. The two
sides choose the messages' encoding, and trust each other: the length isn't checked.
"""

from __future__ import annotations

import socket
import struct

HEADER = struct.Struct(">IB")
# The maximum number of sockets that the kernel passes at once: SCM_MAX_FD.
MAX_SOCKETS = 253


def make_frame(message: bytes, sockets: int = 0) -> bytes:
    """Return the frame of a message that passes this number of sockets."""
    return HEADER.pack(len(message), sockets) + message


def send_frame(link: socket.socket, message: bytes, *passed: socket.socket) -> None:
    """Send a message and sockets; the sockets also stay open in this process."""
    frame = make_frame(message, len(passed))
    sent = 0
    if passed:
        sent = socket.send_fds(link, [frame], [sock.fileno() for sock in passed])
    link.sendall(frame[sent:])


def receive_frame(link: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """Wait for a message; return it and its sockets, which the caller closes.

    Raises:
        EOFError: The other side has closed its end.
    """
    head, descriptors, _, _ = socket.recv_fds(link, HEADER.size, MAX_SOCKETS)
    passed = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    length, _ = HEADER.unpack(head + _exactly(link, HEADER.size - len(head)))
    return _exactly(link, length), passed


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
