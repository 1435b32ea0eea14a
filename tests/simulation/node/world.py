"""One run of a plan: a cluster, one agent after another with their workers, and clients."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources import Source

from ..machine.files import CONTROL, WORKER
from ..machine.machine import Process, Speed
from ..machine.nf_tables_packets import Kind
from ..machine.process_world import ProcessWorld
from ..network import Address
from ..plan import Event
from . import plan as plans
from .agents import AgentRun
from .api_of_node import Api
from .claims import Dialled
from .clients import DIALS, WAITS, Client, Endpoint
from .cluster import Cluster, Freshness
from .disk import Disk
from .expecting import Expecting
from .families import like
from .invariants import ORACLES, Invariants
from .invariants.nothing_held import held_by
from .kernel_of_node import NodeKernel
from .lacks import Lacks
from .machine import DROPPED, QUEUE, REFUSED, AgentMachine, AgentProcess, Verdict
from .plan import NODE, OTHER_PODS, OWN_PODS, STATE, Plan, Settings
from .seam import installed

__all__ = ["ORACLES", "World"]
BOUND_S = 2.0
"""The time after which an undisturbed change of the cluster is applied, with waits for turns."""
# The time until an agent starts, also after an agent's death.
_START_S = 0.05
_SETTLED_S = 12.0
_SERVED_S = 3.0
_ENDED_S = 8.0
_AGAIN_S = 0.8
# The time within which refused rules are retried, and the time to repair changed rules.
_RETRIED_S, _REPAIRED_S = 1.5, 2.5
# The time until a failed endpoint is retried.
_TRIED_AGAIN_S = 3.0
# The time until a dead worker is replaced, even if it is the third in succession.
_REPLACED_S = 2.0
# Unix time at the start of a run.
_UNIX = 1_800_000_000.0
_TARGETS = (8080, 8081, 5353)
_FAULTS = {
    plans.DRIFT,
    plans.BREAK,
    plans.NO_START,
    plans.KERNEL,
    plans.INTERCEPT,
    plans.CRASH,
    plans.END,
    plans.STOP,
    plans.REFUSE,
    plans.REFUSE_FOR,
    plans.SLOW,
    plans.DISK,
    plans.API,
    plans.SHORT,
    plans.TAKE,
    plans.RANGE,
}
"""Events that don't happen while the run is calm."""


