"""Clients and endpoints: what clients see is what the control half promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import Protocol, SocketAddress

from ..network import ANSWERS, Address
from ..streams import OPEN, Stream
from .files import Watch

if TYPE_CHECKING:
    from userspace_proxy.dataplane import EndpointGroup, UdpListener

    from .world import World

DIALS, WAITS, SERVED, REFUSED, RESET, ENDED = (
    "dials",
    "waits",
    "served",
    "refused",
    "reset",
    "ended",
)
"""What becomes of a client."""
SERVED_ONES = "clients are served"
"""The oracle of those that aren't reset."""
STAY = "those that are served stay"
"""The oracle of those whose connections are open until they end them."""
SILENT = "its endpoints were silent when last dialled"
"""Why one may be reset."""


CLIENT_ADDRESSES = 200
# A client that stays for longer asks again and again.
_TALKS_S, _PAUSE_S = 5.0, 0.7
_END = b";"
"""Of an answer."""


class Client:
    """One connection of a client, which asks, reads the answer, and ends after a while."""

    protocol = Protocol.TCP

    def __init__(self, world: World, number: int, to: SocketAddress, hold_s: float) -> None:
        self.world = world
        self.number = number
        self.name = f"client {number}"
        self.to = to
        self.state = DIALS
        self.dialled_at = world.timeline.now
        self.endpoint = ""
        self.group: EndpointGroup | None = None
        """The one that a worker has accepted it for."""
        self.is_excused = ""
        """Why it may be reset."""
        self.is_looked_at = False
        """It was judged whether it was served soon."""
        self.asked = 0
        """How often; each time it is one byte."""
        self._answers: list[tuple[float, int]] = []
        """When each was read, and its bytes."""
        self._hold_s = hold_s
        self.address: Address = (f"10.3.0.{number % CLIENT_ADDRESSES + 1}", 20000 + number)
        self.stream = world.machine.dial(self.name, self.address, (to.ip, to.port))
        self.stream.item = Watch(world.machine, self._look)  # type: ignore[assignment]

    def _look(self) -> None:
        stream = self.stream
        if self.state in (REFUSED, RESET, ENDED):
            return
        if stream.error:
            was, number = self.state, stream.take_error()
            self.state = RESET if stream.peer is not None else REFUSED
            self.world.note(f"{self.name}: {self.state} ({number}) while it {was}")
            self.world.checks.ended(self, was)
        elif self.state == DIALS and stream.state == OPEN:
            self.state = WAITS
            self._ask()
        elif self.state == WAITS and stream.inbox.endswith(_END):
            self.endpoint = self._take_answer()
            self.state = SERVED
            self.world.note(f"{self.name}: served by {self.endpoint}")
            self.world.judgements.right(SERVED_ONES)
            self.world.checks.served(self)
            if not self.world.is_finishing:
                self.world.timeline.after(self._hold_s, self.finish)
                if self._hold_s >= _TALKS_S:
                    self.world.timeline.after(_PAUSE_S, self._ask_again)
        elif self.state == SERVED and stream.inbox.endswith(_END):
            self._take_answer()
        elif stream.has_fin:
            was, self.state = self.state, ENDED
            if was == WAITS and not self.is_excused:
                # A process that is killed ends its connections without a reset.
                self.world.judgements.violate(
                    SERVED_ONES, f"{self.name}: its connection ended without an answer"
                )
            elif was == SERVED:
                self.world.checks.left(self, "had its connection ended")
            stream.close()

    def _ask(self) -> None:
        self.asked += 1
        self.stream.write(b"?")

    def _ask_again(self) -> None:
        if self.state == SERVED and self.stream.state == OPEN:
            self._ask()
            self.world.timeline.after(_PAUSE_S, self._ask_again)

    def _take_answer(self) -> str:
        answer = self.stream.read(100)
        self._answers.append((self.world.timeline.now, len(answer)))
        return answer.decode()[:-1]

    def seen(self, until: float) -> tuple[int, int, int]:
        """Return its connections, and the bytes that were received of it and sent, as it knows.

        Args:
            until: Only what it has read until then.
        """
        sizes = [size for at, size in self._answers if at <= until]
        return min(1, len(sizes)), len(sizes), sum(sizes)

    @property
    def is_open(self) -> bool:
        """Whether its connection has ended on neither side."""
        return self.state in (DIALS, WAITS, SERVED)

    def finish(self) -> None:
        if self.state == SERVED:
            self.state = ENDED
            if self.stream.state == OPEN:
                self.world.judgements.right(STAY)
                self.stream.shut_down()
                self.stream.close()


class Asker:
    """A client of UDP, which asks once.

    Args:
        waits_s: For so long its endpoint takes to reply.
    """

    protocol = Protocol.UDP

    def __init__(self, world: World, number: int, to: SocketAddress, waits_s: float = 0.0) -> None:
        self.world = world
        self.number = number
        self.to = to
        self.waits_s = waits_s
        self.asked_at = world.timeline.now
        self.stand_in: UdpListener | None = None
        """The listener that has its flow, if that is one of a worker that stands in for another."""
        self.address: Address = (f"10.4.0.{number % CLIENT_ADDRESSES + 1}", 20000 + number)
        self.endpoint = ""
        self.is_refused = False
        world.machine.clients[self.address] = self._answered

    def ask(self) -> None:
        to = (self.to.ip, self.to.port)
        self.is_refused = not self.world.machine.ports_of_datagrams(to)
        self.asked_at = self.world.timeline.now
        payload = b"?%d" % self.world.askers.index(self) if self.waits_s else b"?"
        self.world.machine.send_datagram(payload, self.address, to)

    def _answered(self, payload: bytes, _source: Address) -> None:
        self.endpoint = payload.decode()


class Endpoint:
    """Part of Host: one that answers with its name, unless it is broken for a while."""

    def __init__(self, world: World, address: SocketAddress) -> None:
        self._world = world
        self._address = address
        self._how = ANSWERS
        self._until = 0.0

    def break_for(self, seconds: float, how: str) -> None:
        """Refuse connections, or be unreachable, for that long."""
        self._how, self._until = how, self._world.timeline.now + seconds

    def behaviour(self) -> str:
        """Part of Host."""
        return self._how if self._world.timeline.now < self._until else ANSWERS

    def accept(self, stream: Stream) -> None:
        """Part of Host."""
        _Answering(self._world, stream, self._address.ip)

    def receive(self, payload: bytes, source: Address) -> None:
        """Part of Host."""
        if len(payload) > 1:
            asker = self._world.askers[int(payload[1:])]
            self._world.replies.receive(self._address, asker, source)
            return
        to = (self._address.ip, self._address.port)
        self._world.machine.send_datagram(self._address.ip.encode(), to, source)


class _Answering:
    """An endpoint's side of one connection."""

    def __init__(self, world: World, stream: Stream, name: str) -> None:
        self._stream = stream
        self._name = name
        stream.item = Watch(world.machine, self._look)  # type: ignore[assignment]
        world.machine.timeline.after(0.0002, self._look)

    def _look(self) -> None:
        stream = self._stream
        if stream.error:
            stream.take_error()
        elif stream.inbox:
            stream.read(100)
            if stream.state == OPEN and not stream.shut_out:
                stream.write(self._name.encode() + _END)
        if stream.has_fin and not stream.inbox and not stream.shut_out:
            stream.close()
