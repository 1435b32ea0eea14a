"""Dials addresses concurrently, and measures the time until they answer.

connect ──▶ answered after 0.4 ms
       └──▶ refused, no route, 3 s of silence

A running proxy's own probes are in ``dataplane.probes``; here there is no event loop, and the
duration matters. Neither kind of dial is visible to the listening program.

    this process ── nsenter ──▶ a child in the namespace of a worker, which dials
                 ◀── results ──

A proxy in a container or a sandbox reaches endpoints that programs outside can't reach.

Rule 1: the namespace is entered only if a worker with the reported pid is in it. A proxy on another
machine is mistaken for a local proxy only if both pid and inode match a local process.
Rule 2: the answering program may be malicious, and name any process of this machine. Root never
enters a user namespace, whose creator could trace a child with root's privileges. Other users can
enter only their own namespaces.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..answering_child import AnsweringChild
from ..causes.cause import Cause
from ..causes.endpoints import absent, dial_failed
from ..clocks import Clocks
from ..diagnosis.failures import host_of
from ..facts import PortFacts, StatusFacts
from ..facts.encoding import dump_cause, load_cause
from ..frames import receive_frame, send_frame
from ..kernel.neighbours import absent_hop, own_route_failure
from ..kernel.own_namespace import network_namespace, user_namespace
from ..kernel.socket_options import stay_unseen
from ..model import SocketAddress
from ..model.failures import BY_OWN_ROUTE, NO_ANSWER, dial_failure

SILENCE_S = 3.0
"""Seconds after which a dial without an answer fails: as long as a client of the proxy waits for
all endpoints together."""
_AT_ONCE = 32
# The time limit for all dials of a child: about 3 s per 32 addresses, and the interpreter's start.
_ALL_WITHIN_S = 60.0
_ENTER = "nsenter"


@dataclass(frozen=True, slots=True)
class DialResult:
    """The result of one dial."""

    seconds: float
    """Seconds until the connection was open, or the dial had failed."""
    cause: Cause | None = None
    """Why the dial failed; None if the address answered."""
    error: str = ""
    """The kernel's error message; empty if the address answered."""
    has_no_route: bool = False
    """Whether this machine has no usable route to the address, so that nothing was sent."""


Dials = Mapping[str, DialResult]
"""The results of dials, by address."""


def dial_all(addresses: Iterable[SocketAddress]) -> dict[str, DialResult]:
    """Dial addresses over TCP; return the results by address.

    The call blocks for at most about 3 s per 32 addresses.
    """
    wanted = list(dict.fromkeys(addresses))
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        return {str(at): result for at, result in zip(wanted, pool.map(dial, wanted), strict=True)}


def dial(address: SocketAddress, *, silence_s: float = SILENCE_S) -> DialResult:
    """Dial one address over TCP without sending any data."""
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    begin = Clocks.monotonic()
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(silence_s)
        stay_unseen(sock)
        try:
            sock.connect((address.ip, address.port))
        except OSError as exc:
            # The error that Python raises for a socket's timeout has no errno, so add it.
            number = exc.errno or errno.ETIMEDOUT
            error = exc.strerror or os.strerror(number)
            seconds = Clocks.monotonic() - begin
            failed = dial_failure(number, address.ip)
            if failed.failure in NO_ANSWER and (hop := absent_hop(address.ip)):
                return DialResult(seconds, absent(address, hop), error)
            failure = own_route_failure(failed, address.ip).failure
            cause = dial_failed(address, failure, error)
            return DialResult(seconds, cause, error, has_no_route=failure in BY_OWN_ROUTE)
        return DialResult(Clocks.monotonic() - begin)


def find_way(node: StatusFacts | None) -> tuple[str, ...] | None:
    """Return the command prefix that runs a program in the proxy's network namespace.

    It is empty if the namespace is this process's, or unknown, and None if it can't be entered.
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
    """Dial addresses like :func:`dial_all`, with a prefix from :func:`find_way`.

    Raises:
        ChildEnded: The namespace can't be entered, or the child ended or hung.
        OSError: The child can't be started.
    """
    if not way:
        return dial_all(addresses)
    message = json.dumps([[one.ip, one.port] for one in addresses]).encode()
    entry = f"{__name__}:answer"
    with Path(os.devnull).open("wb") as nowhere:
        child = AnsweringChild(entry, answer_within_s=_ALL_WITHIN_S, prefix=way, stderr=nowhere)
        try:
            answer, _ = child.ask(message)
        finally:
            child.close()
    return {address: _read(*fields) for address, fields in json.loads(answer).items()}


def with_hosts(ports: Iterable[PortFacts], dials: Dials) -> Dials:
    """Return the dials, with remedies about hosts for endpoints that aren't known to be pods."""
    endpoints = [endpoint for port in ports for endpoint in port.endpoints]
    hosts = {one.address: host for one in endpoints if (host := host_of(one))}
    return {
        at: replace(result, cause=result.cause.replace(host=hosts[at]))
        if at in hosts and result.cause is not None
        else result
        for at, result in dials.items()
    }


def answer(descriptor: int) -> int:
    """Run in the child: dial the addresses of one message, and reply with the results."""
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
