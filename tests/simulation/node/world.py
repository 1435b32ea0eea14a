"""One run of a plan: a cluster, one agent after another with their workers, and clients."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources import Source
from userspace_proxy.steering import Steering

from ..control.files import CONTROL, WORKER
from ..control.machine import Process
from ..control.process_world import ProcessWorld
from ..network import Address
from ..plan import Event
from . import plan as plans
from .agents import AgentRun
from .api_of_node import Api
from .checks import ORACLES as _CHECKED
from .checks import Checks
from .claims import Dialled
from .clients import Client, Endpoint
from .cluster import Cluster, Freshness
from .disk import Disk
from .ends import ENDS, Ends
from .families import like
from .health_answers import ORACLES as _HEALTH
from .health_answers import HealthAnswers
from .lacks import NOT_CAPTURED, QUEUES, Lacks
from .last_states import FILE as _STATE
from .last_states import ORACLES as _STATES
from .last_states import LastStates
from .machine import QUEUE, REFUSED, AgentMachine, AgentProcess, Verdict
from .pins import PINNED, Pins
from .plan import OTHER_PODS, OWN_PODS, Plan
from .rest_checks import ORACLES as _AT_REST
from .rest_checks import check_clients, check_end, check_rest
from .round_reports import ORACLES as _REPORTED
from .round_reports import RoundReports
from .seam import installed
from .source import ObjectSource
from .state_checks import AWAY, CURRENT, check_noted
from .status_checks import STATUS, check_status
from .steering import Table, TableSteering
from .turns import TURNS, TurnChecks
from .usable_checks import USABLE

BOUND_S = 2.0
"""A change of the cluster is in force after that time and waits for turns, if nothing is
disturbed."""
# For an agent to start, and for one that has died to start again.
_START_S = 0.05
_SETTLED_S = 12.0
_SERVED_S = 3.0
_ENDED_S = 8.0
_AGAIN_S = 0.5
# A round that was refused is tried again within that time.
_RETRIED_S = 1.5
# Unix time at the begin of a run.
_UNIX = 1_800_000_000.0
_TARGETS = (8080, 8081, 5353)
_FAULTS = {
    plans.DRIFT,
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
"""What doesn't happen any more when it is calm."""


ORACLES = (
    *_CHECKED,
    *_AT_REST,
    STATUS,
    CURRENT,
    AWAY,
    TURNS,
    NOT_CAPTURED,
    QUEUES,
    *_HEALTH,
    *_REPORTED,
    ENDS,
    *_STATES,
    PINNED,
    USABLE,
)


