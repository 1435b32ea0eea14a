"""What is known of each client's connection and each Service port, as seen from outside."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .model import Model, Side, Span, Sure
from .streams import CONNECTING, Stream
from .turns import Turns

if TYPE_CHECKING:
    from .services import Service


@dataclass
class Dial:
    """One dial of the program, for a client, or on its own."""

    endpoint: SocketAddress
    began: Span
    is_preserved: bool = False
    """It is dialled from the client's address."""
    core: Stream | None = None
    number: int | None = None
    """What it failed with, as far as the program knows."""

    @property
    def is_answered(self) -> bool:
        """Whether the answer has arrived, which the program may not know yet."""
        return self.core is not None and self.core.state != CONNECTING


@dataclass(eq=False)
class Attempt:
    """A client's connection, from its acceptance to its end."""

    number: int
    ip: str
    """By which it is served: its own, or that of a PROXY header."""
    accepted: Span
    keeps_address: bool = True
    """Endpoints may see its own address."""
    begun_at: float | None = None
    """When an endpoint was first looked for."""
    tried: dict[SocketAddress, None] = field(default_factory=dict)
    """Endpoints that have failed since it last waited."""
    dial: Dial | None = None
    first_dial: Span | None = None
    """When the first dial since it last waited began."""
    looked_for: Span | None = None
    """When an endpoint was first looked for since it last waited: from then on its time runs, also
    if none was found at once, or the kernel had no socket for a dial."""
    joined: SocketAddress | None = None
    joined_at: float = 0.0
    is_one_way: bool = False
    """Of a flow: it has no answer, and datagrams without a refusal have shown that its endpoint is
    there. That counts once; an answer counts, too."""
    is_over: bool = False
    waits_since: Span | None = None
    is_at_limit: bool = False
    """It waits for room at an endpoint."""
    may_be_at_limit: bool = False
    """As far as is known, it does."""
    is_surely_at_limit: bool = False
    """It does whatever holds of what is unsure: new ones queue up behind it."""
    turn_began: float = 0.0
    """When the first dial of its last turn began."""
    last_turn: float = 0.0
    """When it was last dialled for."""
    dialled_until: float = 0.0
    """When its last dial ended."""
    found_none_at: float = 0.0
    """When it last found no endpoint, and was to look again when the turn of the loop was over."""
    idle_since: float = 0.0
    """Since when no dial was under way for it."""
    shortage_at: float = -1.0
    """When the kernel last refused something that it needed."""
    could_go_since: float | None = None
    """Since when an endpoint could be dialled for it, and isn't."""

    @property
    def is_waiting(self) -> bool:
        """Whether it has a place in the waiting room and no dial is under way for it."""
        return self.waits_since is not None and self.dial is None and not self.is_over

    @property
    def has_looked(self) -> bool:
        """Whether an endpoint was looked for since it last waited, also if no dial could begin."""
        since = self.looked_for[0] if self.looked_for else math.inf
        found_none = max(self.found_none_at, self.shortage_at) >= since
        return self.first_dial is not None or bool(self.tried) or found_none

    def found_none_since(self, moment: float) -> bool:
        """Return whether it has had a turn since a moment without an endpoint to dial."""
        return self.idle_since >= moment > self.dialled_until


