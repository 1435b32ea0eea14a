"""The promises of a steering, judged from outside: where clients are led, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from userspace_proxy.model import Frontend, SocketAddress
from userspace_proxy.steering.base import KernelTarget, Target

from ..conntrack_entries import Entry, Flow, Place
from ..nf_tables_packets import Kind, Outcome
from . import expecting
from .expecting import in_words
from .known import UNKNOWN, Known, Targets
from .node import Attempts
from .pictures import Picture, take
from .plan import CLIENTS, FRONTENDS, PORTS, Client

ORACLES = (
    "frontend leads to its target", "old target or new one", "stale flow ends",
    "right flow stays", "nothing foreign is touched", "recovered ports",
    "no failure without a reason", "repair finds nothing", "nothing is left", "sockets closed",
    "affinity", "masquerade", "counted connections", "guarded port", "impostor", "released port",
    "table stays", "shown as it is", "forwarding",
)  # fmt: skip
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_CLIENT_PORT = 40_001
# A released port stays guarded until the second repair.
_GUARDED_ROUNDS = 2


class Oracles(Known):
    """Judges one run."""

    def transaction(self, attempts: Attempts, *, is_first: bool) -> None:
        """Judge the moment after a transaction of the product."""
        self._look_at_deleted(attempts, is_first=is_first)
        if any("/paths" in table for table in attempts.deleted):
            self._pins.clear()
            self._pins_are_sure = True
        for frontend, client in self._some_clients():
            if self._is_by_link(client):
                self._judge.excuse("old target or new one", "links changed")
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
        is_in_parts = self._node.node.send_buffer_bytes < 100_000
        is_changing = self._old.get(frontend) != self._new.get(frontend)
        is_incomplete = frontend in self._moved or self._has_lost_structure
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

    def picture(self) -> Picture:
        """Return where all clients are led, and the elements that lead them."""
        return take(self._led_now, self._node.own_tables)

    def _led_now(self, frontend: Frontend, client: Client) -> list[str]:
        draws = expecting.draws(self._new.get(frontend), client)
        return [in_words(self._verdict(frontend, client, draw)) for draw in draws]

    def _look_at_deleted(self, attempts: Attempts, *, is_first: bool) -> None:
        """Judge whether a table that is right was written anew, which ends what rules know."""
        if is_first or self.may_remove or self._has_lost_structure:
            # To be written.
            return
        # The kernel path's table begins with its first frontend.
        had_paths = bool(expecting.kernel_targets(self._old))
        names = {one.name for one in self._node.own_tables} | attempts.deleted
        for name in names:
            if "/paths" in name and not had_paths:
                continue
            is_gone = name in attempts.deleted
            if is_gone and (attempts.refused or self._doubtful or self.has_lost):
                why = "lost events" if self.has_lost else "a refusal before"
                self._judge.excuse("table stays", self._why_unsure if self._doubtful else why)
                continue
            self._judge.check("table stays", not is_gone, f"{name} was written anew")

    # What must hold.

    def look(self, applied: Targets) -> None:
        """Judge where all frontends lead, after a step of the product."""
        self._note_ports(applied)
        self._note_lost_pins(applied)
        if not self.is_sure:
            self._look_in_doubt(applied)
            return
        to_ports: list[tuple[Frontend, Client, int]] = []
        for frontend, client in self._some_clients():
            target = applied.get(frontend)
            if self._is_by_link(client):
                self._judge.excuse("frontend leads to its target", "links changed")
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
        self._look_at_guard(applied)

    def _look_in_doubt(self, applied: Targets) -> None:
        """Judge the frontends that are known to be right although others may not be."""
        for frontend, client in self._some_clients():
            if self._is_by_link(client):
                self._judge.excuse("frontend leads to its target", "links changed")
                continue
            allowed = {*expecting.on_the_way(applied.get(frontend), client)}
            allowed |= self._possible(frontend, client)
            found = in_words(self._verdict(frontend, client, 0))
            self._judge.check(
                "frontend leads to its target",
                self._is_allowed(frontend, found, allowed),
                lambda f=frontend, c=client, n=found, a=allowed: f"{f} from {c.ip}: {n}, not {a}",  # type: ignore[misc]
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
        if any(one is not None and one.number in self.changed_links for one in (way_in, way_out)):
            self._judge.excuse("masquerade", "links changed")
            return
        self._judge.check(
            "masquerade",
            outcome.is_masqueraded == expecting.must_masquerade(way_in, way_out),
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

    def _look_at_guard(self, applied: Targets) -> None:
        """Judge access to proxy ports past the frontends."""
        used = self._used(applied)
        protocol, port = (
            sorted(self._ever_used)[self._turn % max(len(self._ever_used), 1)]
            if (self._ever_used)
            else ("TCP", PORTS[0])
        )
        client = CLIENTS[0]
        flow = Flow(_PROTOCOLS[protocol], Place(client.ip, _CLIENT_PORT), Place("10.1.0.1", port))
        outcome = self._node.packets.verdict(flow)
        is_recent = 0 <= self._released.get((protocol, port), -1) < _GUARDED_ROUNDS
        if (protocol, port) in used or is_recent:
            self._judge.check(
                "guarded port",
                outcome.kind is Kind.REFUSED or expecting.leftover(outcome),
                lambda: f"{protocol} {port} is open: {outcome}",
            )
        elif self._released.get((protocol, port), 0) > _GUARDED_ROUNDS:
            self._judge.check(
                "released port",
                in_words(outcome) == expecting.UNTOUCHED,
                lambda: f"{protocol} {port} is still guarded: {outcome}",
            )

    def look_at_flows(self, before: Targets, applied: Targets, *, is_forgotten: bool) -> None:
        """Judge which entries are left, and which were deleted."""
        conntrack = self._node.tables.conntrack
        for frontend in before.keys() - applied.keys():
            if self._has_forgotten:
                self._forgotten.add(frontend)
            else:
                self._last[frontend] = before[frontend]
                self._unended.add(frontend)
            self._absent[frontend] = max((e.number for e in conntrack.entries.values()), default=0)
        for frontend in applied:
            self._last.pop(frontend, None)
        self._unended &= self._last.keys()
        self._has_forgotten = self._has_forgotten and not self.is_sure
        for entry in conntrack.deleted:
            if not self._was_sure and not self._may_delete(entry, applied):
                self._judge.excuse("right flow stays", self._why_unsure)
                continue
            self._judge.check(
                "right flow stays",
                self._may_delete(entry, applied),
                lambda e=entry: f"{e.flow} to {e.leads_to} was deleted",  # type: ignore[misc]
            )
        conntrack.deleted.clear()
        if not is_forgotten or self.has_failed_tracking:
            # Nothing is promised until entries were listed and removed without a failure.
            return
        self._unended.clear()
        for entry in conntrack.entries.values():
            frontend = expecting.frontend_of(entry)
            is_in_doubt = self.is_in_doubt(frontend, applied) and (
                frontend in self._moved
                or frontend not in self._affected
                or entry.number > self._last_before
            )
            if is_in_doubt:
                self._look_at_doubtful_flow(entry, applied)
                continue
            now, last = applied.get(frontend), self._last.get(frontend)
            must = expecting.must_be_gone(entry, last, now, self._node.refuse_port)
            is_of_proxy = entry.is_translated and entry.leads_to.ip in self._node.kernel.addresses
            was_absent = entry.number <= self._absent.get(frontend, 0)
            is_excused = is_of_proxy or expecting.is_odd(entry) or was_absent
            if must and entry.flow.protocol == 6 and is_excused:
                self._judge.excuse("stale flow ends", "a SYN from before the frontend")
                continue
            self._judge.check(
                "stale flow ends",
                not must,
                lambda e=entry, t=now: f"{e.flow} leads to {e.leads_to}, not to {t}",  # type: ignore[misc]
            )

    def _look_at_doubtful_flow(self, entry: Entry, applied: Targets) -> None:
        """Judge an entry of a frontend of which it isn't known where it leads."""
        frontend, port = expecting.frontend_of(entry), self._node.refuse_port
        last = self._last.get(frontend)
        some = {one.get(frontend): None for one in self.candidates(applied)}
        is_one_of_them = any(not expecting.must_be_gone(entry, last, one, port) for one in some)
        to = expecting.place_in_words(entry)
        self._judge.check(
            "stale flow ends",
            is_one_of_them or expecting.is_of_no_service(to),
            lambda: f"{entry.flow} leads to {entry.leads_to}, not to one of {list(some)}",
        )

    def _may_delete(self, entry: Entry, applied: Targets) -> bool:
        frontend = expecting.frontend_of(entry)
        port = self._node.refuse_port
        some = [applied, self._old, self._new, *self._may_be, *self._was]
        for targets in some:
            now = targets.get(frontend)
            if now is not None:
                if not expecting.is_right(entry, now, port):
                    return True
            elif frontend in self._forgotten:
                return True
            elif entry.flow.protocol == 17:
                last = [one[frontend] for one in some if frontend in one]
                last += [self._last[frontend]] if frontend in self._last else []
                if any(expecting.led_there(entry, one, port) for one in last):
                    return True
        return False

    def recovered(self, ports: Mapping[Frontend, int], applied: Targets) -> None:
        """Judge what a new process finds in force."""
        some = [
            expecting.ports_of(one)
            for one in (applied, *self._may_be, *self._was, *self._doubtful, *self._since)
        ]
        for frontend in FRONTENDS:
            wanted = [one.get(frontend) for one in some]
            found = ports.get(frontend)
            is_drifted = frontend in self._affected | self._moved
            is_strange = is_drifted and expecting.is_of_no_service(f"port {found}")
            self._judge.check(
                "recovered ports",
                found in wanted or is_strange,
                lambda f=frontend, w=wanted: f"{f}: {ports.get(f)}, not {w}",  # type: ignore[misc]
            )

    def repaired_nothing(self, count: int) -> None:
        """Judge a repair before which nothing had changed."""
        self._judge.check(
            "repair finds nothing", count == 0, f"a repair has found {count} differences"
        )

    def cleaned_up(self) -> None:
        """Judge what is left after clean_up()."""
        left = [table.name for table in self._node.own_tables]
        self._judge.check("nothing is left", not left, f"{left} is left")

    def closed(self) -> None:
        """Judge what is open after close()."""
        count = len(self._node.kernel.sockets)
        self._judge.check("sockets closed", count <= 1, f"{count} sockets are open")

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
        if isinstance(target, KernelTarget) and target.affinity is not None:
            until = self._node.kernel.now() + target.affinity.timeout_s
            place = client.ip, target.affinity.name
            self._pins.setdefault(place, {})[SocketAddress(*outcome.place)] = until
            self._lost_pins.discard(place)

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

    def refused(self) -> None:
        """Note that a step was undone: what it had removed was written anew."""
        self._note_lost_pins(self._new)
        self._unsure_counts |= {one for one in self._old if one not in self._new}

    def counted(self, found: Mapping[Frontend, int] | None, applied: Targets) -> None:
        """Judge what the kernel is said to have counted."""
        if found is None:
            self._judge.check(
                "counted connections",
                expecting.lacks_counters(self._node.node),
                "nothing was counted",
            )
            return
        for frontend, count in found.items():
            self._judge.check(
                "counted connections",
                count >= self._reported[frontend],
                f"{frontend}: {count} after {self._reported[frontend]}",
            )
            self._reported[frontend] = count
        for frontend in applied:
            count = found.get(frontend, 0)
            if frontend in self._unsure_counts:
                # Those since the last reading may be lost, but none is counted twice.
                self._judge.check(
                    "counted connections",
                    count <= self._counts[frontend],
                    f"{frontend}: {count}, not at most {self._counts[frontend]}",
                )
                self._counts[frontend] = count
                continue
            self._judge.check(
                "counted connections",
                count == self._counts[frontend],
                f"{frontend}: {count}, not {self._counts[frontend]}",
            )
        if self.is_sure:
            self._unsure_counts.clear()

    def rendered(self, text: str, applied: Targets) -> None:
        """Judge what is shown of what is in force."""
        found = set(text.splitlines())
        for frontend in FRONTENDS:
            shown = {line for line in found if line.startswith(expecting.head_of(frontend))}
            if self._has_lost_look_ups or self.is_in_doubt(frontend, applied):
                self._look_at_lines(frontend, shown, applied)
                continue
            wanted = {
                line
                for target in [applied.get(frontend)]
                if target is not None
                for line in expecting.lines_of({frontend: target})
            }
            self._judge.check("shown as it is", shown == wanted, f"{shown ^ wanted}")

    def _look_at_lines(self, frontend: Frontend, shown: set[str], applied: Targets) -> None:
        """Judge what is shown of a frontend of which it isn't known where it leads."""
        some = [one.get(frontend) for one in self.candidates(applied)]
        is_drifted = self._has_lost_structure or frontend in self._affected | self._moved
        is_right = is_drifted or None in some
        if shown:
            line = expecting.read_line(next(iter(shown)))
            targets = [one for one in some if one is not None]
            is_right = len(shown) == 1 and expecting.may_be_shown(line, targets, drifted=is_drifted)
        self._judge.check("shown as it is", is_right, lambda: f"{shown}, not one of {some}")

    # Details.

    def _note_ports(self, applied: Targets) -> None:
        for frontend in [one for one in self._counts if one not in applied]:
            # Its counter is gone.
            del self._counts[frontend]
            self._reported.pop(frontend, None)
        used = self._used(applied)
        is_known = self.is_sure and self._was_sure
        for port in self._ever_used - used:
            self._released.setdefault(port, 0 if is_known else UNKNOWN)
        for port in used:
            self._released.pop(port, None)
        self._ever_used |= used

    def _used(self, applied: Targets) -> set[tuple[str, int]]:
        found = {
            (frontend.protocol.value, expecting.port_of(target, 0) or 0)
            for frontend, target in applied.items()
        }
        return {one for one in found if one[1]}

    def _some_clients(self) -> list[tuple[Frontend, Client]]:
        """Return each frontend with one client, in turn."""
        self._turn += 1
        found = []
        for index, frontend in enumerate(FRONTENDS):
            version = 6 if ":" in frontend.ip else 4
            some = [one for one in CLIENTS if one.version == version]
            found.append((frontend, some[(self._turn + index) % len(some)]))
        return found

    def _verdict(self, frontend: Frontend, client: Client, draw: int) -> Outcome:
        flow = Flow(
            _PROTOCOLS[frontend.protocol.value],
            Place(client.ip, _CLIENT_PORT),
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
        pins, now = self._pins.get((client.ip, target.affinity.name), {}), self._node.kernel.now()
        own = expecting.choice_of(target, client.ip)
        return [one for one, until in pins.items() if until > now and one in own]

    def _wanted(self, target: Target | None, client: Client) -> list[Counter[str]]:
        """Return where all draws of a client's new connections may lead, each way of them."""
        pinned = self._pinned(client, target)
        if not pinned:
            return [expecting.expected(target, client, None)]
        return [expecting.expected(target, client, one) for one in pinned]

    def _is_pin_sure(self, client: Client, target: Target | None) -> bool:
        if isinstance(target, KernelTarget) and target.affinity is not None:
            return self._pins_are_sure and (client.ip, target.affinity.name) not in self._lost_pins
        return True

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
                del pins[endpoint]
                self._lost_pins.add(place)

    def _is_by_link(self, client: Client) -> bool:
        """Return whether a client comes by a link that the product doesn't know yet."""
        if client.is_local or not self.changed_links:
            return False
        link = self._node.routes.link_to(client.ip)
        return link is not None and link.number in self.changed_links
