"""Dials addresses from the network namespace of a running proxy, which may be another than ours.

    this process ── nsenter ──▶ a child in the namespace of a worker: the dials of ``dial``
                 ◀── results ──

A proxy in a container or a sandbox reaches endpoints that programs outside don't reach.

Rule 1: the namespace is entered only if a worker with the proxy's pid is in it: with a proxy of
another machine, pid and inode would have to be those of a process here.
Rule 2: what answers as the proxy may lie, and show any process of this machine. So root never
enters a user namespace: its creator could trace the child, which is root everywhere else. Other
users can enter only their own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..answering_child import AnsweringChild
from ..facts import StatusFacts
from ..facts.causes import dump_cause, load_cause
from ..frames import receive_frame, send_frame
from ..kernel.own_namespace import network_namespace, user_namespace
from ..model import SocketAddress
from .dial import DialResult, dial_all

# Some 3 s for each 32 addresses, and the start of an interpreter.
_WITHIN_S = 60.0
_ENTER = "nsenter"


def find_way(node: StatusFacts | None) -> tuple[str, ...] | None:
    """Return the words before a command that run it in the proxy's network.

    Empty if that is this process's, or unknown; None if there is no way.
    """
    theirs = node.network_namespace if node is not None else 0
    if node is None or not theirs or theirs == network_namespace():
        return ()
    program = shutil.which(_ENTER)
    for worker in node.workers:
        if program and worker.pid and network_namespace(worker.pid) == theirs:
            may_enter = os.geteuid() == 0 or user_namespace(worker.pid) == user_namespace()
            users = () if may_enter else ("--user", "--preserve-credentials")
            return (program, f"--target={worker.pid}", *users, "--net", "--")
    return None


def dial_by(way: tuple[str, ...], addresses: Iterable[SocketAddress]) -> dict[str, DialResult]:
    """Dial addresses over TCP as :func:`dial_all` does, by a way of :func:`find_way`.

    Raises:
        ChildEnded: The namespace can't be entered.
        OSError: The child can't be started.
    """
    if not way:
        return dial_all(addresses)
    message = json.dumps([[one.ip, one.port] for one in addresses]).encode()
    entry = f"{__name__}:answer"
    with Path(os.devnull).open("wb") as nowhere:
        child = AnsweringChild(entry, answer_within_s=_WITHIN_S, prefix=way, stderr=nowhere)
        try:
            answer, _ = child.ask(message)
        finally:
            child.close()
    return {address: _read(*fields) for address, fields in json.loads(answer).items()}


def answer(descriptor: int) -> int:
    """Dial the addresses of one message, and answer with the results: the child's program."""
    with socket.socket(fileno=descriptor) as link:
        message, _ = receive_frame(link)
        results = dial_all(SocketAddress(ip, port) for ip, port in json.loads(message))
        made = {address: _written(result) for address, result in results.items()}
        send_frame(link, json.dumps(made).encode())
    return 0


def _written(result: DialResult) -> tuple[object, ...]:
    cause = dump_cause(result.cause) if result.cause is not None else None
    return result.seconds, cause, result.error, result.has_no_route


def _read(seconds: float, cause: Any, error: str, has_no_route: bool) -> DialResult:
    return DialResult(seconds, load_cause(cause) if cause else None, error, has_no_route)
