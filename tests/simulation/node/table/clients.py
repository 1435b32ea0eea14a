"""The promises of a steering to clients: where they are led, by which way, and where they return.

Rule 1: after a step all are led to its targets; within it, where they were, or will be.
Rule 2: where a drift isn't put right yet, a client may be led nowhere, but never to another
Service.
"""

from __future__ import annotations

from collections import Counter

from userspace_proxy.model import Frontend, SocketAddress
from userspace_proxy.steering.base import KernelTarget, Target

from ..conntrack_entries import Flow, Place
from ..nf_tables_packets import Kind, Outcome
from . import expecting
from .expecting import in_words
from .known import Known, Pins, Targets
from .pictures import Picture, take
from .plan import CLIENTS, FRONTENDS, Client
from .without_ipv6 import has_effect

PROTOCOLS = {"TCP": 6, "UDP": 17}
CLIENT_PORT = 40_001


class ClientOracles(Known):
    """Judges where clients of one run are led."""

    def _look_within_step(self) -> None:
        """Judge where clients are led after a transaction: where they were, or will be."""
        for frontend, client in self._some_clients():
            if self._is_by_link(client):
                self._look_by_link("old target or new one", frontend, client)
                continue
            allowed = self._possible(frontend, client)
            found = in_words(self._verdict(frontend, client, 0))
            self._judge.check(
                "old target or new one",
                self._is_allowed(frontend, found, allowed),
                lambda f=frontend, c=client, n=found, a=allowed: f"{f} from {c.ip}: {n}, not {a}",  # type: ignore[misc]
            )

    def _is_allowed(self, frontend: Frontend, found: str, allowed: set[str]) -> bool:
        """Return whether clients of a frontend may be led to a place now.

        One that changes while a drift isn't put right, or whose change takes several transactions,
        may lead nowhere, or where only a drift leads. But never where another one leads.
        """
        is_in_parts = self._node.node.sends_in_parts
        is_changing = self._old.get(frontend) != self._new.get(frontend)
        # What one drift has changed may show once another one is put right.
        is_touched = frontend in self._moved or frontend in self._affected
        is_incomplete = is_touched or self._has_lost_structure
        is_incomplete = is_incomplete and not self.is_sure
        if is_incomplete or (is_in_parts and is_changing):
            return found in allowed or expecting.is_of_no_service(found)
        return found in allowed

    def _possible(self, frontend: Frontend, client: Client) -> set[str]:
        """Return where a client may be led within a step, or after one that is in doubt.

        A drift's own way is one of them, but a step must not lead to a third one.
        """
        return self._led.get((frontend, client), set()) | {
            place
            for targets in (self._old, self._new, *self._doubtful, *self._may_be, *self._since)
            for place in expecting.on_the_way(targets.get(frontend), client)
        }

    def _look_at_clients(self, applied: Targets) -> None:
        """Judge where clients of all frontends are led."""
        self._note_lost_pins(applied)
        if not self.is_sure:
            self._look_in_doubt(applied)
            return
        to_ports: list[tuple[Frontend, Client, int]] = []
        for frontend, client in self._some_clients():
            target = applied.get(frontend)
            if self._is_by_link(client):
                self._look_by_link("frontend leads to its target", frontend, client, applied)
                continue
            wanted = self._wanted(target, client)
            outcomes = [
                self._verdict(frontend, client, draw) for draw in expecting.draws(target, client)
            ]
            found = Counter(map(in_words, outcomes))
            if not self._is_pin_sure(client, target) and set(found) <= set(
                expecting.unpinned(target, client)
            ):
                # A pin that the kernel kept may decide.
                wanted = [found]
            self._judge.check(
                "frontend leads to its target",
                found in wanted,
                lambda f=frontend, c=client, n=found, w=wanted: (  # type: ignore[misc]
                    f"{f} from {c.ip}: {dict(n)}, not {' or '.join(str(dict(x)) for x in w)}"
                ),
            )
            for outcome in outcomes:
                self._look_at_source(frontend, client, outcome)
            if outcomes[0].kind in (Kind.TO_PORT, Kind.REFUSED) and frontend in applied:
                port = expecting.port_of(target, self._node.refuse_port) or 0
                to_ports.append((frontend, client, port))
        self._look_at_impostors(to_ports)

    def picture(self) -> Picture:
        """Return where all clients are led, and the elements that lead them."""
        return take(self._led_now, self._node.own_tables)

    def _led_now(self, frontend: Frontend, client: Client) -> list[str]:
        draws = expecting.draws(self._new.get(frontend), client)
        return [in_words(self._verdict(frontend, client, draw)) for draw in draws]

    def _look_in_doubt(self, applied: Targets) -> None:
        """Judge the frontends that are known to be right although others may not be."""
        for frontend, client in self._some_clients():
            if self._is_by_link(client):
                self._look_by_link("frontend leads to its target", frontend, client, applied)
                continue
            allowed = {*expecting.on_the_way(applied.get(frontend), client)}
            allowed |= self._possible(frontend, client)
            found = in_words(self._verdict(frontend, client, 0))
            self._judge.check(
                "frontend leads to its target",
                self._is_allowed(frontend, found, allowed),
                lambda f=frontend, c=client, n=found, a=allowed: f"{f} from {c.ip}: {n}, not {a}",  # type: ignore[misc]
            )

    def _look_by_link(
        self, oracle: str, frontend: Frontend, client: Client, applied: Targets | None = None
    ) -> None:
        """Judge a client behind a link whose change isn't known yet: no other Service gets it."""
        allowed = self._possible(frontend, client)
        if applied is not None:
            allowed |= {*expecting.on_the_way(applied.get(frontend), client)}
        found = in_words(self._verdict(frontend, client, 0))
        self._judge.check(
            oracle,
            found in allowed or expecting.is_of_no_service(found),
            lambda: f"{frontend} from {client.ip}, whose link has changed: {found}, not {allowed}",
        )

    def _look_at_source(self, frontend: Frontend, client: Client, outcome: Outcome) -> None:
        if outcome.kind is Kind.TO_PORT and outcome.place is not None:
            is_here = outcome.place.ip in self._node.kernel.addresses
            where = outcome.place
            self._judge.check(
                "frontend leads to its target", is_here, lambda: f"{frontend} leads to {where}"
            )
        if outcome.kind is not Kind.TO_ENDPOINT or outcome.place is None:
            return
        way_in = None if client.is_local else self._node.routes.link_to(client.ip)
        way_out = self._node.routes.link_to(outcome.place.ip)
        wanted = self.links.must_masquerade(way_in, way_out)
        if wanted is None:
            self._judge.excuse("masquerade", "links changed")
            return
        self._judge.check(
            "masquerade",
            outcome.is_masqueraded == wanted,
            lambda: f"{frontend} from {client.ip} to {outcome.place}: {outcome.is_masqueraded}",
        )

    def _look_at_impostors(self, to_ports: list[tuple[Frontend, Client, int]]) -> None:
        """Judge clients that are led to a port of this node, which another program has bound."""
        if "socket" in self._node.node.lacks:
            return
        self._node.has_impostor = True
        for frontend, client, port in to_ports:
            found = in_words(self._verdict(frontend, client, 0))
            self._judge.check(
                "impostor",
                f"port {port}" != found,
                lambda f=frontend, n=found: f"{f} leads to another program: {n}",  # type: ignore[misc]
            )
        self._node.has_impostor = False

    def connected(
        self, client: Client, frontend: Frontend, applied: Targets, outcome: Outcome
    ) -> None:
        """Judge where a new connection has gone; note its pin, and count it."""
        target = applied.get(frontend)
        has_pin = bool(self._pinned(client, target))
        oracle = "affinity" if has_pin else "frontend leads to its target"
        is_by_link = self._is_by_link(client)
        if is_by_link or self.is_in_doubt(frontend, applied):
            self._connected_in_doubt(client, frontend, applied, outcome)
            self._unsure_counts.add(frontend)
            self._pins_are_sure = False
            return
        found = in_words(outcome)
        wanted = {where for one in self._wanted(target, client) for where in one}
        if not self._is_pin_sure(client, target):
            wanted |= expecting.unpinned(target, client).keys()
        self._judge.check(
            oracle, found in wanted, lambda: f"{frontend} from {client.ip}: {found}, not {wanted}"
        )
        if outcome.kind is not Kind.TO_ENDPOINT or outcome.place is None:
            return
        self._counts[frontend] += 1
        self._surely_counted[frontend] += self.is_sure
        if isinstance(target, KernelTarget) and target.affinity is not None:
            until = self._node.kernel.now() + target.affinity.timeout_s
            place = client.ip, target.affinity.name
            self._pins.setdefault(place, {})[SocketAddress(*outcome.place)] = until
            self._lost_pins.get(place, {}).pop(SocketAddress(*outcome.place), None)

    def _connected_in_doubt(
        self, client: Client, frontend: Frontend, applied: Targets, outcome: Outcome
    ) -> None:
        oracle = "frontend leads to its target"
        # It may be counted, even if another program's rule drops it then.
        self._counts[frontend] += 1
        if self._is_by_link(client):
            self._judge.excuse(oracle, "links changed")
            return
        found = in_words(outcome)
        allowed = {*expecting.on_the_way(applied.get(frontend), client)}
        allowed |= self._possible(frontend, client)
        self._judge.check(
            oracle,
            self._is_allowed(frontend, found, allowed),
            lambda: f"{frontend} from {client.ip}: {found}, not {allowed}",
        )

    def _some_clients(self) -> list[tuple[Frontend, Client]]:
        """Return each frontend with one client, in turn, but what another program takes first.

        Nor those that no client can dial. With all clients once the product knows that a link leads
        to others.
        """
        self._turn += 1
        found = []
        for index, frontend in enumerate(FRONTENDS):
            version = 6 if ":" in frontend.ip else 4
            some = [one for one in CLIENTS if one.version == version]
            if not self.links.fresh:
                some = [some[(self._turn + index) % len(some)]]
            is_taken = self.taker is not None and self.taker.concerns(frontend)
            if has_effect(frontend, has_ipv6=self._node.sysctls.has_ipv6) and not is_taken:
                found += [(frontend, one) for one in some]
        return found

    def _verdict(self, frontend: Frontend, client: Client, draw: int) -> Outcome:
        flow = Flow(
            PROTOCOLS[frontend.protocol.value],
            Place(client.ip, CLIENT_PORT),
            Place(frontend.ip, frontend.port),
        )
        return self._node.packets.verdict(
            flow, is_local=client.is_local, draw=lambda most: draw % most
        )

    def _pinned(self, client: Client, target: Target | None) -> list[SocketAddress]:
        """Return the endpoints of a target that its client may return to.

        They are several if frontends of its Service have different endpoints.
        """
        if not isinstance(target, KernelTarget) or target.affinity is None:
            return []
        own = expecting.choice_of(target, client.ip)
        known = self._living(self._pins, client, target.affinity.name)
        return [one for one in known if one in own]

    def _living(self, pins: Pins, client: Client, name: str) -> list[SocketAddress]:
        """Return the endpoints of a client's pins whose time isn't over."""
        now = self._node.kernel.now()
        return [one for one, until in pins.get((client.ip, name), {}).items() if until > now]

    def _wanted(self, target: Target | None, client: Client) -> list[Counter[str]]:
        """Return where all draws of a client's new connections may lead, each way of them."""
        pinned = self._pinned(client, target)
        if not pinned:
            return [expecting.expected(target, client, None)]
        return [expecting.expected(target, client, one) for one in pinned]

    def _is_pin_sure(self, client: Client, target: Target | None) -> bool:
        if not isinstance(target, KernelTarget) or target.affinity is None:
            return True
        lost = self._living(self._lost_pins, client, target.affinity.name)
        own = expecting.choice_of(target, client.ip)
        return self._pins_are_sure and not any(one in own for one in lost)

    def _note_lost_pins(self, applied: Targets) -> None:
        """Note the clients whose endpoint no target of their Service has."""
        known = {
            (target.affinity.name, endpoint)
            for target in expecting.kernel_targets(applied)
            if target.affinity is not None
            for choice in target.choices
            for endpoint in choice.endpoints
        }
        for place, pins in self._pins.items():
            for endpoint in [one for one in pins if (place[1], one) not in known]:
                self._lost_pins.setdefault(place, {})[endpoint] = pins.pop(endpoint)

    def _is_by_link(self, client: Client) -> bool:
        """Return whether a client comes by a link that the product doesn't know yet."""
        if client.is_local or not self.links.changed:
            return False
        link = self._node.routes.link_to(client.ip)
        return link is not None and link.number in self.links.changed
