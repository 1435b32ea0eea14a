"""Sends netlink requests and receives their answers, and receives netlink events.

    Requests ── request, number ──▶ kernel ── answers with that number ──▶ Requests
                                    kernel ── events, or "some were lost" ──▶ Events

Rule 1: every wait for an answer has a deadline, even while other messages arrive: the kernel
answers immediately or not at all.
Rule 2: a listing during which something changed is repeated.
Rule 3: late answers to an abandoned request are skipped.

Source: netlink(7); net/netlink/af_netlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self

from ...clocks import Clocks
from ...errors import SteeringError, shortage_hint
from ..classic_bpf import SO_ATTACH_FILTER, SO_DETACH_FILTER, Instruction, attach
from .messages import (
    ACK,
    ERROR,
    INTERRUPTED,
    Message,
    error_of,
    is_last,
    kind_of_refused,
    number_of,
    numbered,
    raise_refusal,
    read_message,
    read_messages,
)

NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 0, 4, 12
SOL_NETLINK = 270
ADD_MEMBERSHIP, CAP_ACK, STRICT_CHECK = 1, 10, 12
SO_SNDBUFFORCE = 32
# The number of bytes of the send buffer that the kernel reserves (netlink_sendmsg).
_OVERHEAD = 32
ANSWER_WITHIN_S = 1.0
LISTINGS = 10
# The number of requests per batch. A refusal takes about 1 KiB of kernel memory, so 100 refusals
# fit into a socket's buffer (net.core.rmem_default is 208 KiB); 100 requests fit into one message.
BATCH = 100
# Errors of a listing if the kernel lacks the address family, routing rules, or the table.
_UNSUPPORTED = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
# The number of bytes per read: the kernel never sends more in one datagram.
_READ_BYTES = 1 << 16

EventFilter = Callable[[int], Sequence[Instruction]]
"""Returns the filter for relevant events, given the port ID of this program's requests."""


@contextlib.contextmanager
def explained(
    what: str, hints: Mapping[int, str] = MappingProxyType({}), *, hint: str = ""
) -> Iterator[None]:
    """Turn an OSError into a SteeringError: ``cannot <what>: Operation not permitted``.

    Args:
        what: The attempted operation, for the message.
        hints: Hints for certain error numbers.
        hint: The hint for other errors, unless :func:`shortage_hint` has one.
    """
    try:
        yield
    except OSError as exc:
        number = exc.errno or 0
        hint = hints.get(number) or shortage_hint(number) or hint
        raise SteeringError(f"cannot {what}: {exc.strerror}", hint=hint) from exc


class Refused(NamedTuple):
    """The first message of a transaction that the kernel refused, and the reason."""

    kind: int
    """The kind of the refused message."""
    code: int
    """The error number of the refusal."""


