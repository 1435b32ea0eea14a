"""Judges each choice of an endpoint against the reference model, as the program makes it.

    begins ─▶ sent ─┬─▶ connects, connected ─┬─▶ answered (joined) ─▶ ended
             (pick) │     (the system call)  ├─▶ failed: SO_ERROR was read, or it was given up
                    │                        └─▶ next one, waits, refused
                    └─▶ no dial, as the kernel lacks something

Rule 1: the program knows of a failure once it has read it: from then on its choices must show it.
Rule 2: what isn't judged is excused with a reason, for this one event.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from userspace_proxy.facts.connection import ConnectionEvent
from userspace_proxy.model import Protocol, SocketAddress

from .addresses import NODE_IP, NODE_IPS
from .attempts import Attempt, Dial, Port
from .judging import SILENT_S, Judging, may_be_late
from .kernel import Watcher
from .leaving import Leaving
from .model import Kind, Option, Sure
from .network import Address
from .probes import Probes
from .streams import Stream
from .waits import Waits

if TYPE_CHECKING:
    from .actors import Party
    from .services import Service
    from .sockets import SimulatedSocket
    from .world import World

_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
_PORTS = {errno.EADDRNOTAVAIL, errno.EAGAIN}


class Choices(Watcher):
    """The oracles of choices of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.judge = world.judgements
        self.ports: list[Port] = []
        self.attempts: dict[int, Attempt] = {}
        self._sending: Attempt | None = None
        self._portless: tuple[Dial, int] | None = None
        """The dial, if no port was free for it yet, and what the kernel had lacked by then: another
        port is tried."""
        self._found: list[Option] | None = None
        """What the client that waits now could have."""
        self._dials: dict[Any, tuple[Port, Attempt]] = {}
        """Dials for clients, by what is behind their sockets."""
        self._probes = Probes(world)
        self._judging = Judging(world)
        self._waits = Waits(world)
        self._leaving = Leaving(world)

    # -- time and clients --------------------------------------------------------------------------

    def add(self, service: Service) -> None:
        """Follow a Service port."""
        at = self.world.timeline.now
        self.ports.append(Port(service, service.planned.serving, at))

    def served(self, service: Service) -> None:
        """Note that a Service port is served in another way."""
        port = self.ports[service.number]
        port.served(service.serving, self.world.timeline.now)

    def elsewhere(self, service: Service, endpoint: SocketAddress, how: str) -> None:
        """Note what another worker has reported."""
        port, now = self.ports[service.number], self.world.timeline.now
        if how == "answered":
            port.answered(endpoint, (now, now), is_here=False)
        else:
            port.could_serve_since = None
            port.model.failed(endpoint, (now, now), is_silent=how == "silent")

    def reported(self, service: Service, what: str, endpoint: SocketAddress) -> None:
        """Note what the program tells other workers."""
        self.ports[service.number].reported[what, endpoint] += 1

    def reported_wait(self, service: Service) -> None:
        """Note that the program says that a client finds no endpoint."""
        self.ports[service.number].wait_reports += 1

    def attempt_of(self, stream: Stream) -> tuple[Port, Attempt] | None:
        """Return what is known of a client, by the program's end of its connection."""
        assert stream.remote is not None, "it has a client"
        client = self.world.clients.get(stream.remote[1] - 20000)
        if client is None:
            return None
        attempt = self.attempts.get(client.number)
        if attempt is None:
            port = self.ports[client.service]
            keeps = port.model.serving.handling.keeps_clients
            attempt = Attempt(client.number, client.served_as.ip, self.world.moment(), keeps)
            self.attempts[client.number] = port.pending[client.number] = attempt
        return self.ports[client.service], attempt

    # -- what the program does ---------------------------------------------------------------------

    def accepts(self, sock: SimulatedSocket, client: Stream) -> None:
        """Part of Watcher: the Service port of a client is that for which it is accepted."""
        assert client.remote is not None, "it has a client"
        party = self.world.clients.get(client.remote[1] - 20000)
        service = next(s for s in self.world.services if s.sock is sock)
        if party is not None:
            party.service = service.accepts_for.number
            party.accepted = self.world.moment()

    def begins(self, stream: Stream, ip: str) -> None:
        """Note that an endpoint is looked for, for a client."""
        known = self.attempt_of(stream)
        if known is None:
            self.judge.violate("client", f"{stream.name} is no client's")
            return
        port, attempt = known
        is_announced = stream.remote is None or stream.remote[0] != ip
        number = port.service.number
        self.world.oracles.evictions.begins(ip, number, is_announced=is_announced)
        attempt.begun_at = attempt.idle_since = self.world.timeline.now
        attempt.looked_for = self.world.moment()
        self.judge.check("client address", ip == attempt.ip, f"{attempt.ip} was taken for {ip}")

    def sends(self, stream: Stream, endpoint: SocketAddress) -> None:
        """Judge which endpoint a client is sent to, before it is dialled."""
        known = self.attempt_of(stream)
        if known is None or self.world.is_closed:
            return
        port, attempt = known
        at = self.world.moment()
        self._judging.judge_choice(port, attempt, endpoint, at)
        self._waits.sends(port, attempt, endpoint)
        self._waits.redials(attempt)
        port.model.sent(attempt.ip, endpoint, at)
        attempt.looked_for = attempt.looked_for or at
        self._sending = attempt
        attempt.is_at_limit = attempt.is_surely_at_limit = False
        attempt.last_turn = self.world.timeline.now
        if attempt.first_dial is None and not attempt.tried:
            attempt.turn_began = attempt.last_turn
        attempt.could_go_since = None
        port.could_serve_since = None
        if attempt.waits_since is not None:
            port.sent_at = at[1]
        self._waits.took(port, attempt, at)

    def sent(self) -> None:
        """Note that the dial has begun, or can't."""
        if self._sending is not None and self._portless is not None:
            dial, lacks = self._portless
            if lacks == self.world.kernel.lacks:
                # Otherwise it lacked a socket for the last port: the endpoint is dialled again.
                self._sending.tried[dial.endpoint] = None
                self._judging.judge_portless(self._sending, dial)
        self._sending = self._portless = None

    def connects(self, sock: SimulatedSocket, address: Address) -> None:
        """Part of Watcher."""
        if not isinstance(sock.core, Stream):
            return
        endpoint, attempt = SocketAddress(*address), self._sending
        if attempt is None:
            self._probes.begin(sock, endpoint)
            return
        port = self._port_of(attempt)
        source = sock.core.local
        is_preserved = source is not None and source[0] not in NODE_IPS
        attempt.dial = Dial(endpoint, self.world.moment(), is_preserved, sock.core)
        self._dials[sock.core] = port, attempt
        self._judging.judge_source(attempt, source[0] if is_preserved and source else NODE_IP)

    def connected(self, sock: SimulatedSocket, number: int) -> None:
        """Part of Watcher."""
        known = self._dials.get(sock.core)
        if known is None:
            if number not in (0, errno.EINPROGRESS):
                # This node can't dial it now.
                self._probes.drop(sock.core)
            return
        port, attempt = known
        dial = attempt.dial
        assert dial is not None, "it was dialled"
        self._portless = None
        if number in (0, errno.EINPROGRESS):
            model, began = port.model, dial.began
            attempt.first_dial = attempt.first_dial or began
            model.loads.add(attempt.number, dial.endpoint, is_sure=model.counts_dials)
            # Until now it had taken no room.
            self._waits.took(port, attempt, began)
        else:
            self._failed(port, attempt, number)

    def read_error(self, sock: SimulatedSocket, number: int) -> None:
        """Part of Watcher."""
        if self._probes.ended(sock.core, number):
            return
        known = self._dials.get(sock.core)
        if known is not None and number:
            self._failed(*known, number)

    def closes(self, sock: SimulatedSocket) -> None:
        """Part of Watcher."""
        self._probes.drop(sock.core)
        known = self._dials.pop(sock.core, None)
        if known is None or known[1].is_over or known[1].joined:
            return
        port, attempt = known
        if attempt.dial is not None and attempt.dial.core is sock.core:
            self._given_up(port, attempt, attempt.dial, is_watched=sock.was_watched)

    def joins(self, client: Party, sock: SimulatedSocket) -> None:
        """Note that an endpoint has answered."""
        known = self._dials.get(sock.core)
        attempt = self.attempts.get(client.number)
        if known is None or attempt is not known[1] or attempt.dial is None:
            self.judge.violate("joined", f"client {client.number} was joined to {sock.core.name}")
            return
        port, at = known[0], self.world.moment()
        dial = attempt.dial
        if attempt.tried:
            self.world.observing.happens(client.number, ConnectionEvent.SAVED)
        if attempt.waits_since is not None:
            port.hope_at = at[1]
        attempt.joined, attempt.waits_since = dial.endpoint, None
        attempt.joined_at = at[1]
        port.joined[attempt.number] = attempt
        port.pending.pop(attempt.number, None)
        self._waits.emptied(port)
        port.model.loads.add(attempt.number, dial.endpoint)
        port.answered(dial.endpoint, at)
        if dial.is_preserved:
            self._judging.answered_at[attempt.ip, dial.endpoint] = self.world.timeline.now

    def ended(self, number: int, cause: str) -> None:
        """Judge the end of a client's connection."""
        attempt = self.attempts.get(number)
        if attempt is None or attempt.is_over:
            return
        port = self._port_of(attempt)
        if cause == "unanswered" and not self.world.is_closed:
            self._judging.judge_refusal(port, attempt)
        self._waits.ended(port, attempt, cause)
        if cause == "endpoint removed":
            self._leaving.ended(port, attempt)
        port.joined.pop(number, None)
        attempt.is_over = True
        attempt.dial = attempt.dial if attempt.joined else None
        port.pending.pop(number, None)
        if cause != "too many waiting":
            self._waits.emptied(port)
        port.model.loads.remove(number)
        if attempt.joined:
            port.ended_at = self.world.timeline.now
        if attempt.joined and attempt.dial is not None and attempt.dial.is_preserved:
            self._judging.answered_at[attempt.ip, attempt.joined] = self.world.timeline.now

    def waits(self, stream: Stream) -> None:
        """Judge that a client waits, before it does."""
        known = self.attempt_of(stream)
        if known is None or self.world.is_closed:
            # As it closes, dials are tried again, and what they take isn't followed.
            return
        port, attempt = known
        at = self.world.moment()
        options = port.model.options(attempt.ip, at, attempt.tried)
        queue = [each for each in port.pending.values() if each is not attempt and each.is_waiting]
        # Only a new one queues up behind others, before an endpoint is looked for.
        is_new = attempt.waits_since is None and not attempt.has_looked
        is_behind = is_new and port.model.is_uniform and any(each.is_at_limit for each in queue)
        may_be_behind = (
            is_new and port.model.is_uniform and any(each.may_be_at_limit for each in queue)
        )
        self._judging.judge_wait(
            attempt, options, at, is_behind=is_behind, may_be_behind=may_be_behind
        )
        is_full = any(option.kind is Kind.WAIT for option in options or ())
        attempt.is_at_limit = is_full or is_behind
        kinds = {option.kind for option in options or ()}
        is_surely_behind = is_behind and any(each.is_surely_at_limit for each in queue)
        attempt.is_surely_at_limit = kinds == {Kind.WAIT} or is_surely_behind
        # At its deadline an endpoint may be left, and another one full.
        is_limited = port.model.limit is not None and kinds != {Kind.NONE}
        attempt.may_be_at_limit = attempt.is_at_limit or options is None or is_limited
        attempt.tried.clear()
        attempt.first_dial = attempt.looked_for = None
        attempt.could_go_since = port.could_serve_since = None
        attempt.idle_since = self.world.timeline.now
        self._found = options

    def finds_none(self, stream: Stream) -> None:
        """Note that a client finds no endpoint, and looks again when the turn is over."""
        known = self.attempt_of(stream)
        if known is not None:
            known[1].found_none_at = self.world.timeline.now

    def has_place(self, stream: Stream) -> None:
        """Judge the places of those that wait, after a client has got one, or has kept it."""
        known = self.attempt_of(stream)
        if known is not None and known[1].waits_since is None:
            known[1].waits_since = self.world.moment()
            self.world.observing.happens(known[1].number, ConnectionEvent.HELD)
            if not self.world.is_closed:
                self._waits.waits(*known, self._found)

    # -- dials -------------------------------------------------------------------------------------

    def _failed(self, port: Port, attempt: Attempt, number: int) -> None:
        """Note that the program has learned of a dial's failure."""
        dial, now = attempt.dial, self.world.timeline.now
        if dial is None or dial.number is not None:
            return
        dial.number = number
        attempt.dial, attempt.idle_since, attempt.dialled_until = None, now, now
        port.model.loads.remove(attempt.number)
        if number in _SHORTAGES:
            attempt.shortage_at = now
            return
        if number in _PORTS:
            attempt.shortage_at = now
            if attempt is self._sending:
                self._portless = dial, self.world.kernel.lacks
            else:
                attempt.tried[dial.endpoint] = None
            return
        attempt.tried[dial.endpoint] = None
        self._note_failure(port, attempt, dial, is_silent=number == errno.ETIMEDOUT)

    def _given_up(self, port: Port, attempt: Attempt, dial: Dial, *, is_watched: bool) -> None:
        """Note that a dial was closed while it was under way: that is a failure after a second.

        One that can't be watched, as the kernel lacks something, isn't given up: it never began.
        """
        at = self.world.moment()
        attempt.dial, attempt.idle_since, attempt.dialled_until = None, at[1], at[1]
        port.model.loads.remove(attempt.number)
        least, most = at[0] - dial.began[1], at[1] - dial.began[0]
        first = attempt.looked_for or dial.began
        is_by_client = may_be_late(first, at)
        if is_watched and not is_by_client:
            why = f"{dial.endpoint} had {most:.3f} s to answer client {attempt.number}"
            self.judge.check("patience", most >= SILENT_S, why)
        if most < SILENT_S or not is_watched:
            return
        if not is_by_client:
            options = port.model.options(attempt.ip, at, {*attempt.tried, dial.endpoint})
            kinds = {option.kind for option in options or ()}
            why = f"{dial.endpoint} was given up for client {attempt.number}, and no other is left"
            has_other = options is None or bool(kinds - {Kind.NONE, Kind.WAIT})
            self.judge.check("patience", has_other, why)
        self._waits.gave_up(attempt, (least, most))
        attempt.tried[dial.endpoint] = None
        is_sure = least >= SILENT_S or not is_by_client
        self._note_failure(port, attempt, dial, is_silent=True, is_sure=is_sure)

    def _note_failure(
        self, port: Port, attempt: Attempt, dial: Dial, *, is_silent: bool, is_sure: bool = True
    ) -> None:
        at = self.world.moment()
        # Those that wait may have lost what could have served them.
        port.could_serve_since = None
        over = port.has_returned_since(dial.endpoint, dial.began) if is_silent else Sure.NO
        own = self._probes.is_own(attempt.ip, dial, at)
        is_of_endpoint = Sure.YES if is_sure else Sure.EITHER
        if Sure.EITHER in (over, own):
            is_of_endpoint = Sure.EITHER
        if Sure.YES in (over, own):
            is_of_endpoint = Sure.NO
        port.failed(dial, at, is_silent=is_silent, is_of_endpoint=is_of_endpoint)
        if dial.is_preserved and over is not Sure.YES and own is not Sure.YES:
            is_sure = is_of_endpoint is Sure.YES
            self._probes.want(port, attempt.ip, dial.endpoint, is_sure=is_sure)

    def dial_of(self, core: Any) -> tuple[int, int, Dial] | None:
        """Return a dial for a client that is under way: its Service port, its client, and it."""
        known = self._dials.get(core)
        if known is None or known[1].dial is None or known[1].dial.core is not core:
            return None
        return known[0].service.number, known[1].number, known[1].dial

    def _port_of(self, attempt: Attempt) -> Port:
        return self.ports[self.world.clients[attempt.number].service]

    # -- after each turn ---------------------------------------------------------------------------

    def after_turn(self) -> None:
        """Check what must have happened within the turn."""
        self._probes.after_turn()
        self._waits.after_turn(self.ports)
        self._leaving.after_turn(self.ports)
        for port in self.ports:
            if port.expected or port.reported or port.possible:
                # As it closes, descriptors that become free have dials tried again that end soon.
                if is_tcp(port.service) and not self.world.is_closed:
                    self._judge_news(port)
                for news in (port.expected, port.reported, port.possible):
                    news.clear()

    def _judge_news(self, port: Port) -> None:
        for key in {**port.expected, **port.reported}:
            missing = port.expected[key] - port.reported[key]
            what, endpoint = key
            if missing > 0:
                self.judge.violate("news", f"{endpoint}: no report that it was {what}")
            elif -missing > port.possible[key]:
                self.judge.violate("news", f"{endpoint}: reported as {what}, and it wasn't")
            elif missing:
                self.judge.excuse("news", "the moment is unsure")
            else:
                self.judge.right("news")


def is_tcp(service: Service) -> bool:
    """Return whether a Service port is one of TCP."""
    return service.planned.protocol is Protocol.TCP
