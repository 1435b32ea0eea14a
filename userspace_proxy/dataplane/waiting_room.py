"""Queues clients until an endpoint can take them: a bounded queue per Service port and worker.

    wait ─┬─▶ for an endpoint: none is usable, or all have failed ─┐
          │                                                        ├─its turn─▶ dialled ─▶ served
          ├─▶ for room at an endpoint: all are at their limit ─────┘             │
          └──────────────────────◀── no endpoint has taken it ───────────────────┘

    from each of the three ─▶ ended: its time is up, it has left, or there are too many and its
                              client has the most places (``waiting_clients``): its oldest ends

A pass gives waiting clients their turns, in order, as far as the allowance of dials reaches:

    what happens                                allowance                  pass
    endpoints may serve (``update``, ``retry``) 1 or more                  a new one, after an event
    a client is served, its endpoint answered   WINDOW                     another one afterwards
    a flow is served, perhaps                   1 or more, after an event
    a connection ends, some wait for room       1 more, up to WINDOW       another one afterwards
    a dialled client leaves                     1 more
    a second has passed                         RETRIES or more            a new one, if it is over

Rule 1: a client keeps its place, and its deadline, until an endpoint has answered it.
Rule 2: only a few dials are in progress at once, and each answer permits more. So thousands of
clients neither overload an endpoint that has just started, nor delay clients of other Services.
Rule 3: while endpoints fail, a few dials are made each second: they find a recovered endpoint
without a change of the cluster.
Rule 4: work for all clients is done in batches, one per iteration of the loop.
Rule 5: where all clients use the same endpoints, a client that finds them at their limit halts the
pass, and gets the next turn: the clients behind it would find no room either. Otherwise, a pass
after an event skips clients without an endpoint: perhaps only a later client can be served.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ..facts import CounterTable
from ..model import Hold
from ..model.connection_ends import EndReason
from ..policy.waiting_clients import WaitingClients
from .reactor import LoopTimer, Reactor
from .tuning import BATCH

# The maximum number of dials in progress. While 10,000 clients are served, iterations of the loop
# take up to 2 ms of CPU time (p99.9); with 16 dials they take 5 ms, and serving all clients is no
# faster.
WINDOW = 4
# The number of dials per second while endpoints fail: more than one, because a network policy may
# deny some clients.
RETRIES = 4
RETRY_S = 1.0
# The minimum time between two long passes. If clients use different endpoints, a pass checks all
# waiting clients for a client that can be served, which takes 1 ms per hundred clients: too slow to
# repeat whenever a connection ends.
PASS_S = 0.1


class Waiter(Protocol):
    """A waiting client."""

    @property
    def client_ip(self) -> str:
        """The client's IP address."""

    def resume(self) -> None:
        """Dial for the client, which then calls ``wait``, ``served`` or ``left``."""

    def end_wait(self, cause: EndReason) -> None:
        """Refuse the client, which then calls ``left``."""


class Waiting(NamedTuple):
    """The waiting clients at one moment."""

    clients: int = 0
    longest_s: float = 0.0
    """Seconds that the first client has waited; 0 without clients."""


class _Pass:
    """One pass over the waiting clients; it is over when all have had their turns."""

    __slots__ = ("began", "follows_event", "rest", "was_overtaken")

    def __init__(self, waiters: Iterable[Waiter], began: float, *, follows_event: bool) -> None:
        self.rest = deque(waiters)
        """Clients that haven't had their turn yet, in order."""
        self.began = began
        self.follows_event = follows_event
        """Whether an event, and not only the timer, suggests that endpoints may take clients."""
        self.was_overtaken = False
        """Whether another pass follows: a client was answered or a connection ended meanwhile."""