class Requests:
    """A socket for requests to one kernel subsystem; every call blocks until it is done.

    Methods raise an OSError if the kernel doesn't answer, or refuses, unless they return refusals.

    Args:
        sock: A netlink socket without subscriptions; closed by :meth:`close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._number = 0

    @classmethod
    def open(cls, protocol: int) -> Self:
        """Open a socket for a protocol such as NETLINK_ROUTE in this thread's network namespace."""
        sock = _open(protocol)
        for option in (CAP_ACK, STRICT_CHECK):
            # Both options only reduce work, so ignore a failure: kernels before 4.20 lack
            # STRICT_CHECK.
            with contextlib.suppress(OSError):
                sock.setsockopt(SOL_NETLINK, option, 1)
        return cls(sock)

    @property
    def sock(self) -> socket.socket:
        return self._socket

    @property
    def port(self) -> int:
        """The port ID that events about this socket's changes name as their sender."""
        return int(self._socket.getsockname()[0])

    def list_all(self, request: bytes) -> list[Message]:
        """Return the replies to a dump request (NLM_F_DUMP).

        Raises:
            OSError: EBUSY: something changed during each of several listings.
        """
        for _ in range(LISTINGS):
            found, is_whole = self.list_once(request)
            if is_whole:
                return found
        raise OSError(errno.EBUSY, f"something changed during each of {LISTINGS} listings")

    def list_once(self, request: bytes) -> tuple[list[Message], bool]:
        """Return the replies to a dump request, and whether they are consistent.

        If something changed during the listing, some replies may be missing.
        """
        # Read all replies before parsing any, which takes ten times as long: a shorter listing is
        # interrupted less often.
        blocks = list(self.blocks(request))
        found = [one for block in blocks for one in read_messages(block)]
        # The last message only ends the listing, so omit it.
        return found[:-1], not any(one.flags & INTERRUPTED for one in found)

    def list_supported(self, request: bytes) -> list[Message]:
        """Return the result of :meth:`list_all`; empty if the family or table doesn't exist."""
        try:
            return self.list_all(request)
        except OSError as exc:
            if exc.errno in _UNSUPPORTED:
                return []
            raise

    def blocks(self, request: bytes) -> Iterator[bytes]:
        """Yield the datagrams of a listing unparsed; the caller must consume all of them."""
        number = self._next_number()
        self._socket.send(numbered(request, number))
        is_complete = False
        while not is_complete:
            block = self._receive((number,))
            is_complete = is_last(block)
            yield block

    def ask(self, request: bytes) -> Message:
        """Return the single answer to a request."""
        number = self._next_number()
        self._socket.send(numbered(request, number))
        answer = read_message(self._receive((number,)))
        if answer.kind == ERROR:
            raise_refusal(error_of(answer.body))
        return answer

    def change(self, requests: Iterable[bytes]) -> list[tuple[int, int]]:
        """Make independent changes in order; return the index and errno of each refused change."""
        refused: list[tuple[int, int]] = []
        waiting = list(requests)
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            refused += [(start + index, code) for index, code in self._change(batch)]
        return refused

    def transact(self, begin: bytes, changes: Sequence[bytes], end: bytes) -> Refused | None:
        """Make all changes or none, as one transaction between the messages ``begin`` and ``end``.

        Args:
            changes: The requests; at least one.

        Returns: The first refused message; None if all changes were made.

        Raises:
            OSError: EMSGSIZE: the changes are too large for this socket.
        """
        number = self._next_number()
        # Only the last change requests an answer, because not all kernels answer the message that
        # ends a transaction. Refusals are sent before that answer.
        flags = [0] * (len(changes) - 1) + [ACK]
        messages = [begin, *map(numbered, changes, [number] * len(changes), flags), end]
        messages[0] = numbered(begin, number)
        block = b"".join(messages)
        self._make_room(len(block))
        self._socket.send(block)
        answer = read_message(self._receive((number,)))
        code = error_of(answer.body)
        return Refused(kind_of_refused(answer.body), code) if code else None

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()

    def _make_room(self, size: int) -> None:
        """Enlarge the send buffer for a message, if this process is permitted to."""
        if size > self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _OVERHEAD:
            for option in (SO_SNDBUFFORCE, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, option, size)
                    return

    def _change(self, batch: Sequence[bytes]) -> list[tuple[int, int]]:
        numbers = [self._next_number() for _ in batch]
        indexes = {number: index for index, number in enumerate(numbers)}
        # Only the last message requests an answer; others are answered only if refused.
        flags = [0] * (len(batch) - 1) + [ACK]
        self._socket.send(b"".join(map(numbered, batch, numbers, flags)))
        refused = []
        is_answered = False
        while not is_answered:
            for answer in read_messages(self._receive(indexes)):
                if answer.number in indexes and answer.kind == ERROR:
                    is_answered |= answer.number == numbers[-1]
                    if code := error_of(answer.body):
                        refused.append((indexes[answer.number], code))
        return refused

    def _receive(self, numbers: Container[int]) -> bytes:
        """Return the next datagram that answers one of these requests, or raise a TimeoutError."""
        left_s = ANSWER_WITHIN_S
        until = Clocks.monotonic() + left_s
        while left_s > 0:
            self._socket.settimeout(left_s)
            try:
                # Don't block: another process with a copy of the socket may have read the datagram.
                block = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except TimeoutError:
                break
            if number_of(block) in numbers:
                return block
            left_s = until - Clocks.monotonic()
        raise TimeoutError(errno.ETIMEDOUT, "the kernel doesn't answer")

    def _next_number(self) -> int:
        self._number = self._number % 0xFFFFFFFF + 1
        return self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class EventBatch(NamedTuple):
    """The events since the last read; falsy if there are none."""

    messages: list[Message]
    has_lost: bool = False
    """Whether other events were lost."""

    def __bool__(self) -> bool:
        return self.has_lost or bool(self.messages)


class Events:
    """A subscription to events about changes in this thread's network namespace; never blocks.

    Args:
        protocol: See :meth:`Requests.open`.
        program: A filter that passes the relevant events; if empty, all events pass.

    Raises:
        OSError: The kernel has no such sockets or groups, or permission is denied.
    """

    def __init__(
        self, protocol: int, groups: Iterable[int], program: Sequence[Instruction] = ()
    ) -> None:
        self._socket = _open(protocol)
        self._socket.setblocking(False)
        try:
            if program:
                self.filter(program)
            for group in groups:
                self.subscribe(group)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events; -1 once closed."""
        return self._socket.fileno()

    def subscribe(self, group: int) -> None:
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)

    def filter(self, program: Sequence[Instruction]) -> None:
        """Replace the filter for relevant events; an empty filter passes all events."""
        if program:
            attach(self._socket, SO_ATTACH_FILTER, program)
        else:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def read(self) -> EventBatch:
        messages: list[Message] = []
        has_lost = False
        while True:
            try:
                messages += read_messages(self._socket.recv(_READ_BYTES))
            except BlockingIOError:
                return EventBatch(messages, has_lost)
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                has_lost = True

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()


class RouteSockets(contextlib.ExitStack):
    """The sockets for requests about links, addresses, routes and rules, and for their events.

    The events are subscribed to before the first request, so no change is missed in between.

    Args:
        groups: The multicast groups whose events are received.
        event_filter: Returns the filter; by default all events pass.

    Raises:
        OSError: No sockets are available.
    """

    def __init__(self, groups: Iterable[int], event_filter: EventFilter | None = None) -> None:
        super().__init__()
        self.requests = self.enter_context(Requests.open(NETLINK_ROUTE))
        try:
            program = event_filter(self.requests.port) if event_filter else ()
            self.events = Events(NETLINK_ROUTE, groups, program)
        except OSError:
            self.close()
            raise
        self.callback(self.events.close)


def is_for_netfilter(sock: socket.socket) -> bool:
    """Return whether requests over a socket are sent to the kernel's netfilter.

    Otherwise, a process could answer instead of the kernel: check each socket received from another
    process.
    """
    return (sock.family, sock.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER)


def _open(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    try:
        # A socket that isn't bound can't receive events.
        sock.bind((0, 0))
    except OSError:
        sock.close()
        raise
    return sock
