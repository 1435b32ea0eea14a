"""Clients and endpoints: each client records the endpoint that it reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from userspace_proxy.model import Protocol

from ..machine.files import Watch
from ..network import ANSWERS, Address
from ..streams import OPEN, Stream
from .claims import Dialled
from .cluster import Floors

if TYPE_CHECKING:
    from .world import World

DIALS, WAITS, SERVED, REFUSED, RESET, ENDED = (
    "dials",
    "waits",
    "served",
    "refused",
    "reset",
    "ended",
)
"""The states of a client."""

_END = b";"
"""The end of an answer."""
# A UDP client that holds its flow for longer than this sends again.
_LONG_S = 0.1
# Clients' source ports start here; another program uses lower ports.
_PORTS = 20000


class Client:
    """A TCP or UDP client: sends a request, reads the answer, and closes after a while."""

    def __init__(self, world: World, number: int, ip: str, at: Dialled, hold_s: float) -> None:
        self.world = world
        self.name = f"client {number} ({ip})"
        self.ip = ip
        self.at = at
        self.state = DIALS
        self.dialled_at = world.timeline.now
        self.opened_at = self.answered_at = 0.0
        self.floors = world.freshness.floors()
        """Changes up to these times are applied when it dials."""
        self.endpoint: tuple[str, int] | None = None
        self.has_finished = False
        """Whether the client closed its connection itself."""
        self.hold_s = hold_s
        self.address: Address = (ip, _PORTS + number)
        self.stream: Stream | None = None
        if at[2] == Protocol.TCP:
            stream = self.stream = world.machine.dial(self.name, self.address, at[:2])
            stream.item = Watch(world.machine, self._look)  # type: ignore[assignment]
        else:
            world.machine.clients[self.address] = self._answered
            self._ask()

    def _change(self, state: str, more: str = "") -> None:
        was, self.state = self.state, state
        self.world.note(f"{self.name}: {state}{more}")
        self.world.invariants.client_changed(self, was)

    def _ask(self) -> None:
        self.world.machine.send_datagram(b"?", self.address, self.at[:2])

    def _answered(self, payload: bytes, _source: Address) -> None:
        if self.state == DIALS:
            self._serve(payload)
            if self.hold_s > _LONG_S:
                self.world.timeline.after(self.hold_s, self._ask_again)

    def _ask_again(self) -> None:
        """Send again from the same port: the flow may have another endpoint now."""
        world = self.world
        if self.state == SERVED and not world.is_finishing:
            self.state, self.dialled_at = DIALS, world.timeline.now
            self.floors = world.freshness.floors()
            world.waiting.append(self)
            self._ask()

    def _serve(self, answer: bytes) -> None:
        ip, _, port = answer.decode().rstrip(";").rpartition(":")
        self.endpoint = (ip, int(port))
        self.answered_at = self.world.timeline.now
        self._change(SERVED, f" by {ip}:{port}")

    def _look(self) -> None:
        stream = self.stream
        assert stream is not None, "a UDP client has no stream"
        if self.state in (REFUSED, RESET, ENDED):
            return
        if stream.error:
            number = stream.take_error()
            self._change(RESET if stream.peer is not None else REFUSED, f" ({number})")
        elif self.state == DIALS and stream.state == OPEN:
            self.state, self.opened_at = WAITS, self.world.timeline.now
            stream.write(b"?")
        elif self.state == WAITS and stream.inbox.endswith(_END):
            self._serve(bytes(stream.read(100)))
            self.world.timeline.after(self.hold_s, self.finish)
        elif stream.has_fin:
            was = self.state
            stream.close()
            self._change(RESET if was == WAITS else ENDED)

    def go_back(self) -> None:
        """Record that an older state, which may serve a waiting client, may be applied now."""
        if self.state in (DIALS, WAITS):
            self.floors = Floors(*map(min, self.floors, self.world.freshness.floors()))

    def finish(self) -> None:
        """Close the client's connection if it is served."""
        stream = self.stream
        if stream is not None and self.state == SERVED:
            self.has_finished = True
            self._change(ENDED)
            if stream.state == OPEN:
                stream.shut_down()
                stream.close()

    def give_up(self) -> None:
        """Close the client's connection, even if it isn't served yet."""
        if self.stream is not None and self.state in (DIALS, WAITS, SERVED):
            self.state = ENDED
            self.stream.close()


class Endpoint:
    """Simulates a host that answers with its address."""

    def __init__(self, world: World, at: Address) -> None:
        self._world = world
        self._at = at
        self._answer = f"{at[0]}:{at[1]}".encode()
        self._how, self._until = ANSWERS, 0.0

    def break_for(self, how: str, seconds: float) -> None:
        """Refuse connections, be unreachable, or not answer, for a while."""
        self._how, self._until = how, self._world.timeline.now + seconds

    def behaviour(self) -> str:
        return self._how if self._world.timeline.now < self._until else ANSWERS

    def accept(self, stream: Stream) -> None:
        _Answering(self._world, stream, self._answer + _END)

    def receive(self, _payload: bytes, source: Address) -> None:
        self._world.machine.send_datagram(self._answer, self._at, source)


class _Answering:
    """An endpoint's side of one connection."""

    def __init__(self, world: World, stream: Stream, answer: bytes) -> None:
        self._stream = stream
        self._answer = answer
        stream.item = Watch(world.machine, self._look)  # type: ignore[assignment]
        look: Callable[[], None] = self._look
        world.timeline.after(0.0002, look)

    def _look(self) -> None:
        stream = self._stream
        if stream.error:
            stream.take_error()
        elif stream.inbox:
            stream.read(100)
            if stream.state == OPEN and not stream.shut_out:
                stream.write(self._answer)
        if stream.has_fin and not stream.inbox and not stream.shut_out:
            stream.close()


def at_of(client: Client) -> str:
    """Format the address that a client dials."""
    return "{}:{}/{}".format(*client.at)