class WaitingRoom:
    """The waiting clients of one Service port in one worker.

    Args:
        processes: How many workers share the bound, including this worker.
        hold: How long clients may wait, and how many in all workers together; None if none may.
        is_uniform: Whether all clients use the same endpoints: if one client finds none, no other
            client does.
    """

    def __init__(
        self,
        reactor: Reactor,
        processes: int,
        table: CounterTable,
        hold: Hold | None,
        *,
        is_uniform: bool = True,
    ) -> None:
        self._reactor = reactor
        self._processes = processes
        self._table = table
        self._hold = hold
        self._is_uniform = is_uniform
        self._clients = WaitingClients[Waiter]()
        self.lacks_endpoints = False
        """Whether a client has found no usable endpoint since the room was last empty."""
        self._pass = _Pass((), -math.inf, follows_event=False)
        self._allowance = 0
        """How many dials may begin."""
        self._is_scheduled = False
        """Whether the pass continues in this iteration of the loop or the next."""
        self._next_pass = LoopTimer(reactor.loop, self._begin_next_pass)
        self._timer = LoopTimer(reactor.loop, self._tick)
        """Fires each second, and at the first deadline."""

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._clients

    @property
    def is_queueing(self) -> bool:
        """Whether new clients wait behind others, for endpoints at their limit."""
        return self._hold is not None and self._is_uniform and bool(self._clients.at_limit)

    def waiting(self, now: float) -> Waiting:
        since = self._clients.waits_since()
        return Waiting() if since is None else Waiting(len(self._clients), max(0.0, now - since))

    def wait(
        self, waiter: Waiter, since: float | None = None, *, is_at_limit: bool = False
    ) -> None:
        """Let a client wait: a new client, or a client whose dials have failed.

        Args:
            since: When a client that was ``served`` before began to wait, in monotonic seconds: it
                is put first. None for other clients.
            is_at_limit: Whether the client waits for an endpoint at its limit.
        """
        hold, clients = self._hold, self._clients
        assert hold is not None, "clients wait only where a Service holds them"
        if waiter not in clients:
            share = -(-hold.connections // self._processes)
            while len(clients) >= share:
                self._table.counters.waits.overflows += 1
                clients.to_end(waiter.client_ip).end_wait(EndReason.TOO_MANY_WAITING)
            if since is None:
                self._table.counters.waits.total += 1
                clients.add(waiter, self._reactor.now)
            else:
                clients.add(waiter, since, is_first=True)
            self._start_timer()
        clients.wait(waiter, is_at_limit=is_at_limit)
        if not is_at_limit:
            self.lacks_endpoints = True

    def served(self, waiter: Waiter, *, is_proven: bool = True) -> None:
        """Remove a client that has an endpoint, which has answered if ``is_proven``."""
        self._remove(waiter)
        if is_proven:
            self._allowance = WINDOW
            self._pass.was_overtaken = True
        elif self._pass.follows_event:
            self._allowance = max(self._allowance, 1)
        self._schedule()

    def left(self, waiter: Waiter) -> None:
        """Remove a client; if a dial for it was in progress, dial for the next client."""
        if waiter in self._clients.dialled:
            self._allowance += 1
        self._remove(waiter)
        self._schedule()

    def connection_ended(self) -> None:
        """Dial for the next client because an endpoint may be below its limit now."""
        if self._clients.at_limit:
            self._allowance = min(WINDOW, self._allowance + 1)
            if self._pass.rest:
                # Another pass must follow: the clients left in this pass may all have gone, while
                # others have begun to wait. From now on, this pass follows an event, because
                # more connections may have ended than the allowance (at most WINDOW) counts.
                self._pass.was_overtaken = self._pass.follows_event = True
            else:
                self._pass_again()
            self._schedule()

    def update(self, hold: Hold | None, *, is_uniform: bool = True) -> None:
        """Change the limits of waiting, and dial for all clients, because endpoints may serve now.

        Without a hold, clients that no endpoint takes end at once.
        """
        self._hold = hold
        self._is_uniform = is_uniform
        self.retry()

    def retry(self) -> None:
        """Dial for all clients in order, as long as endpoints answer."""
        self._allowance = max(self._allowance, 1)
        self._begin_pass(follows_event=True)

    def _remove(self, waiter: Waiter) -> None:
        self._clients.remove(waiter)
        if not self._clients:
            self._timer.stop()
            self._next_pass.stop()
            # Drop clients that have left: they would take memory until the next pass, which may be
            # far away.
            self._pass.rest.clear()
            self.lacks_endpoints = False

    def _pass_again(self) -> None:
        """Begin another pass: at once, or a moment after the last one if passes are long."""
        after_s = self._pass.began + PASS_S - self._reactor.now
        if self._is_uniform or len(self._clients) <= BATCH or after_s <= 0:
            self._begin_pass(follows_event=True)
        else:
            self._next_pass.start(after_s)

    def _begin_next_pass(self) -> None:
        self._reactor.tick()
        self._begin_pass(follows_event=True)

    def _begin_pass(self, *, follows_event: bool) -> None:
        self._pass = _Pass(self._clients, self._reactor.now, follows_event=follows_event)
        self._schedule()

    def _schedule(self) -> None:
        if self._clients and not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.run_soon(self._continue)

    def _continue(self) -> None:
        self._is_scheduled = False
        clients = self._clients
        for _ in range(WINDOW):
            if self._allowance < 1 or len(clients.dialled) >= WINDOW:
                return
            if not self._pass.rest:
                if self._pass.was_overtaken:
                    self._pass_again()
                return
            waiter = self._pass.rest.popleft()
            if waiter in clients and waiter not in clients.dialled:
                self._allowance -= 1
                clients.turn(waiter)
                waiter.resume()
                if not self._go_on(waiter):
                    return
        self._schedule()

    def _go_on(self, waiter: Waiter) -> bool:
        """Return whether the pass continues after a client's turn; restore an unused allowance."""
        clients = self._clients
        if waiter in clients.at_limit:
            self._allowance += 1
            if self._is_uniform:
                self._pass.rest.appendleft(waiter)
            return not self._is_uniform
        found_none = waiter in clients and waiter not in clients.dialled
        if found_none and self._pass.follows_event and not self._is_uniform:
            # The recovered endpoint may serve only later clients, so leave this client's dial to
            # them.
            self._allowance += 1
        return True

    def _start_timer(self) -> None:
        since, after_s = self._clients.waits_since(), 0.0
        if self._timer or since is None:
            return
        if self._hold is not None:
            after_s = since + self._hold.seconds - self._reactor.clock()
        self._timer.start(max(0.0, min(RETRY_S, after_s)))

    def _tick(self) -> None:
        self._reactor.tick()
        overdue: list[Waiter] = []
        if self._hold is not None:
            # End at most one batch of the clients whose time is up.
            overdue = self._clients.overdue(self._reactor.now - self._hold.seconds, BATCH)
        for waiter in overdue:
            self._table.counters.waits.timeouts += 1
            waiter.end_wait(EndReason.WAITED_TOO_LONG)
        self._allowance = max(self._allowance, RETRIES)
        clients, rest = self._clients, self._pass.rest
        while rest and (rest[0] not in clients or rest[0] in clients.dialled):
            # This client no longer needs a turn.
            rest.popleft()
        if not rest:
            self._begin_pass(follows_event=False)
        self._schedule()
        self._start_timer()
