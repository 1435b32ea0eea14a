"""What must hold of clients that wait: a worker that runs serves them soon, or resets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model.serving import Serving

from .clients import DIALS, RESET, SERVED, WAITS, Client
from .holders import is_held_by_former, is_taken
from .plan import ENDPOINTS, MANY, WAIT_S

if TYPE_CHECKING:
    from .world import World

SOON = "clients are served soon"
GONE = "clients of what is removed are reset"


class Waits:
    """The oracle of one run that looks at clients that are neither served nor reset."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._runs: set[int] = set()
        """The workers of the last look that carry traffic."""

    def look(self) -> None:
        """Check that no client waits for a worker that is missing while another one runs."""
        world, now = self._world, self._world.timeline.now
        control = world.control
        if control is None or control.plane is None or control.failures:
            return
        runs = {slot.link.pid for slot in control.plane._workers if slot.link and slot.is_running}
        if runs != self._runs:
            self._runs = runs
            world.in_force.disturb(now)
        is_calm = now - world.in_force.disturbed_at >= WAIT_S
        least = 1 if world.plan.descriptors >= MANY else control.workers
        if len(runs) < least or not is_calm:
            return
        for client in world.clients:
            if client.is_looked_at:
                continue
            serving = world.in_force.at(client.to)
            if serving is None:
                self._check_gone(client)
            elif not serving.has_none and now - client.dialled_at >= WAIT_S:
                self._check_soon(client, serving)

    def _check_soon(self, client: Client, serving: Serving) -> None:
        """Check that a client doesn't wait for long at what is served."""
        world = self._world
        if client.state not in (DIALS, WAITS):
            client.is_looked_at = True
            world.judgements.right(SOON)
        elif reason := self._why(client, serving):
            client.is_looked_at = True
            world.judgements.excuse(SOON, reason)
        else:
            # Its dial of an endpoint that has left meanwhile goes on.
            tried = world.in_force.endpoints_since(client.to, client.dialled_at)
            most_s = WAIT_S + world.breaks.dials_s(tried, client)
            if world.timeline.now - client.dialled_at >= most_s:
                world.judgements.violate(
                    SOON, f"{client.name} {client.state} although a worker runs"
                )

    def _why(self, client: Client, serving: Serving) -> str:
        """Return why a client may wait for longer; empty if it may not."""
        world = self._world
        if world.breaks.all_were(serving, client):
            return "all endpoints broken"
        if is_held_by_former(world, client):
            return "a worker of an earlier control process holds it"
        # A worker that is behind may have taken it for the Service that had it.
        since = client.dialled_at - world.ejections.delay_s
        if world.in_force.has_moved(client.to, since) and is_taken(client):
            return "it stays with the Service that had the address"
        return ""

    def _check_gone(self, client: Client) -> None:
        """Check that a client doesn't wait for long at what is served no more."""
        world, judgements = self._world, self._world.judgements
        if client.state not in (DIALS, WAITS, SERVED, RESET):
            # Nothing becomes of it any more.
            client.is_looked_at = True
            return
        if client.state not in (WAITS, RESET):
            return
        dials_s = world.breaks.dials_s(ENDPOINTS, client)
        # It stays with its Service, which may hold it although it has left the address.
        since = client.dialled_at - world.ejections.delay_s
        names = world.in_force.names_since(client.to, since)
        hold_s = max(map(world.in_force.hold_s, names))
        held_until = client.dialled_at + WAIT_S + hold_s
        if client.state == RESET:
            client.is_looked_at = True
            judgements.right(GONE)
        elif world.timeline.now < max(held_until, world.in_force.disturbed_at + WAIT_S) + dials_s:
            # Its dials may be under way.
            return
        elif self._is_adopted_only(client):
            client.is_looked_at = True
            judgements.excuse(GONE, "its control process ends before it serves, and has its queue")
        else:
            why = f"{client.name} waits at {client.to}, which nothing serves any more"
            judgements.check(GONE, is_held_by_former(world, client), why)

    def _is_adopted_only(self, client: Client) -> bool:
        """Return whether a client is in a queue that a control process has only adopted."""
        control = self._world.control
        never_serves = control is not None and control.is_ending and not control.tried
        return never_serves and not is_taken(client)
