"""Carries a plan out, and judges the steering by what clients see.

step of the product ─▶ each of its transactions: a frontend leads where it led, or will lead
                    ─▶ returned: where it should; raised: where it did
drift, failures ─────▶ two repairs later all is as it should be
another steering ────▶ what the last run left is removed first, or the start ends
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering.base import Target
from userspace_proxy.steering.leftovers import Leftovers, remove_leftovers

from ...judgements import Judgements
from ..conntrack_entries import Flow, Place
from ..nf_tables_batch import DELETE_RULE, DELETE_TABLE, NEW_RULE, Event
from ..nf_tables_packets import Kind
from ..nf_tables_seam import installed
from ..nf_tables_state import INET, Table
from . import plan as p
from .drifting import FOREIGN, OF_LOCAL, drift
from .local_runs import LocalRuns
from .node import OURS, Attempts, Died, Machine, tables_of
from .oracles import ORACLES, Oracles
from .pictures import difference
from .plan import Plan, Step
from .sizes import sizes
from .takers import TABLE, TAKERS
from .without_ipv6 import ipv4_of

Targets = dict[Frontend, Target]
# Each of those that fail takes a failure that is still to come.
_STARTS = 200
_OF_ALL_RUNS = (p.STEERING, p.RESTART, p.CLEAN_UP, p.LATER, p.FAULT, p.DIE, p.FORWARDING)
__all__ = ["ORACLES", "World"]
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_FORWARDING = {"IPv4": "ipv4/ip_forward", "IPv6": "ipv6/conf/all/forwarding"}
"""By a family, the sysctl without which the node forwards nothing to endpoints."""


class World:
    """One run of a plan."""

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        self.plan = plan
        self.trace: list[tuple[float, str]] = []
        self.began = 1000.0
        self._is_traced = is_traced
        self._texts: list[str] = []
        self.judgements = Judgements(self.note, self._texts)
        self.node = Machine(plan.node, plan.seed)
        self.oracles = Oracles(self.node, self.judgements)
        self.wanted = p.NFTABLES
        """The steering of the run that has begun, or begins."""
        self.local = LocalRuns(self.node, self.judgements, self._call_local)
        self._error: SteeringError | None = None
        """What the last step of the product raised."""
        self.applied: Targets = {}
        """What is in force, as far as the product has confirmed it."""
        self._is_applied = False
        """Whether this process has applied anything."""
        self._foreign: list[str] = []
        self._pending: list[Step] = []
        """Drifts, failures and deaths within the next step of the product."""
        self._calls = 0
        self._answers_lost = 0
        self._attempts = Attempts()
        self._has_failed = False
        """Whether the kernel has, within the last step."""
        self._may_be_anew: set[str] = set()
        self._changed_by_others = False

    def note(self, text: str) -> None:
        if self._is_traced:
            self.trace.append((self.node.kernel.now(), text))

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""
        node = self.node
        node.tables.changed, node.tables.refused = self._committed, self._refused
        node.kernel.between = self._between
        connected = self.local.connected
        with installed(node.kernel, node.sysctls, lambda: node.process, connected):
            self._foreign = node.foreign()
            self._begin()
            for step in self.plan.steps:
                self.note(f"{step}")
                self._step(step)
                if self.judgements.violations:
                    return self._texts
            self._end()
        return self._texts

    def _step(self, step: Step) -> None:
        is_of_all = step.kind in _OF_ALL_RUNS or step.name in FOREIGN
        if step.within and step.kind in (p.DRIFT, p.FAULT, p.DIE):
            if is_of_all or not self.local.is_on:
                self._pending.append(step)
            return
        if self.local.is_on and not is_of_all:
            self.local.step(step)
            return
        steps: dict[str, Callable[[Step], object]] = {
            p.DRIFT: self._drift,
            p.FAULT: self._fail,
            p.APPLY: lambda step: self._apply(dict(step.targets)),
            p.CHANGE: self._change_some,
            p.REPAIR: lambda _step: self._repair(),
            p.FORGET: lambda _step: self._forget(),
            p.COUNT: lambda _step: self._count(),
            p.CLIENT: self._client,
            p.RESTART: self._restart,
            p.CLEAN_UP: lambda _step: self._clean_up(),
            p.LATER: self._wait,
            p.LINK: self._put_link,
            p.UNLINK: self._remove_link,
            p.FORWARDING: self._switch_forwarding,
            p.TAKE: self._take,
            p.WITHOUT_IPV6: lambda _step: self._go_without_ipv6(),
            p.STEERING: self._change_steering,
        }
        steps[step.kind](step)

    def _wait(self, step: Step) -> None:
        self.node.now += step.seconds

    def _put_link(self, step: Step) -> None:
        link, node, known = step.link, self.node, self.oracles.links
        assert link is not None
        before, had = node.kernel.addresses, node.routes.links.get(link.number)
        if link == had:
            return
        if not node.routes.put(link):
            known.note_routes(link.number)
            return
        moved = before ^ node.kernel.addresses
        # A bridge's ports decide what it leads to.
        changed = {link.number, link.master, had.master if had else 0} - {0}
        if link.number == p.UPLINK:
            # Packets from any link may be translated to the best address; `redirect` needs no rule.
            is_other_best = p.NODE_ADDRESSES[0] in moved
            changed = set(node.routes.links) if is_other_best else {p.NO_LINK}
        known.note(changed, moved)

    def _remove_link(self, step: Step) -> None:
        if (had := self.node.routes.links.get(step.number)) is None:
            return
        ports = {n for n, one in self.node.routes.links.items() if one.master == had.number}
        self.node.routes.remove(step.number)
        self.oracles.links.note({had.number, *ports, *filter(None, (had.master,))})

    def _change_some(self, step: Step) -> None:
        if self._is_applied:
            self._change(dict(step.targets), step.gone)
            return
        kept = {f: t for f, t in self.applied.items() if f not in step.gone}
        self._apply({**kept, **dict(step.targets)})

    def _call(
        self,
        what: str,
        call: Callable[[], Coroutine[Any, Any, Any]],
        new: Targets | None = None,
    ) -> tuple[Any, bool]:
        """Run a step of the product; return its result, and whether it is without error.

        Args:
            new: The targets that it is to bring into force.
        """
        node, oracles = self.node, self.oracles
        self._attempts = Attempts(frozenset(self._may_be_anew))
        self._changed_by_others, self._calls = False, 0
        node.another.note_chains()
        oracles.begin(self.applied, self.applied if new is None else new)
        lost, was_sure = node.tables.answers_lost, oracles.is_sure
        events_lost = node.kernel.events_lost
        before = node.faults - node.injected
        of_tracking = node.tracking_faults - node.injected_tracking
        try:
            result, error = node.do(call())
        except Died:
            self.note(f"{what}: died")
            self._pending.clear()
            oracles.died(self._attempts)
            self._come_back()
            return None, False
        self._happen_late()
        self._error = error
        has_failed = node.faults - node.injected != before
        self.note(f"{what}: {error or result}")
        has_reason = has_failed or self._changed_by_others or bool(self._attempts.refused)
        has_reason = has_reason or not was_sure
        has_reason = has_reason or node.node.sends_in_parts
        if error is not None:
            self.judgements.check(
                "no failure without a reason", has_reason, f"{what} raised: {error}"
            )
        if error is not None:
            oracles.refused()
        if self._attempts.refused:
            oracles.lose_events()
        # After a second failure its undoing may be in force in part, or not at all.
        is_undone = not self._attempts.is_unknown and before - node.faults + node.injected < 2
        if error is not None and not is_undone:
            oracles.doubt("a refused undoing")
        oracles.has_lost_now = node.kernel.events_lost != events_lost
        if node.tables.answers_lost != lost:
            self._answers_lost = node.tables.answers_lost
            oracles.doubt("a lost answer")
        if self._changed_by_others:
            # Also of what was put right within this step.
            oracles.still_drifted()
            self._may_be_anew |= self._attempts.redefined
        oracles.has_failed = self._has_failed = has_failed
        now = node.tracking_faults - node.injected_tracking
        oracles.has_failed_tracking = now != of_tracking
        return result, error is None

    def _start(self) -> None:
        """Start the product, until it succeeds."""
        oracles = self.oracles
        for _ in range(8):
            recovered, is_done = self._call("start", self.node.steering.start)
            if is_done:
                oracles.recovered(recovered, self.applied)
                break
        self._is_applied = False

    def _apply(self, targets: Targets) -> None:
        before = self.applied
        was_first = not self._is_applied
        steering = self.node.steering
        _, is_done = self._call("apply", lambda: steering.apply(targets), targets)
        if self.node.steering is not steering:
            return
        if is_done:
            self.applied, self._is_applied = dict(targets), True
            if was_first:
                self.oracles.begin_counts()
            if was_first and not self._changed_by_others:
                self.oracles.settled()
        elif was_first:
            # The kernel path's table is in force already.
            self.oracles.doubt("a refused first apply")
        self._judge(before, is_forgotten=is_done)

    def _change(self, changed: Targets, gone: tuple[Frontend, ...]) -> None:
        before = self.applied
        new = {f: t for f, t in before.items() if f not in gone} | changed
        steering = self.node.steering
        _, is_done = self._call("change", lambda: steering.change(changed, gone), new)
        if self.node.steering is not steering:
            return
        if is_done:
            self.applied = new
        self._judge(before, is_forgotten=False)

    def _forget(self) -> None:
        if not self._is_applied:
            return
        steering = self.node.steering
        self._call("forget_stale", steering.forget_stale)
        if self.node.steering is steering:
            self._judge(self.applied, is_forgotten=True)

    def _repair(self) -> None:
        steering = self.node.steering
        oracles = self.oracles
        was_right = oracles.is_sure and not oracles.links.changed and not oracles.has_lost
        count, is_done = self._call("repair", steering.repair)
        if self.node.steering is not steering:
            return
        if not is_done:
            self.oracles.round_broken_off()
        if is_done and self._is_applied:
            was_disturbed = self._changed_by_others or self.oracles.has_failed
            if was_right and not was_disturbed:
                self.oracles.repaired_nothing(count)
            if not was_disturbed:
                self.oracles.settled()
                self._may_be_anew.clear()
            self.oracles.round_over()
            zeros = self.node.sysctls.zeros
            off = {family for family, setting in _FORWARDING.items() if setting in zeros}
            found = set(map(str, steering.no_kernel_path))
            self.judgements.check(
                "forwarding", found == off, f"no kernel path for {found}, not {off}"
            )
            if (INET, TABLE) not in self.node.tables.ruleset.tables:
                # Another program may have flushed all rules.
                oracles.taker = None
            if not was_disturbed:
                oracles.told(steering.unsteered, self.applied)
        self._judge(self.applied, is_forgotten=is_done and self._is_applied)

    def _count(self) -> None:
        steering = self.node.steering
        lacked = self.node.tables.lacked
        found, is_done = self._call("kernel_connections", steering.kernel_connections)
        is_counting = is_done and self._is_applied and not self.oracles.has_failed
        # A listing of counters is read once, and may lack some.
        is_counting = is_counting and lacked == self.node.tables.lacked
        if is_counting and self.node.steering is steering:
            self.oracles.counted(found, self.applied)
        if self.node.steering is not steering:
            return
        text, is_done = self._call("render", steering.render)
        if is_done and self.node.steering is steering and not self.oracles.has_failed:
            self.oracles.rendered(text, self.applied)

    def _judge(self, before: Targets, *, is_forgotten: bool) -> None:
        self.oracles.look(self.applied)
        self.oracles.look_at_flows(before, self.applied, is_forgotten=is_forgotten)

    def _client(self, step: Step) -> None:
        """Send a packet of a client; then its endpoint answers, or resets, or neither."""
        client = p.CLIENTS[step.client % len(p.CLIENTS)]
        frontend = p.FRONTENDS[step.number % len(p.FRONTENDS)]
        if (":" in frontend.ip) != (client.version == 6):
            return
        flow = Flow(
            _PROTOCOLS[frontend.protocol.value],
            Place(client.ip, step.port),
            Place(frontend.ip, frontend.port),
        )
        is_first = flow not in self.node.tables.conntrack.entries
        outcome, entry = self.node.packets.send(flow, is_local=client.is_local)
        self.note(f"client {client.ip}: {outcome.kind.value} {outcome.place}")
        if is_first:
            self.oracles.connected(client, frontend, self.applied, outcome)
        if entry is not None:
            if step.name == "answer" or outcome.kind is Kind.TO_PORT:
                entry.answer()
            elif step.name == "reset" and entry.flow.protocol == 6:
                entry.reset()
                self.oracles.was_reset(entry, self.applied)

    def _drift(self, step: Step) -> None:
        if step.name in FOREIGN:
            self._happen_beside(step)
            return
        if step.name in OF_LOCAL:
            # There is nothing of such a run.
            return
        before = self.oracles.picture()
        if drift(step.name, step.number, self.node.another, self.node.own_tables, self._others()):
            self._changed_by_others = True
            self.oracles.drifted(difference(before, self.oracles.picture(), step.name))

    def _happen_beside(self, step: Step) -> None:
        """Have another program change a table of its own."""
        node = self.node

        def happen() -> None:
            drift(step.name, step.number, node.another, node.own_tables, self._others())

        self._beside(step.name, happen)

    def _beside(self, name: str, happen: Callable[[], object]) -> None:
        """Have another program change what isn't the product's."""
        node, oracles = self.node, self.oracles
        # Cost: a picture takes as long as a repair, and is asked for only while ours aren't right.
        before = None if oracles.is_sure else oracles.picture()
        happen()
        self.note(f"foreign: {name}")
        if before is not None:
            oracles.beside(difference(before, oracles.picture(), name))
        if node.node.event_calls:
            # A transaction that isn't known yet may be one about the product's tables.
            oracles.lose_events()

    def _take(self, step: Step) -> None:
        """Have a chain of another program take packets first, for as long as a repair takes."""
        if not self._is_applied:
            return
        node, taker = self.node, TAKERS[step.number % len(TAKERS)]
        self._beside("taker", lambda: taker.add(node.another))
        self.oracles.taker = taker
        self._change_some(step)
        self._repair()
        if (table := node.tables.ruleset.tables.get((INET, TABLE))) is not None:
            self._beside("no taker", lambda: node.another.delete_table(table))
        self.oracles.taker = None
        self._repair()

    def _go_without_ipv6(self) -> None:
        """Have IPv6 switched off for as long as a repair takes."""
        if not self._is_applied or self._pending:
            return
        node, before = self.node, list(self.node.routes.links.values())
        for has_ipv6, links in ((False, map(ipv4_of, before)), (True, iter(before))):
            node.sysctls.has_ipv6 = has_ipv6
            for link in links:
                self._put_link(Step(p.LINK, link=link))
            self._repair()

    def _others(self) -> list[Table]:
        """Return the tables that other programs change."""
        tables = self.node.tables.ruleset.tables.values()
        return [one for one in tables if not one.name.startswith((OURS, TABLE))]

    def _restart(self, step: Step) -> None:
        """End the process, orderly or not, and start another one."""
        node = self.node
        if step.name == "close" and self.local.is_on:
            self.local.end()
        elif step.name == "close":
            self._call("close", node.steering.close)
            self.oracles.closed()
        if step.port:
            node.refuse_port = step.port
        self._come_back()

    def _come_back(self) -> None:
        self.node.die()
        self.oracles.restarted()
        self._begin()

    def _begin(self) -> None:
        """Begin a run of the steering that is wanted; one that can't start is started again."""
        node = self.node
        for _ in range(_STARTS):
            process = node.process
            is_done = not self.plan.takes_over or self._take_over()
            if node.process != process or self.judgements.violations:
                # It died, and the next one has begun.
                return
            if is_done:
                break
            node.die()
            self.oracles.restarted()
        else:
            raise AssertionError("no start succeeds")
        # Also where it isn't used: a step that is under way sees that another process runs.
        node.steering = node.new_steering()
        if self.wanted == p.LOCAL:
            self.local.begin()
        else:
            self._start()

    def _change_steering(self, step: Step) -> None:
        """End the process, orderly or not, and start one that uses the other steering."""
        # Whoever changes rules within this is another program, which the next run needn't know.
        self._pending = [one for one in self._pending if one.kind != p.DRIFT or one.name in FOREIGN]
        if step.name == "clean up":
            process = self.node.process
            self._clean_up()
            if process != self.node.process:
                return
        self.wanted = _other(self.wanted)
        self._restart(replace(step, name="close" if step.name == "clean up" else step.name))

    def _take_over(self) -> bool:
        """Have a new process remove what others left; return whether it can go on."""
        node, oracles, wanted = self.node, self.oracles, self.wanted
        process, was_local = node.process, self.local.is_on
        is_of_nftables = wanted == p.LOCAL and not was_local
        oracles.may_remove = True
        interrupted = node.routes.interrupted
        if was_local and wanted == p.NFTABLES:
            self.local.removing()
        name = node.node.proxy_name
        is_there = bool(self._left_by(_other(wanted)))

        def remove() -> Coroutine[Any, Any, Leftovers]:
            return remove_leftovers(wanted, name)

        if is_of_nftables:
            found, is_done = self._call("take over", remove, {})
        else:
            found, is_done = self._call_local("take over", remove)
        oracles.may_remove = False
        if node.process != process:
            return False
        if not is_done:
            self._look_at_ended_start(is_of_nftables=is_of_nftables)
            if was_local:
                self.local.died()
            return False
        if not self._look_at_found(found, interrupted, is_there=is_there):
            # An operator who reads that starts it again.
            return False
        if is_of_nftables:
            before, self.applied, self._is_applied = self.applied, {}, False
            oracles.cleaned_up()
            oracles.look_at_flows(before, {}, is_forgotten=True)
            oracles.forgotten()
            self.local.take_over()
        elif wanted == p.NFTABLES and was_local:
            left = self.local.left
            self.judgements.check("take-over", not left, f"{left} is left")
            self.local.gone()
            oracles.forgotten()
        return True

    def _look_at_ended_start(self, *, is_of_nftables: bool) -> None:
        """Judge a start that ended as something couldn't be removed."""
        name, text = _other(self.wanted), str(self._error)
        self.judgements.check(
            "take-over",
            text.startswith(f"cannot remove leftovers of steering {name}, "),
            f"a start ended with: {text}",
        )
        if is_of_nftables:
            self.oracles.doubt("a refused take-over")
            left = self.local.left
            self.judgements.check("take-over", not left, f"{left} is there before the start")

    def _left_by(self, steering: str) -> list[str]:
        """Return what a steering of the product has in the kernel."""
        if steering == p.LOCAL:
            return self.local.left
        return [one.name for one in self.node.own_tables if "/local" not in one.name]

    def _look_at_found(self, found: Leftovers, interrupted: int, *, is_there: bool) -> bool:
        """Judge what is said of others' leftovers; return whether all could be read."""
        is_read = not found.unseen
        wanted = (_other(self.wanted),) if is_there and is_read else ()
        self.judgements.check(
            "take-over", found.removed == wanted, f"said to be removed: {found.removed}"
        )
        self.judgements.check(
            "take-over",
            is_read or self._has_failed or self.node.routes.interrupted != interrupted,
            f"can't be read: {found.unseen}",
        )
        return is_read

    def _call_local(
        self, what: str, call: Callable[[], Coroutine[Any, Any, Any]]
    ) -> tuple[Any, bool]:
        """As :meth:`_call`, of a step that isn't one of nftables'."""
        node = self.node
        self._attempts, self._calls = Attempts(), 0
        before = node.faults - node.injected
        refused, interrupted = node.routes.refused, node.routes.interrupted
        try:
            result, error = node.do(call())
        except Died:
            self.note(f"{what}: died")
            self._pending.clear()
            if self.local.is_on:
                self.local.died()
            self._come_back()
            return None, False
        self._happen_late()
        self._error = error
        self._has_failed = node.faults - node.injected != before
        self.note(f"{what}: {error or result}")
        has_reason = self._has_failed or bool(self._attempts.refused)
        has_reason = has_reason or (refused, interrupted) != (
            node.routes.refused,
            node.routes.interrupted,
        )
        has_reason = has_reason or node.node.sends_in_parts
        if error is not None:
            self.judgements.check(
                "no failure without a reason", has_reason, f"{what} raised: {error}"
            )
        self.judgements.check(
            "nothing foreign is touched", node.foreign() == self._foreign, "others' routes"
        )
        return result, error is None

    def _clean_up(self) -> None:
        if self.local.is_on:
            process = self.node.process
            if not self.local.clean_up() and process == self.node.process:
                self._come_back()
            return
        steering = self.node.steering
        self.oracles.may_remove = True
        _, is_done = self._call("clean_up", steering.clean_up, {})
        self.oracles.may_remove = False
        if is_done:
            before, self.applied, self._is_applied = self.applied, {}, False
            if not self._changed_by_others:
                self.oracles.cleaned_up()
                self.oracles.look_at_flows(before, {}, is_forgotten=True)
            self.oracles.forgotten()
        elif self.node.steering is steering:
            self.oracles.doubt("a refused clean_up")
            self._come_back()

    def _switch_forwarding(self, step: Step) -> None:
        self.node.sysctls.zeros ^= {_FORWARDING[p.FORWARDED[step.number]]}

    def _begin_anew(self) -> None:
        """Have what is in force written by a steering that knows nothing of what was."""
        targets, before = self.applied, sizes(self.node.own_tables)
        self._clean_up()
        if not self.judgements.violations:
            self._apply(targets)
            self.oracles.begun_anew(before, sizes(self.node.own_tables))

    def _between(self) -> None:
        """Let happen within a system call of the product what is due."""
        self._calls += 1
        if self.plan.takes_over:
            self.local.look_between()
        for step in [one for one in self._pending if one.within <= self._calls]:
            self._pending.remove(step)
            self.note(f"meanwhile: {step.kind} {step.name}")
            self._happen(step)

    def _happen_late(self) -> None:
        """Let happen what was to happen within a step that had fewer system calls."""
        late, self._pending = self._pending, []
        for step in late:
            if step.kind != p.DIE:
                self._happen(step)

    def _happen(self, step: Step) -> None:
        if step.kind == p.DIE:
            if step.name == p.STEERING:
                self.wanted = _other(self.wanted)
            raise Died
        if step.kind == p.DRIFT:
            self._drift(step)
        else:
            self._fail(step)

    def _fail(self, step: Step) -> None:
        self.node.inject(step)
        if step.name == "lost events":
            self.oracles.lose_events()

    def _committed(self, port: int, events: list[Event]) -> None:
        if port != self.node.another.port and self.node.tables.answers_lost != self._answers_lost:
            # What follows puts right what the product can't know.
            self._answers_lost = self.node.tables.answers_lost
            self.oracles.doubt("a lost answer")
        if port == self.node.another.port:
            self._foreign = self.node.foreign()
            return
        tables = tables_of(events)
        self._attempts.note(tables, is_refused=False)
        self._attempts.deleted |= {e.table for e in events if e.kind == DELETE_TABLE}
        self._attempts.redefined |= {e.table for e in events if e.kind in (NEW_RULE, DELETE_RULE)}
        if self._is_traced:
            kinds = Counter(f"{event.kind & 0xFF}:{event.table}" for event in events)
            self.note(f"  transaction {dict(kinds)}")
        self.judgements.check(
            "nothing foreign is touched",
            self.node.foreign() == self._foreign and all(map(self.node.is_ours, tables)),
            lambda: f"a transaction about {sorted(tables)}",
        )
        self.judgements.right("no refusal without a reason")
        if not self.local.is_on:
            self.oracles.transaction(self._attempts, is_first=not self._is_applied)

    def _refused(self, port: int, tables: set[str], code: int) -> None:
        if port == self.node.another.port:
            return
        self.note(f"  refused {tables}")
        self._attempts.note(tables, is_refused=True)
        # Code 0: only because it was to fail.
        oracle, node = "no refusal without a reason", self.node.node
        if code and (node.lacks or node.sends_in_parts):
            self.judgements.excuse(oracle, "a part of the kernel is missing")
        elif code and (self._changed_by_others or not self.oracles.is_sure):
            self.judgements.excuse(oracle, "what is in force isn't known")
        else:
            why = f"a transaction about {sorted(tables)}: {os.strerror(code)}"
            self.judgements.check(oracle, not code, why)

    def _end(self) -> None:
        """Have nothing fail any more: two repairs later all is right; then nothing is left."""
        self.node.calm()
        self._pending.clear()
        if self.local.is_on:
            self.local.finish()
            if self.plan.seed % 2:
                self.local.clean_up()
                self.local.end()
                return
            self._change_steering(Step(p.STEERING, name="kill"))
        if not self._is_applied:
            self._apply(dict(self.applied))
        for _ in range(2):
            self.node.now += 1.0
            self._repair()
        if not self.judgements.violations:
            self.oracles.is_sure = True
            self._judge(self.applied, is_forgotten=True)
            # Once more, after which no port is guarded that isn't used.
            self._repair()
            self.oracles.look_at_all_guards()
        if "begun anew" in self.plan.features:
            self._begin_anew()
        self._clean_up()
        self._call("close", self.node.steering.close)
        self.oracles.closed()


def _other(steering: str) -> str:
    return p.NFTABLES if steering == p.LOCAL else p.LOCAL
