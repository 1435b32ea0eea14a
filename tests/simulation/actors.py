"""Clients and endpoints, which follow scripts, and close in an orderly way once the world is calm.

    Party      one side of a TCP connection: sends, reads, closes or resets at any moment
    PodHost    an endpoint of TCP or UDP: its reactions to dials, and the parties that it accepts
    Asker      a client of UDP

A party sends a part of one endless pattern, so its peer can check the bytes immediately.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from userspace_proxy.model import ProxyProtocol, SocketAddress
from userspace_proxy.model.proxy_protocol import write_header

from .network import ABSENT, ANSWERS, Address
from .streams import CLOSED, CONNECTING, OPEN, Stream

if TYPE_CHECKING:
    from .services import Service
    from .world import World

Step = tuple[float, str, int]
"""A delay in seconds, the action after it, and the action's size in bytes."""

Joined = tuple[ProxyProtocol | None, str, SocketAddress, SocketAddress | None]
"""The PROXY header's version, the Service port's label, the client, and the frontend."""

_PATTERN_BYTES = 1 << 16
_PATTERN = Random(7).randbytes(_PATTERN_BYTES) * 2

SEND, READ, FINISH, RESET, CLOSE, URGENT, STALL = (
    "send",
    "read",
    "finish",
    "reset",
    "close",
    "urgent",
    "stall",
)

_CALM_S = 0.1
_BUSY_S = 0.02
# The number of bytes that a party sends at its end if it has sent none before.
_LAST_BYTES = 20


def pattern(base: int, start: int, count: int) -> bytes:
    """Return a part of the pattern that a party with this base sends."""
    start = (base + start) % _PATTERN_BYTES
    return _PATTERN[start : start + count]