class World(ProcessWorld[AgentMachine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        is_traced: Whether to note each step.
    """

    LOG_LEVEL = logging.WARNING
    MAX_EVENTS = 300_000

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        super().__init__(plan.seed, AgentMachine, plan.speed, is_traced=is_traced)
        self.plan = plan
        self.unix_offset = _UNIX - self.began
        self.clock_set_at = float("-inf")
        self.cluster = Cluster(self.timeline.clock, plan.addresses, plan.settings)
        self.cluster.put(*plan.objects)
        self.api = Api(self.timeline, self.rng, plan.objects) if plan.has_api else None
        if self.api is not None:
            self.cluster.watchers.append(self.api.changed)
        bound_s = BOUND_S + 2 * plan.settings.min_period_s
        self.freshness = Freshness(self.timeline.clock, bound_s + plan.turns_s, bound_s)
        self.table = Table(self.rng)
        self.disk = Disk(self.rng, self.timeline.clock, self.unix, self._enter)
        self.disk.floor = self.freshness.floor
        self.disk.noted = partial(check_noted, self)
        self.agents: list[AgentRun] = []
        self.clients: list[Client] = []
        self.checks = Checks(self)
        self.lacks = Lacks(self)
        self.turns = TurnChecks(self)
        self.reports = RoundReports(self)
        self.health = HealthAnswers(self)
        self.last_states = LastStates(self)
        self.ends = Ends(self)
        self.pins = Pins(self)
        self.moved: Callable[[], None] = lambda: None
        """Called after a change of the node's addresses; set by what follows them."""
        self.machine.steer = self._steer
        self.machine.dying = self._on_death
        self.machine.queue = plan.queue
        self.machine.queued = self.lacks.queued
        answering = {(ip, port) for ip in (*OWN_PODS, *OTHER_PODS) for port in _TARGETS}
        # Also those that may not be dialled: a client that is served by one shows that.
        self.machine.hosts.update({at: Endpoint(self, at) for at in answering | plan.endpoints})

    def _enter(self, call: str) -> None:
        """Begin a call of whatever process runs."""
        self.machine.kernel.enter(call)

    @property
    def agent(self) -> AgentRun | None:
        """The agent that lives."""
        last = self.agents[-1] if self.agents else None
        return None if last is None or last.process.is_dead else last

    def unix(self) -> float:
        """Return the node's Unix time."""
        return self.timeline.now + self.unix_offset

    def take_line(self, record: logging.LogRecord) -> None:
        """Part of ProcessWorld: what the product logs as a bug."""
        text = record.getMessage()
        if self.is_over:
            return
        if record.exc_info or "bug" in text or "failed to apply" in text or "malformed" in text:
            exc = record.exc_info[1] if record.exc_info else None
            self.violate(f"logged: {text} {exc!r}")
        else:
            self.note(f"logged: {text}")

    def installed(self) -> AbstractContextManager[None]:
        """Part of ProcessWorld."""
        return installed(self)

    def carry_out(self) -> None:
        """Part of ProcessWorld."""
        self.lacks.crowd(self.began + self.plan.calm_at)
        self._start_agent()
        for event in self.plan.events:
            self.timeline.at(self.began + event.at, self._happen, event)
        self.run_for(self.plan.calm_at)
        self.note("calm")
        self.is_calm = True
        self.table.refusals, self.table.slow_s, self.machine.slow_s = 0, 0.0, 0.0
        self._take_rules()
        self.machine.queue = QUEUE
        self.disk.fails_with = 0
        if self.api is not None:
            self.api.be_well()
        self.end_deaths()
        self.lacks.crowd(self.timeline.now)
        if self.agent is None:
            self._start_agent()
        self.freshness.disturb()
        self.run_for(_SETTLED_S)
        check_rest(self)
        self.last_states.check_rest()
        at_rest = self._dial_all()
        self.run_for(_SERVED_S)
        check_clients(self, at_rest)
        check_status(self, at_rest)
        self.health.check_rest()
        if self.pins.dial_again(at_rest):
            self.run_for(_AGAIN_S)
        for client in self.clients:
            client.give_up()
        self.run_for(1.0)
        self.is_finishing = True
        if self.agent is not None and not self.machine.violations:
            self.agent.process.loop.call_soon(self.agent.stop)
            self.run_for(_ENDED_S)
            check_end(self)

    def after_step(self) -> None:
        """Part of ProcessWorld."""
        self.checks.after_step()

    # -- agents ------------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        number = len(self.agents)
        process = AgentProcess(self.machine, f"agent {number}")
        self.note(f"{process.name}: starts")
        if not self.is_calm and number < len(self.plan.agent_dies_at):
            process.dies_at_call = self.plan.agent_dies_at[number]
        if self.plan.keeps_state and (file := self.disk.files.get(_STATE)) is not None:
            self.freshness.go_back(file.floor)
            for client in self.clients:
                client.go_back()
        run = AgentRun(self, process)
        process.main = run
        self.agents.append(run)
        self.lacks.agent_starts()
        process.start(run.run)

    def open_steering(self) -> Steering:
        """Return the steering of the agent that starts."""
        process = self.machine.current
        assert isinstance(process, AgentProcess), "an agent runs"
        return TableSteering(self.table, process)

    def make_source(self, run: AgentRun) -> Source:
        """Return the source of an agent that starts."""
        if self.api is not None:
            return self.api.source()
        return ObjectSource(self.cluster, run.process.loop.call_later)

    def agent_failed(self, run: AgentRun, exc: UserspaceProxyError) -> None:
        """Take the error that ends an agent."""
        self.note(f"{run.process.name}: failed: {exc}")
        self.checks.agent_failed(run, exc)

    def _on_death(self, process: Process) -> None:
        self.checks.dying(process)
        self.health.dying(process)
        self.ends.dying(process)
        if self.api is not None and isinstance(process, AgentProcess):
            self.api.died(process)
        if process.kind == CONTROL and not self.is_finishing:
            self.disk.forget_opened()
            self.timeline.after(_START_S * (1 + self.rng.random()), self._start_after)

    def _start_after(self) -> None:
        if self.agent is None and not self.is_finishing:
            self._start_agent()

    def _steer(self, _client: Address, to: Address, is_tcp: bool) -> Verdict:
        for frontend, target in self.table.targets.items():
            if frontend.address == to and (frontend.protocol == "TCP") is is_tcp:
                return target if isinstance(target, int) else REFUSED
        return REFUSED

    # -- events ------------------------------------------------------------------------------------

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
                self.agent.stop()
        else:
            self._fail(what, *args)

    def _fail(self, what: str, *args: Any) -> None:
        self.note(f"{what} {args}")
        if what == plans.SHORT:
            self.lacks.run_short(*args)
        elif what == plans.TAKE:
            self.lacks.take(*args)
        elif what == plans.RANGE:
            self.lacks.take_range(*args)
        elif what in (plans.REFUSE, plans.REFUSE_FOR):
            self._refuse(what, args[0])
        elif what == plans.SLOW:
            self.table.slow_s = self.machine.slow_s = args[0]
        elif what == plans.DRIFT:
            self.table.drift(*args)
            self.checks.begin_drift()
        elif what == plans.API:
            if self.api is not None:
                self.freshness.disturb(self.timeline.now + self.api.fail(*args))
        elif what == plans.CLOCK:
            self.unix_offset += args[0]
            self.clock_set_at = self.timeline.now
        elif what == plans.DISK:
            if args[0] == "torn":
                self.disk.tear()
            else:
                self.disk.fails_with = errno.ENOSPC if args[0] == "full" else 0

    def _refuse(self, what: str, much: Any) -> None:
        """Have the kernel refuse so many writes, or all of them for so many seconds."""
        for_s = _RETRIED_S * much
        if what == plans.REFUSE:
            self.table.refusals += much
        else:
            for_s = _RETRIED_S + much
            self.table.is_refusing = True
            self.timeline.after(much, self._take_rules)
        self.freshness.disturb(self.timeline.now + for_s)

    def _take_rules(self) -> None:
        self.table.is_refusing = False

    def _stop(self, is_agent: bool, number: int, seconds: float) -> None:
        process = self.stop_for(CONTROL if is_agent else WORKER, number, seconds)
        if process is not None:
            self.freshness.disturb(process.loop.held_until)

    # -- clients -----------------------------------------------------------------------------------

    def dial(self, ip: str, at: Dialled, hold_s: float) -> None:
        """Have a client dial."""
        client = Client(self, len(self.clients), ip, at, hold_s)
        self.clients.append(client)
        self.checks.follow(client)

    def _dial_all(self) -> list[Client]:
        """Have clients inside and outside dial each address of each Service; return them."""
        first = len(self.clients)
        for at in sorted(self.cluster.last.frontends):
            for ip in ("10.3.0.1", "10.3.9.2", "10.2.1.77"):
                self.dial(like(ip, at[0]), at, 0.05)
        return self.clients[first:]