class World(ProcessWorld[AgentMachine]):
    """The state of one run; :meth:`run` returns the violations.

    Args:
        is_traced: Whether to record each step.
    """

    LOG_LEVEL = logging.WARNING
    MAX_EVENTS = 300_000

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        super().__init__(plan.seed, AgentMachine, plan.speed, is_traced=is_traced)
        self.plan = plan
        self.unix_offset = _UNIX - self.began
        self.cluster = Cluster(self.timeline.clock, plan.addresses, plan.settings)
        self.cluster.put(*plan.objects)
        self.api = Api(self.timeline, self.rng, plan.objects, lambda: self.cluster.objects)
        self.cluster.watchers.append(self.api.changed)
        self.api.disturbed = self._on_restore
        bound_s = BOUND_S + 2 * plan.settings.min_period_s
        self.freshness = Freshness(self.timeline.clock, bound_s + plan.turns_s, bound_s)
        self.kernel = NodeKernel(self.machine, plan.seed, plan.addresses)
        self.disk = Disk(self.rng, self.timeline.clock, self.unix, self._enter)
        self.disk.floor = self.freshness.floor
        self.agents: list[AgentRun] = []
        self.clients: list[Client] = []
        self.waiting: list[Client] = []
        """Clients that haven't been answered."""
        self.refusals = 0
        """The number of transactions that the kernel has refused."""
        self.lacks = Lacks(self)
        self.expecting = Expecting(self)
        self.moved: Callable[[], None] = lambda: None
        """Called after a change of the node's addresses; set by their watcher."""
        self.kernel.refused = self._on_refusal
        self.machine.steer = self._steer
        self.machine.answered = self.kernel.answered
        self.machine.dying = self._on_death
        self.machine.queue = plan.queue
        self.invariants = Invariants(self)
        answering = {(ip, port) for ip in (*OWN_PODS, *OTHER_PODS) for port in _TARGETS}
        # Endpoints that mustn't be dialled are included: if one is dialled, it serves the client,
        # which reveals the dial.
        every = sorted(answering | plan.endpoints, key=str)
        self.endpoints = {at: Endpoint(self, at) for at in every}
        self.machine.hosts.update(self.endpoints)

    def _enter(self, call: str) -> None:
        """Begin a call of the current process."""
        self.machine.kernel.enter(call)

    @property
    def agent(self) -> AgentRun | None:
        """The running agent; None if none runs."""
        last = self.agents[-1] if self.agents else None
        return None if last is None or last.process.is_dead else last

    def unix(self) -> float:
        """Return Unix time by the node's clock, which may be wrong."""
        return self.timeline.now + self.unix_offset

    def run(self) -> list[str]:
        """Run the plan; return the violations in order."""
        plan = self.plan
        self.held_by_new = (
            _held_by_new(plan, plan.settings.path, plan.workers),
            _held_by_new(plan, plan.later_path, plan.later_workers),
        )
        try:
            return super().run()
        finally:
            self.kernel.forget()

    def take_line(self, record: logging.LogRecord) -> None:
        """Record a log line of the product; a line that reports a bug is a violation."""
        text = record.getMessage()
        if self.is_over:
            return
        is_bug = any(words in text for words in ("bug", "failed to apply", "malformed message"))
        if record.exc_info or is_bug:
            exc = record.exc_info[1] if record.exc_info else None
            self.violate(f"logged: {text} {exc!r}")
        else:
            self.note(f"logged: {text}")

    def installed(self) -> AbstractContextManager[None]:
        return installed(self)

    def carry_out(self) -> None:
        self.lacks.crowd()
        self._start_agent()
        for event in self.plan.events:
            self.timeline.at(self.began + event.at, self._happen, event)
        self.run_for(self.plan.calm_at)
        self._be_calm()
        self.run_for(_SETTLED_S)
        self.invariants.check_rest()
        if any(event.what == plans.BREAK for event in self.plan.events):
            # Only clients' dials end an ejection; the first of these clients may fail.
            self.freshness.disturb(self.timeline.now + 2 * _AGAIN_S)
            self._dial_all()
            self.run_for(_SERVED_S)
        at_rest = self._dial_all()
        self.run_for(_SERVED_S)
        self.invariants.check_clients(at_rest)
        for client in self.clients:
            client.give_up()
        self.run_for(1.0)
        self._remove_all()
        self.is_finishing = True
        if self.agent is not None and not self.machine.violations:
            self.agent.process.loop.call_soon(self.agent.stop)
            self.run_for(_ENDED_S)
            self.invariants.check_end()

    def _remove_all(self) -> None:
        """Delete all Services, and check that agents and workers free their state."""
        for key in [key for key in self.cluster.objects if key[0] in ("Service", "EndpointSlice")]:
            self.cluster.delete(key)
        self.invariants.check_removed()

    def _be_calm(self) -> None:
        """Stop all faults and all changes."""
        self.note("calm")
        self.is_calm = True
        self.machine.slow_s, self.machine.fails_to_start = 0.0, 0
        self.kernel.stop_faults()
        self.machine.queue = QUEUE
        self.disk.fails_with = 0
        self.api.stop_faults()
        self.end_deaths()
        self.lacks.crowd()
        if self.agent is None:
            self._start_agent()
        self.freshness.disturb()

    def after_step(self) -> None:
        agent = self.agent
        if agent is None or agent.is_ending or not agent.is_serving:
            self.freshness.disturb()
        else:
            agent.note_served()
        if self.waiting:
            self.waiting = [each for each in self.waiting if each.state in (DIALS, WAITS)]
        self.invariants.after_step()

    def _start_agent(self) -> None:
        number = len(self.agents)
        process = AgentProcess(self.machine, f"agent {number}")
        self.note(f"{process.name}: starts")
        if not self.is_calm and number < len(self.plan.agent_dies_at):
            process.dies_at_call = self.plan.agent_dies_at[number]
        if self.plan.keeps_state and (file := self.disk.files.get(STATE)) is not None:
            self._go_back(file.floor)
        run = AgentRun(self, process)
        process.main = run
        self.agents.append(run)
        if self.plan.crowd:
            self.freshness.disturb(self.timeline.now + _REPLACED_S)
        process.start(run.run)

    def _go_back(self, to: float) -> None:
        """Record that the state of an earlier time may be applied again."""
        self.freshness.go_back(to)
        for client in self.waiting:
            client.go_back()

    def _on_restore(self) -> None:
        self._go_back(self.began)
        self.freshness.disturb(self.timeline.now + _RETRIED_S)

    def make_source(self) -> Source:
        """Return the source of a starting agent."""
        return self.api.source()

    def agent_failed(self, run: AgentRun, exc: UserspaceProxyError) -> None:
        """Handle an agent's error at its exit; a start that the kernel refuses is retried."""
        has_failed = any(event.what == plans.KERNEL for event in self.plan.events)
        is_late = self.timeline.now > self.began + self.plan.calm_at + _REPLACED_S
        if has_failed and not run.is_started and not is_late:
            self.note(f"{run.process.name} failed: {exc}")
        else:
            self.violate(f"{run.process.name} failed: {exc}")

    def _on_death(self, process: Process) -> None:
        self.freshness.disturb()
        self.invariants.dying(process)
        self.kernel.dying(process)
        if isinstance(process, AgentProcess):
            self.api.died(process)
        elif not self.is_finishing:
            self.freshness.disturb(self.timeline.now + _REPLACED_S)
        if process.kind == CONTROL and not self.is_finishing:
            self.disk.forget_opened()
            self.timeline.after(_START_S * (1 + self.rng.random()), self._start_after)

    def _start_after(self) -> None:
        if self.agent is None and not self.is_finishing:
            self._start_agent()

    def _steer(self, client: Address, to: Address, is_tcp: bool) -> Verdict:
        outcome = self.kernel.send(client, to, is_tcp=is_tcp)
        if outcome.kind is Kind.DROPPED:
            return DROPPED
        if outcome.kind is Kind.TO_ENDPOINT and outcome.place is not None:
            return outcome.place.ip, outcome.place.port
        if outcome.kind is Kind.TO_PORT and outcome.place is not None:
            self.invariants.led_to_port(client, to, outcome.place.port, is_tcp=is_tcp)
            return outcome.place.port
        return REFUSED

    def _happen(self, event: Event) -> None:
        what, args = event.what, event.args
        if what == plans.CLIENT:
            self.dial(*args)
        elif what == plans.PUT:
            self.note(f"put {args[0]['kind']} {args[0]['metadata']['name']}")
            self.cluster.put(args[0])
        elif what == plans.DELETE:
            self.note(f"delete {' '.join(args[0])}")
            self.cluster.delete(args[0])
        elif what == plans.ADDRESSES:
            self.note(f"the node has the addresses {args[0]}")
            self.cluster.move(args[0])
            self.kernel.move(args[0])
            self.moved()
        elif self.is_calm and what in _FAULTS:
            return
        elif what == plans.KILL:
            self.kill(WORKER, args[0])
        elif what == plans.STOP:
            self._stop(*args)
        elif what == plans.CRASH:
            if self.agent is not None:
                self.agent.process.die(-9)
        elif what == plans.END:
            if self.agent is not None:
                self.note("the agent is to end")
                # No later agent removes the conntrack entries that this one couldn't list.
                self.kernel.tables.conntrack.refusals.clear()
                self.agent.stop()
        else:
            self._fail(what, *args)

    def _fail(self, what: str, *args: Any) -> None:
        self.note(f"{what} {args}")
        fails: dict[str, Callable[..., object]] = {
            plans.SHORT: self.lacks.run_short,
            plans.TAKE: self.lacks.take,
            plans.RANGE: self.lacks.take_range,
            plans.REFUSE: partial(self._refuse, plans.REFUSE),
            plans.REFUSE_FOR: partial(self._refuse, plans.REFUSE_FOR),
            plans.KERNEL: self._fail_in_kernel,
            plans.SLOW: self._slow_down,
            plans.DRIFT: self._drift,
            plans.BREAK: self._break,
            plans.NO_START: self._start_none,
            plans.INTERCEPT: self._intercept,
            plans.API: self._fail_api,
            plans.CLOCK: self._set_clock,
            plans.DISK: self._fail_disk,
        }
        fails[what](*args)

    def _fail_in_kernel(self, how: str, number: int) -> None:
        if how != "conntrack" or (self.agent is not None and not self.agent.is_ending):
            self.kernel.fail(how, number)
        self.freshness.disturb(self.timeline.now + 2 * _REPAIRED_S)

    def _slow_down(self, seconds: float) -> None:
        self.machine.slow_s = seconds

    def _drift(self, name: str, number: int) -> None:
        self.kernel.drift(name, number)
        self.freshness.disturb(self.timeline.now + _REPAIRED_S)

    def _break(self, ip: str, how: str, seconds: float) -> None:
        for at in [at for at in self.endpoints if at[0] == ip]:
            self.endpoints[at].break_for(how, seconds)
        self.freshness.disturb(self.timeline.now + seconds + _TRIED_AGAIN_S)

    def _start_none(self, times: int) -> None:
        self.machine.fails_to_start += times
        self.freshness.disturb(self.timeline.now + times * _REPLACED_S)

    def _intercept(self, number: int, seconds: float) -> None:
        self.kernel.take(number)
        self.timeline.after(seconds, self.kernel.give_back)
        self.freshness.disturb(self.timeline.now + seconds + _REPAIRED_S)

    def _fail_api(self, *args: Any) -> None:
        self.freshness.disturb(self.timeline.now + self.api.fail(*args))

    def _set_clock(self, seconds: float) -> None:
        # If the wall clock has been changed, pending changes may seem late.
        self.freshness.disturb()
        self.unix_offset += seconds

    def _fail_disk(self, how: str) -> None:
        if how == "torn":
            self.disk.tear()
        else:
            self.disk.fails_with = errno.ENOSPC if how == "full" else 0

    def _refuse(self, what: str, much: Any) -> None:
        """Make the kernel refuse this many writes, or all writes for this many seconds."""
        for_s = _RETRIED_S * much
        if what == plans.REFUSE:
            self.kernel.refuse(much)
        else:
            for_s = _RETRIED_S + much
            self.kernel.refuse()
            self.timeline.after(much, self.kernel.take_again)
        self.freshness.disturb(self.timeline.now + for_s)

    def _on_refusal(self, code: int) -> None:
        self.refusals += 1
        self.freshness.disturb(self.timeline.now + _RETRIED_S)
        self.invariants.refused(code)

    def _stop(self, is_agent: bool, number: int, seconds: float) -> None:
        process = self.stop_for(CONTROL if is_agent else WORKER, number, seconds)
        if process is not None:
            self.freshness.disturb(process.loop.held_until)

    def dial(self, ip: str, at: Dialled, hold_s: float) -> None:
        """Dial from a client."""
        client = Client(self, len(self.clients), ip, at, hold_s)
        self.clients.append(client)
        self.waiting.append(client)

    def _dial_all(self) -> list[Client]:
        """Dial each address of each Service from inside and outside; return the clients.

        Each client dials twice: with affinity, it must get the same endpoint again.
        """
        first = len(self.clients)
        for _ in range(2):
            for at in sorted(self.cluster.last.frontends):
                for ip in ("10.3.0.1", "10.3.9.2", "10.2.1.77"):
                    self.dial(like(ip, at[0]), at, 0.05)
            self.run_for(_AGAIN_S)
        return self.clients[first:]