class Port:
    """One Service port: its model, its turns, and the clients that have no endpoint yet."""

    def __init__(self, service: Service, serving: Serving, at: float):
        self.service = service
        self.model = Model(serving, at, service.world.plan.node.share_of)
        self.turns: dict[int, Turns] = {}
        self.pending: dict[int, Attempt] = {}
        """By client, those that are neither joined nor over."""
        self.expected: Counter[tuple[str, SocketAddress]] = Counter()
        """News of ejections and returns that other workers must get."""
        self.possible: Counter[tuple[str, SocketAddress]] = Counter()
        """News that they may get as well."""
        self.reported: Counter[tuple[str, SocketAddress]] = Counter()
        self.returned: dict[SocketAddress, Span] = {}
        """When the last ejection of an endpoint ended."""
        self.could_serve_since: float | None = None
        """Since when a client waits that an endpoint could take."""
        self.is_at_once = False
        """It could since something that has those that wait dialled for at once."""
        self.ended_at = 0.0
        """When a joined connection last ended."""
        self.hope_at = at
        """When an ejection last ended, the serving changed, or one that waited was answered."""
        self.sent_at = at
        """When one that waited was last dialled for."""
        self.joined: dict[int, Attempt] = {}
        """By client, those that are joined and not over."""
        self.left_at: dict[SocketAddress, float] = {}
        """When an endpoint was last left out, at least on one side."""
        self.ends_since = self.ends_changed_at = at
        """Since when connections to such endpoints end, and since when after that time."""
        self.lacks_endpoints = False
        """One of those that wait has found no endpoint."""
        self.wait_reports = 0
        """How often others were told so, since the last one began to wait."""

    def turns_of(self, side: Side) -> Turns:
        """Return the turns of a side."""
        if id(side) not in self.turns:
            self.turns[id(side)] = Turns(self.model, side)
        return self.turns[id(side)]

    def served(self, serving: Serving, at: float) -> None:
        """Note another serving."""
        old, sides = self.model.serving, self.model.sides
        firsts = [set(side.first) for side in (self.model.inner, self.model.outer)]
        self.model.served(serving, at)
        self.hope_at = at
        self._note_left(old, firsts, at)
        kept = {id(side) for side in self.model.sides if side in sides}
        self.turns = {key: turns for key, turns in self.turns.items() if key in kept}
        if _strategy(old) != _strategy(serving):
            for turns in self.turns.values():
                turns.restart()
        for endpoint in [e for e in self.returned if e not in serving.all_endpoints]:
            del self.returned[endpoint]

    def _note_left(self, old: Serving, before: list[set[SocketAddress]], at: float) -> None:
        inner, outer = set(self.model.inner.first), set(self.model.outer.first)
        left = (before[0] - inner) | (before[1] - outer)
        # A standby that is removed leaves once more: the last change counts.
        left |= {*old.all_endpoints} - {*self.model.serving.all_endpoints}
        if old.inside != self.model.serving.inside:
            # Clients may have changed sides.
            left |= {*old.all_endpoints, *self.model.serving.all_endpoints} - (inner & outer)
        self.left_at.update(dict.fromkeys(left, at))
        was, seconds = old.handling.removal_s, self.model.serving.handling.removal_s
        if was is None:
            self.ends_since = at
        if was != seconds:
            self.ends_changed_at = at

    def answered(self, endpoint: SocketAddress, at: Span, *, is_here: bool = True) -> None:
        """Note an answer, of which other workers learn if it ends an ejection."""
        ends = self.model.answered(endpoint, at)
        if ends is not Sure.NO:
            self.returned[endpoint] = at if ends is Sure.YES else (0.0, at[1])
        if ends is Sure.YES:
            self.hope_at = at[1]
        if is_here and ends is not Sure.NO:
            news = self.expected if ends is Sure.YES else self.possible
            news["returned", endpoint] += 1

    def failed(
        self, dial: Dial, at: Span, *, is_silent: bool, is_of_endpoint: Sure = Sure.YES
    ) -> None:
        """Note a failed dial, which other workers learn of if it ejects the endpoint."""
        endpoint = dial.endpoint
        if is_of_endpoint is Sure.NO:
            return
        if is_of_endpoint is Sure.EITHER:
            self.model.may_have_failed(endpoint, at, is_silent=is_silent)
            self.possible[ejected_as(is_silent=is_silent), endpoint] += 1
            return
        ejects = self.model.failed(endpoint, at, is_silent=is_silent)
        if ejects is not Sure.NO:
            news = self.expected if ejects is Sure.YES else self.possible
            news[ejected_as(is_silent=is_silent), endpoint] += 1

    def has_returned_since(self, endpoint: SocketAddress, began: Span) -> Sure:
        """Return whether an ejection has ended since a dial began, whose silence is over then."""
        returned = self.returned.get(endpoint)
        if returned is None or returned[1] <= began[0]:
            return Sure.NO
        return Sure.YES if returned[0] > began[1] else Sure.EITHER


def ejected_as(*, is_silent: bool) -> str:
    """Return how an ejection is reported: one that was silent costs each client seconds."""
    return "ejected as silent" if is_silent else "ejected"


def _strategy(serving: Serving) -> object:
    """Return what turns depend on: if it changes, they begin anew."""
    handling = serving.handling
    is_weighted = bool(serving.weights) or handling.slow_start_s > 0
    return handling.balance, handling.seed, handling.max_connections, is_weighted
