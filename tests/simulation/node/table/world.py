"""Carries a plan out, and judges the steering by what clients see.

step of the product ─▶ each of its transactions: a frontend leads where it led, or will lead
                    ─▶ returned: where it should; raised: where it did
drift, failures ─────▶ two repairs later all is as it should be
another steering ────▶ what the last run left is removed first, or the start ends
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...judgements import Judgements
from ..conntrack_entries import Flow, Place
from ..nf_tables_batch import DELETE_RULE, DELETE_TABLE, NEW_RULE, Event
from ..nf_tables_packets import Kind
from ..nf_tables_seam import installed
from . import plan as p
from .drifting import FOREIGN
from .local_runs import LocalRuns
from .nftables_runs import Action, Done, NftablesRuns
from .node import Attempts, Died, Machine, tables_of
from .node_changes import NodeChanges
from .oracles import ORACLES, Oracles
from .plan import Plan, Step
from .processes import Processes
from .sizes import sizes

_OF_ALL_RUNS = (p.STEERING, p.RESTART, p.CLEAN_UP, p.LATER, p.FAULT, p.DIE, p.FORWARDING)
__all__ = ["ORACLES", "World"]
_PROTOCOLS = {"TCP": 6, "UDP": 17}


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
        self.nftables = NftablesRuns(self.node, self.judgements, self.oracles, self._do)
        self.local = LocalRuns(self.node, self.judgements, self._call_local)
        self.changes = NodeChanges(self.node, self.oracles, self.nftables, self.note)
        self.processes = Processes(
            self.node,
            self.judgements,
            self.oracles,
            nftables=self.nftables,
            local=self.local,
            call_local=self._call_local,
            takes_over=plan.takes_over,
        )
        self._foreign: list[str] = []
        self._pending: list[Step] = []
        """Drifts, failures and deaths within the next step of the product."""
        self._calls = 0
        self._attempts = Attempts()

    def note(self, text: str) -> None:
        if self._is_traced:
            self.trace.append((self.node.kernel.now(), text))

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""
        node = self.node
        node.tables.changed, node.tables.refused = self._committed, self._refused
        node.kernel.between = self._between
        with installed(
            node.kernel, node.sysctls, lambda: node.process, lambda: self.local.connected
        ):
            self._foreign = node.foreign()
            self.processes.begin()
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
            p.DRIFT: self.changes.drift,
            p.FAULT: self._fail,
            p.CLIENT: self._client,
            p.RESTART: self.processes.restart,
            p.CLEAN_UP: lambda _step: self.processes.clean_up(),
            p.LATER: self._wait,
            p.LINK: self.changes.put_link,
            p.UNLINK: self.changes.remove_link,
            p.FORWARDING: self.changes.switch_forwarding,
            p.TAKE: self.changes.take,
            p.WITHOUT_IPV6: lambda _step: self._go_without_ipv6(),
            p.STEERING: self._change_steering,
        }
        steps.get(step.kind, self.nftables.step)(step)

    def _wait(self, step: Step) -> None:
        self.node.now += step.seconds

    def _go_without_ipv6(self) -> None:
        # What is to happen within the next step would happen without IPv6.
        if not self._pending:
            self.changes.go_without_ipv6()

    def _change_steering(self, step: Step) -> None:
        # What changes rules during this is another program; the next run need not know of it.
        self._pending = [one for one in self._pending if one.kind != p.DRIFT or one.name in FOREIGN]
        self.processes.change_steering(step)

    def _do(
        self, what: str, call: Action, attempts: Attempts, died: Callable[[], object]
    ) -> Done | None:
        """Run a step of the product to its end, and let happen what is due.

        Args:
            attempts: Takes note of its transactions.
            died: Is called if the process dies, before the next one begins.
        """
        node = self.node
        self._attempts, self._calls = attempts, 0
        before = node.failures
        try:
            result, error = node.do(call())
        except Died:
            self.note(f"{what}: died")
            self._pending.clear()
            died()
            self.processes.come_back()
            return None
        self._happen_late()
        self.note(f"{what}: {error or result}")
        return Done(result, error, node.failures - before)

    def _call_local(self, what: str, call: Action) -> tuple[Any, bool]:
        """As :meth:`NftablesRuns.call`, of a step that isn't one of nftables'."""
        node, attempts = self.node, Attempts()
        before = (node.routes.refused, node.routes.interrupted)
        done = self._do(what, call, attempts, self._note_death)
        if done is None:
            return None, False
        if done.error is not None:
            has_reason = bool(done.failures or attempts.refused or node.node.sends_in_parts)
            has_reason = has_reason or before != (node.routes.refused, node.routes.interrupted)
            self.judgements.check(
                "no failure without a reason", has_reason, f"{what} raised: {done.error}"
            )
        self.judgements.check(
            "nothing foreign is touched", node.foreign() == self._foreign, "others' routes"
        )
        return (done.result, True) if done.error is None else (done.error, False)

    def _note_death(self) -> None:
        if self.local.is_on:
            self.local.died()

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
            self.oracles.connected(client, frontend, self.nftables.applied, outcome)
        if entry is not None:
            if step.name == "answer" or outcome.kind is Kind.TO_PORT:
                entry.answer()
            elif step.name == "reset" and entry.flow.protocol == 6:
                entry.reset()
                self.oracles.was_reset(entry, self.nftables.applied)

    def _begin_anew(self) -> None:
        """Have what is in force written by a steering that knows nothing of what was."""
        targets, before = self.nftables.applied, sizes(self.node.own_tables)
        self.processes.clean_up()
        if not self.judgements.violations:
            self.nftables.apply(targets)
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
                self.processes.want_other()
            raise Died
        if step.kind == p.DRIFT:
            self.changes.drift(step)
        else:
            self._fail(step)

    def _fail(self, step: Step) -> None:
        self.node.inject(step)
        if step.name == "lost events":
            self.oracles.lose_events()

    def _committed(self, port: int, events: list[Event]) -> None:
        if port == self.node.another.port:
            self._foreign = self.node.foreign()
            return
        self.nftables.note_lost_answer()
        tables = tables_of(events)
        self._attempts.note(tables, is_refused=False)
        self._attempts.deleted |= {e.table for e in events if e.kind == DELETE_TABLE}
        redefined = {e.table for e in events if e.kind in (NEW_RULE, DELETE_RULE)}
        self._attempts.redefine(redefined, self.node.tables.queries_refused)
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
            self.oracles.transaction(self._attempts, is_first=not self.nftables.is_applied)

    def _refused(self, port: int, tables: set[str], code: int) -> None:
        if port == self.node.another.port:
            return
        self.note(f"  refused {tables}")
        self._attempts.note(tables, is_refused=True)
        # Code 0: only because it was to fail.
        oracle, node = "no refusal without a reason", self.node.node
        if code and (node.lacks or node.sends_in_parts):
            self.judgements.excuse(oracle, "a part of the kernel is missing")
        elif code and (self.nftables.changed_by_others or not self.oracles.is_sure):
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
            self.processes.change_steering(Step(p.STEERING, name="kill"))
        self.nftables.finish()
        if "begun anew" in self.plan.features:
            self._begin_anew()
        self.processes.clean_up()
        self.nftables.close()