class _NewAgent(World):
    """A run with an agent that serves nothing."""

    held: Mapping[str, Counter[str]]

    def __init__(self, plan: Plan) -> None:
        nodes = tuple(item for item in plan.objects if item["metadata"]["name"] == NODE)
        super().__init__(
            replace(
                plan,
                seed=0,
                features=frozenset(),
                speed=Speed(room=65536),
                objects=nodes,
                events=(),
                endpoint_s=0.0,
                agent_dies_at=(),
                queue=QUEUE,
                settings=Settings(path=plan.settings.path),
            )
        )

    def run(self) -> list[str]:
        return ProcessWorld.run(self)

    def carry_out(self) -> None:
        self._start_agent()
        self.run_for(_SERVED_S)
        self.held = dict(held_by(self))


_held: dict[object, Mapping[str, Counter[str]]] = {}


def _held_by_new(plan: Plan, path: str, workers: int) -> Mapping[str, Counter[str]]:
    """Return the tables and counts of an agent that served nothing, and of its worker."""
    key = path, workers, plan.keeps_workers, plan.keeps_state, plan.crowd, plan.addresses
    if key not in _held:
        new = _NewAgent(replace(plan, settings=plan.settings._replace(path=path), workers=workers))
        violations = new.run()
        assert not violations, violations
        _held[key] = new.held
    return _held[key]
