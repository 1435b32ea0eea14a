"""The promises of a steering, judged from outside: those to clients, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from userspace_proxy.model import Doubt, Frontend
from userspace_proxy.steering.base import Target

from ..conntrack_entries import Entry, Flow, Place
from ..nf_tables_packets import Kind
from . import expecting, sizes
from .clients import CLIENT_PORT, PROTOCOLS, ClientOracles
from .expecting import in_words
from .known import Targets
from .local_runs import ORACLES as ORACLES_OF_LOCAL_RUNS
from .node import Attempts
from .plan import CLIENTS, FIRST_ADDRESSES, FRONTENDS, NODE_ADDRESSES, PORTS, REFUSE_PORTS
from .without_ipv6 import has_effect

ORACLES = (
    "frontend leads to its target", "old target or new one", "stale flow ends",
    "right flow stays", "nothing foreign is touched", "recovered ports",
    "no failure without a reason", "no refusal without a reason", "repair finds nothing",
    "nothing is left", "sockets closed",
    "affinity", "masquerade", "counted connections", "guarded port", "impostor", "released port",
    "table stays", "shown as it is", "forwarding", "taken by another",
    "nothing of the past", "take-over", *ORACLES_OF_LOCAL_RUNS,
)  # fmt: skip


class Oracles(ClientOracles):
    """Judges one run."""

    def transaction(self, attempts: Attempts, *, is_first: bool) -> None:
        """Judge the moment after a transaction of the product."""
        self._look_at_deleted(attempts, is_first=is_first)
        if any("/paths" in table for table in attempts.deleted):
            self._pins.clear()
            self._pins_are_sure = True
        self._look_within_step()

    def look(self, applied: Targets) -> None:
        """Judge where all frontends lead, after a step of the product."""
        self._note_ports(applied)
        self._look_at_clients(applied)
        if self.is_sure and not (self.taker and self.taker.drops):
            self._look_at_one_guard()

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
            if is_gone and name in attempts.may_be_anew:
                self._judge.excuse("table stays", attempts.may_be_anew[name])
                continue
            if is_gone and (attempts.refused or self._doubtful or self.has_lost):
                why = "lost events" if self.has_lost else "a refusal before"
                self._judge.excuse("table stays", self._why_unsure if self._doubtful else why)
                continue
            self._judge.check("table stays", not is_gone, f"{name} was written anew")

    def look_at_all_guards(self) -> None:
        """Judge access to all proxy ports past the frontends."""
        for protocol, port in sorted(self.ports.ever_used):
            self._look_at_guard(protocol, port)

    def _look_at_one_guard(self) -> None:
        """Judge access to one proxy port past the frontends, in turn."""
        some = sorted(self.ports.ever_used) or [("TCP", PORTS[0])]
        self._look_at_guard(*some[self._turn % len(some)])

    def _look_at_guard(self, protocol: str, port: int) -> None:
        client = CLIENTS[0]
        flow = Flow(PROTOCOLS[protocol], Place(client.ip, CLIENT_PORT), Place("10.1.0.1", port))
        outcome = self._node.packets.verdict(flow)
        if self.ports.must_be_guarded((protocol, port)):
            self._judge.check(
                "guarded port",
                outcome.kind is Kind.REFUSED or expecting.leftover(outcome),
                lambda: f"{protocol} {port} is open: {outcome}",
            )
        elif self.ports.must_be_open((protocol, port)):
            self._judge.check(
                "released port",
                in_words(outcome) == expecting.UNTOUCHED,
                lambda: f"{protocol} {port} is still guarded: {outcome}",
            )

    def look_at_flows(self, before: Targets, applied: Targets, *, is_forgotten: bool) -> None:
        """Judge which entries are left, and which were deleted."""
        conntrack = self._node.tables.conntrack
        self._note_last(before, applied)
        if is_forgotten:
            self._left.clear()
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
        if is_forgotten:
            # Also where something has failed: it may have been something else.
            self._absent |= dict.fromkeys(set(FRONTENDS) - applied.keys(), self._last_entry())
        if not is_forgotten or self.has_failed_tracking:
            # Nothing is promised until entries were listed and removed without a failure.
            self._note_overdue(applied)
            return
        self._unended.clear()
        for entry in conntrack.entries.values():
            frontend = expecting.frontend_of(entry)
            if entry.number in self._late_resets:
                if entry.number not in self._excused:
                    self._excused.add(entry.number)
                    self._judge.excuse("stale flow ends", "it was reset after the change")
                continue
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
            must = must or (now is not None and self._was_lost(entry))
            must = must or (now is None and self._was_led(entry, self._tried))
            if must and (why := self._why_left(entry, now)):
                self._judge.excuse("stale flow ends", why)
                continue
            self._judge.check(
                "stale flow ends",
                not must,
                lambda e=entry, t=now: f"{e.flow} leads to {e.leads_to}, not to {t}",  # type: ignore[misc]
            )
        if self.is_sure:
            self._tried.clear()
            self._noted.clear()

    def _note_overdue(self, applied: Targets) -> None:
        """Note entries that lead elsewhere: they may be removed, whatever is steered then."""
        for entry in self._node.tables.conntrack.entries.values():
            frontend = expecting.frontend_of(entry)
            now, last = applied.get(frontend), self._last.get(frontend)
            if expecting.must_be_gone(entry, last, now, self._node.refuse_port):
                self._overdue.add(entry.number)

    def _why_left(self, entry: Entry, now: Target | None) -> str:
        """Return why an entry may stay that leads elsewhere; empty: it must be gone."""
        if now is None and entry.number in self._hidden:
            return "a drift hid where a failed step led"
        if self._is_earlier_reset(entry):
            return "a reset from before the frontend"
        # An unanswered SYN to an address of which the product doesn't know yet that it is lost, or
        # was while that SYN was sent.
        is_lost = self._leads_nowhere(entry) or entry.leads_to.ip in self.links.moved
        is_syn = entry.flow.protocol == 6 and is_lost
        return "links changed" if is_syn and self.links.changed else ""

    def _is_earlier_reset(self, entry: Entry) -> bool:
        """Return whether a connection was reset of which the product needn't know."""
        here = {*NODE_ADDRESSES, *FIRST_ADDRESSES, *self._node.kernel.addresses}
        is_of_proxy = entry.is_translated and entry.leads_to.ip in here
        was_absent = entry.number <= self._absent.get(expecting.frontend_of(entry), 0)
        is_earlier = is_of_proxy or was_absent or expecting.is_odd(entry)
        return entry.flow.protocol == 6 and entry.is_reset and is_earlier

    def _note_last(self, before: Targets, applied: Targets) -> None:
        """Note where frontends led that aren't steered any more."""
        for frontend in before.keys() - applied.keys():
            if self._has_forgotten:
                self._forgotten.add(frontend)
            else:
                was = before[frontend]
                is_left = frontend in self._left
                self._last[frontend] = expecting.port_alone(was) if is_left else was
                self._unended.add(frontend)
        for frontend in applied:
            self._last.pop(frontend, None)
        self._unended &= self._last.keys()
        self._has_forgotten = self._has_forgotten and not self.is_sure

    def _was_lost(self, entry: Entry) -> bool:
        """Return whether an entry must be gone, as the uplink has lost the address it leads to.

        An address of another link goes with the link, and so do the clients behind it.
        """
        is_open = expecting.is_answered(entry) or entry.is_reset
        is_of_uplink = entry.leads_to.ip in (*NODE_ADDRESSES, *FIRST_ADDRESSES)
        if is_open or not is_of_uplink or self.links.changed:
            return False
        return self._leads_nowhere(entry)

    def _leads_nowhere(self, entry: Entry) -> bool:
        """Return whether an entry leads to a port at an address that this node has no more."""
        ip, port = entry.leads_to
        is_of_proxy = port in (*PORTS, *REFUSE_PORTS)
        return is_of_proxy and ip not in self._node.kernel.addresses

    def was_reset(self, entry: Entry, applied: Targets) -> None:
        """Note that a connection was reset: it must end once its frontend leads elsewhere.

        Of one that leads elsewhere already nothing is promised: no change concerns it any more.
        """
        frontend = expecting.frontend_of(entry)
        target, port = applied.get(frontend), self._node.refuse_port
        is_right = target is not None and expecting.is_right(entry, target, port)
        if not is_right or self.is_in_doubt(frontend, applied):
            self._late_resets.add(entry.number)

    def _look_at_doubtful_flow(self, entry: Entry, applied: Targets) -> None:
        """Judge an entry of a frontend of which it isn't known where it leads."""
        frontend, port = expecting.frontend_of(entry), self._node.refuse_port
        last = self._last.get(frontend)
        some = {one.get(frontend): None for one in self.candidates(applied)}
        is_one_of_them = any(not expecting.must_be_gone(entry, last, one, port) for one in some)
        if not is_one_of_them and self._is_earlier_reset(entry):
            self._judge.excuse("stale flow ends", "a reset from before the frontend")
            return
        to = expecting.place_in_words(entry)
        self._judge.check(
            "stale flow ends",
            is_one_of_them or expecting.is_of_no_service(to),
            lambda: f"{entry.flow} leads to {entry.leads_to}, not to one of {list(some)}",
        )

    def _may_delete(self, entry: Entry, applied: Targets) -> bool:
        is_first = entry.leads_to.ip in FIRST_ADDRESSES
        if self._leads_nowhere(entry) or (is_first and self.links.changed):
            return True
        # The product may not know yet that an address is back.
        if entry.number in self._overdue or entry.leads_to.ip in self.links.moved:
            return True
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
                # The product may have noted it before a drift hid it.
                last += [target for target, _ in self._noted.get(frontend, ())]
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
            # The rule by which it is known may be missing.
            is_strange |= self._has_lost_structure and found in REFUSE_PORTS and 0 in wanted
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

    def told(self, unsteered: Mapping[Frontend, object], applied: Targets) -> None:
        """Judge which frontends are said to be taken by another program, or to have no effect."""
        for frontend in FRONTENDS:
            said = unsteered.get(frontend)
            found = None if said is None else not isinstance(said, Doubt)
            wanted = self.taker.takes(frontend, applied.get(frontend)) if self.taker else None
            if frontend in applied and not has_effect(
                frontend, has_ipv6=self._node.sysctls.has_ipv6
            ):
                wanted = True
            self._judge.check(
                "taken by another",
                found == wanted,
                lambda f=frontend, s=said: f"{f} by {self.taker}: {s}",  # type: ignore[misc]
            )

    def cleaned_up(self) -> None:
        """Judge what is left after clean_up()."""
        left = [one.name for one in self._node.own_tables if "/local" not in one.name]
        self._judge.check("nothing is left", not left, f"{left} is left")

    def begun_anew(self, before: Counter[str], now: Counter[str]) -> None:
        """Judge what a long run had in its tables, by what a new one has."""
        found = sizes.differing(before, now, has_unseen=bool(self.links.changed))
        self._judge.check("nothing of the past", not found, f"before and now: {found}")

    def closed(self) -> None:
        """Judge what is open after close()."""
        count = len(self._node.kernel.sockets)
        self._judge.check("sockets closed", count <= 1, f"{count} sockets are open")

    def refused(self) -> None:
        """Note that a step was undone: what it had removed was written anew."""
        self._note_lost_pins(self._new)
        gone = [one for one in self._old if one not in self._new]
        self._unsure_counts.update(gone)
        for frontend in gone:
            # What was undone has another counter.
            self._surely_counted.pop(frontend, None)

    def counted(self, found: Mapping[Frontend, int] | None, applied: Targets) -> None:
        """Judge what the kernel is said to have counted."""
        if found is None:
            self._judge.check(
                "counted connections",
                expecting.lacks_counters(self._node.node),
                "nothing was counted",
            )
            return
        for frontend in found.keys() | (self._reported.keys() & applied.keys()):
            count = found.get(frontend, 0)
            least = self._reported[frontend] + self._surely_counted.pop(frontend, 0)
            self._judge.check(
                "counted connections",
                count >= least,
                f"{frontend}: {count}, not at least {least}, after {self._reported[frontend]}",
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
            others = found.keys() - applied.keys()
            self._judge.check("counted connections", not others, f"{others} aren't steered")
            self._unsure_counts.clear()
            # Of others nothing is counted, wherever clients were led in doubt.
            for frontend in self._counts.keys() - applied.keys():
                del self._counts[frontend]

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

    def _note_ports(self, applied: Targets) -> None:
        for frontend in [one for one in self._counts if one not in applied]:
            # Its counter is gone, or was never to be: a step that is in doubt may have led to it.
            # One in which clients met it may have counted them for the next step that leads to it.
            if self.is_sure and frontend not in self._unsure_counts:
                del self._counts[frontend]
            else:
                self._unsure_counts.add(frontend)
            self._reported.pop(frontend, None)
            self._surely_counted.pop(frontend, None)
        used = {
            (frontend.protocol.value, expecting.port_of(target, 0) or 0)
            for frontend, target in applied.items()
        }
        is_known = self.is_sure and self._was_sure
        self.ports.use({one for one in used if one[1]}, is_known=is_known)