class Party:
    """One side of a TCP connection, and its observations.

    Args:
        world: Has the clock, and collects violations.
        stream: Its end of the connection.
        number: Makes its data distinct.
        steps: Its actions until the world is calm.
    """

    def __init__(self, world: World, stream: Stream, number: int, steps: Sequence[Step]) -> None:
        self.world = world
        self.stream = stream
        self.base = number * 977
        self.number = number
        self.service = -1
        """The Service that a client dials."""
        self.own = self.served_as = self.dialled = SocketAddress("", 0)
        """A client's own address, the address by which it is served, and the dialled address: the
        last two may come from its PROXY header."""
        self.how = ""
        """The way in which the party sends a PROXY header; empty for none."""
        self.other: Party | None = None
        """The other side, once the data plane has joined the two."""
        self.joined: Joined | None = None
        """The state of a client's connection when the two sides were joined."""
        self.sent = self.heard = 0
        self.header: bytes | None = None
        """The rest of the PROXY header that it must read before the client's bytes; None: unknown
        yet."""
        self.announced = 0
        self._announces: list[bytes] = []
        """The PROXY header that it sends before its own bytes, in pieces."""
        self.has_finished = self.has_reset = self.has_closed = self.has_left = False
        self._has_said_last = False
        self.heard_fin = False
        self.error = 0
        self.reset_at: float | None = None
        self._turn = 0
        """The number of the last planned action."""
        self._idle_since = 0.0
        self._steps = iter(steps)
        self._next: Step | None = None
        self._advance()

    @property
    def is_done(self) -> bool:
        """Whether the party takes no further actions."""
        return self.has_closed or self.has_reset

    @property
    def is_orderly(self) -> bool:
        """Whether the party closed only after both sides' FINs, without a RST."""
        return not (self.has_reset or self.has_left)

    def announce(self, source: SocketAddress, destination: SocketAddress, how: str) -> None:
        """Send a PROXY header first: in one piece, in two, a malformed one, or none."""
        header = write_header(ProxyProtocol.V1, source, destination, "")
        half, self.how = len(header) // 2, how
        self._announces = {
            "whole": [header],
            "split": [header[:half], header[half:]],
            "bad": [header.replace(b"TCP4", b"TCP9").replace(b"TCP6", b"TCP9")],
            "none": [],
        }[how]

    def _advance(self) -> None:
        self._next = next(self._steps, None)
        self._act_after(_CALM_S if self._next is None else self._next[0])

    def calm_down(self) -> None:
        """Drop the rest of the script, so that the party ends as the plan's node specifies."""
        self._next = None
        self._steps = iter(())
        self._act_after(_CALM_S)

    def _act_after(self, seconds: float) -> None:
        self._turn += 1
        self.world.timeline.after(seconds, self._act, self._turn)

    def _act(self, turn: int) -> None:
        if turn != self._turn or self.is_done:
            return
        state = self.stream.state
        if state == CONNECTING:
            # The script begins when the connection is open.
            self._act_after(0.01)
            return
        if self._announces and state == OPEN:
            piece = self._announces.pop(0)
            self.announced += self.stream.write(piece)
            self.world.network.note(f"{self.stream.name}: sent {piece!r}")
            self._act_after(0.01)
            return
        if self._next is None:
            if self._is_idle:
                self._sleep()
            else:
                self._be_orderly()
            return
        _, what, amount = self._next
        try:
            self.do(what, amount)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fail(exc.errno or errno.EIO)
        if not self.is_done:
            self._advance()

    def _sleep(self) -> None:
        # Cost: with polling, three quarters of a run's events were checks of idle streams.
        self._idle_since = self.world.timeline.now
        self.stream.sleeper = self.look

    def look(self) -> None:
        """Schedule the next action after a change of the stream, as if polling every 0.1 s."""
        if self.stream.sleeper is not None:
            self.stream.sleeper = None
            slept_s = self.world.timeline.now - self._idle_since
            self._act_after((slept_s // _CALM_S + 1) * _CALM_S - slept_s)

    def do(self, what: str, amount: int) -> None:
        """Do one step; raise the call's error."""
        if what == SEND and not self.has_finished:
            self.send(amount)
        elif what == READ:
            self.read(amount)
        elif what == FINISH and not self.has_finished:
            self.finish()
        elif what == URGENT and not self.has_finished and self.stream.outgoing_mark is None:
            self.send(1, is_urgent=True)
        elif what == RESET:
            self._note_reset()
            self.reset_at = self.world.timeline.now
            self.world.network.note(f"{self.stream.name}: RST")
            self.stream.lingers_zero = True
            self.stream.close()
        elif what == CLOSE:
            self.has_left = True
            self.close()

    def send(self, count: int, *, is_urgent: bool = False) -> None:
        """Send the next bytes of its pattern, as many as fit into the buffer."""
        data = pattern(self.base, self.sent, count)
        took = self.stream.write(data, is_urgent=is_urgent)
        self.sent += took
        self.world.network.note(f"{self.stream.name}: sent {took} B{' urgent' * is_urgent}")

    def finish(self) -> None:
        self.stream.shut_down()
        self.has_finished = True
        self.world.network.note(f"{self.stream.name}: FIN after {self.sent} B")

    def close(self) -> None:
        """Close the stream, by a RST if bytes are unread."""
        if not self.stream.close():
            self.has_finished = True
        else:
            self._note_reset()
        self.has_closed = True
        self.world.network.note(f"{self.stream.name}: close{' by RST' * self.has_reset}")

    def _note_reset(self) -> None:
        self.has_reset = True
        if self.other is None and self.service < 0 and self.stream.local is not None:
            # The node considers its dial failed.
            host = self.world.hosts[SocketAddress(*self.stream.local)]
            host.failures.append(self.world.timeline.now)

    def read(self, most: int) -> None:
        data = self.stream.read(most)
        if not data:
            if not self.heard_fin:
                self.heard_fin = True
                self.world.network.note(f"{self.stream.name}: read FIN after {self.heard} B")
            return
        self.world.network.note(f"{self.stream.name}: read {len(data)} B")
        if self.other is not None and self.header is None:
            self.header = self.other.expected_header()
        if self.header:
            known = min(len(data), len(self.header))
            if data[:known] != self.header[:known]:
                self.world.violate(f"{self.stream.name} read another PROXY header: {data!r}")
            self.header, data = self.header[known:], data[known:]
        if self.other is None:
            self.world.violate(f"{self.stream.name} read {data!r}, and isn't joined")
            return
        expected = pattern(self.other.base, self.heard, len(data))
        if data != expected or self.heard + len(data) > self.other.sent:
            self.world.violate(f"{self.stream.name} read other bytes than were sent, {self.heard}+")
        self.heard += len(data)

    def expected_header(self) -> bytes:
        """Return the PROXY header that the data plane sends before the client's bytes."""
        return self.world.header_of(self)

    @property
    def _is_idle(self) -> bool:
        """Whether the party can't read anything and isn't about to finish."""
        stream = self.stream
        has_news = stream.error or (stream.is_readable and not self.heard_fin)
        return not has_news and not self._may_end

    def _be_orderly(self) -> None:
        """Read all, send a last piece and FIN, and close once both sides have sent FIN."""
        before = self.heard
        try:
            while not self.heard_fin and self.stream.is_readable:
                self.read(1 << 20)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fail(exc.errno or errno.EIO)
            return
        if self.stream.error:
            self._fail(self.stream.take_error())
            return
        if self._may_end and self.stream.state in (OPEN, CLOSED):
            if self._ends_by_reset:
                self._end_by_reset()
                return
            try:
                if not self.has_finished:
                    if not self.sent:
                        self.send(_LAST_BYTES)
                    self.finish()
            except BlockingIOError:
                pass
            except OSError as exc:
                self._fail(exc.errno or errno.EIO)
                return
            if self.heard_fin and self.has_finished and self.stream.state == CLOSED:
                self.has_closed = True
                self.stream.close()
                return
        self._act_after(_BUSY_S if self.heard != before else _CALM_S)

    @property
    def _may_end(self) -> bool:
        """Whether the run is finishing, and the party is first, has read FIN or isn't joined."""
        if not self.world.is_finishing:
            return False
        first = self.world.plan.node.finishes_first
        is_first = first in ("both", "client" if self.service >= 0 else "endpoint")
        return is_first or self.heard_fin or self.other is None

    @property
    def _ends_by_reset(self) -> bool:
        every = self.world.plan.node.resets_every
        is_open = self.stream.state == OPEN and not self.has_finished and not self.heard_fin
        return bool(every) and self.number % every == 0 and is_open

    def _end_by_reset(self) -> None:
        """Send the last bytes; in the next call, send a RST."""
        try:
            if not self._has_said_last:
                self._has_said_last = True
                self.send(_LAST_BYTES * 20)
            else:
                self.do(RESET, 0)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fail(exc.errno or errno.EIO)
        if not self.is_done:
            self._act_after(_BUSY_S)

    def _fail(self, number: int) -> None:
        if not self.error:
            self.error = number
            self.world.network.note(f"{self.stream.name}: {errno.errorcode[number]}")
        self.has_closed = True
        self.stream.close()


class PodHost:
    """An endpoint with one address.

    Args:
        scripts: The scripts of the connections that it accepts, in turn.
    """

    def __init__(self, world: World, address: Address, scripts: Sequence[Sequence[Step]]) -> None:
        self.world = world
        self.address = address
        self.mix: tuple[str, ...] = ()
        """The reactions to dials, in turn, until the world is calm; empty to answer all dials."""
        self.dialled = 0
        self.failures: list[float] = []
        """The times of unanswered dials and datagrams, and of connections reset before use."""
        self.parties: list[Party] = []
        self._scripts = scripts
        self.heard: list[bytes] = []
        """The received datagrams."""
        self.goes_on: tuple[float, int] = (0.0, 0)
        """The delay in seconds after which it repeats an answer, and the number of repetitions."""

    def behaviour(self) -> str:
        self.dialled += 1
        now = ANSWERS
        if self.mix and not self.world.is_calm:
            now = self.mix[self.dialled % len(self.mix)]
        if now != ANSWERS:
            self.failures.append(self.world.timeline.now)
        if now == ABSENT:
            self.world.network.asked_for.setdefault(self.address[0], self.world.timeline.now)
        return now

    def accept(self, stream: Stream) -> None:
        count = len(self.parties)
        steps = self._scripts[count % len(self._scripts)] if self._scripts else ()
        stream.name = f"endpoint {self.address[0]}#{count}"
        number = 5000 + 101 * self.address[1] + 31 * count
        party = Party(self.world, stream, number, steps)
        self.parties.append(party)
        self.world.note_accepted(party)

    def receive(self, payload: bytes, source: Address) -> None:
        self.heard.append(payload)
        self.world.network.note(f"endpoint {self.address[0]}: got {payload!r}")
        answer = payload + b" from " + self.address[0].encode()
        if (count := self.heard.count(payload)) > 1:
            # A datagram that the endpoint refused at first may be sent to it again.
            answer += b"#%d" % count
        self._send(answer, source)
        every_s, times = self.goes_on
        for number in range(1, times + 1):
            again = answer + f"/{number}".encode()
            self.world.timeline.after(number * every_s, self._send, again, source)

    def _send(self, payload: bytes, to: Address) -> None:
        self.world.flows.answer(payload)
        self.world.network.send_datagram(payload, self.address, to)


class Asker:
    """A UDP client with one address, and the datagrams that it sent and received."""

    def __init__(self, world: World, address: Address) -> None:
        self.world = world
        self.address = address
        self.sent = 0
        self.got: list[bytes] = []
        world.network.clients[address] = self._receive

    def ask(self, service: Service, to: Address, hops: int = 64) -> None:
        """Send a datagram to a Service's address."""
        payload = f"{self.address[0]}:{self.address[1]}/{self.sent}".encode()
        self.sent += 1
        self.world.network.note(f"udp client {self.address[0]}: sent {payload!r} to {to[0]}")
        self.world.flows.ask(payload, self.address, to, hops, service)
        self.world.network.send_datagram(payload, self.address, to, hops)

    def _receive(self, payload: bytes, source: Address) -> None:
        self.got.append(payload)
        self.world.network.note(f"udp client {self.address[0]}: got {payload!r} from {source[0]}")
