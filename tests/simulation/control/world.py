"""One run of a plan: control processes, one after another, their workers, and clients."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.worker_main import ORPHAN_S
from userspace_proxy.policy.locality import Networks

from ..plan import Event
from . import disturbances
from . import plan as plans
from .adoptions import ADOPTED, BINDS, CLOSED_LATE, Adoptions
from .agreement import ACCEPTS, ONE, SAME, Agreement
from .breaks import Breaks
from .calm import AFFINITY, ALONE, LEFT, OUTCOME, Calm
from .checks import DRAINS, OWN, Checks
from .clients import CLIENT_ADDRESSES, SERVED_ONES, STAY, Asker, Client, Endpoint
from .control import BOUND, REFUSES, RESERVE, Control, Desired
from .counting import (
    COUNTED,
    FORMER,
    KEPT_COUNTS,
    READ,
    SERVED_COUNTS,
    SHOWN,
    SHOWN_WAITS,
    Counting,
)
from .disturbances import FRESH, KILLED, LEAVES_NONE, Disturbances
from .draining import APPLIED, AWAITED, BEGUN, IDLE, RELIEVED, Draining
from .draining import ORACLE as DRAINED
from .ejections import ORACLE as EJECTED
from .ejections import SILENCE, Ejections
from .files import CONTROL, WORKER
from .in_force import InForce
from .machine import Machine, Process
from .notices import PASSED_ON, Notices
from .pins import KEPT, SOCKET, Pins
from .plan import ENDPOINTS, Fate, Plan
from .process_world import ProcessWorld
from .queues import Queues
from .replacements import AGAIN, HUNG, REPLACED, Replacements
from .replies import ORACLE as REPLIED
from .replies import Replies
from .reporting import ASKED, IN_TIME, ONCE, PASSING, READER, SUMS, Reporting
from .resting import REST, Resting
from .returns import EJECTS, OLD, STARTS, WOKEN, Returns
from .seam import installed
from .streaks import COUNTED_DIALS, STREAKS, Streaks
from .waits import GONE, SOON, Waits

# For a control process to start, or for one that has handed over to start again.
_START_S = 0.05
# For what is left of predecessors, which takes some seconds.
_SETTLED_S = 14.0
# Between two looks at counters.
_LOOK_S = 0.5
# For clients of a node at rest to be served, for what was counted to be reported, and for an end.
_SERVED_S, _REPORTED_S, _ENDED_S = 3.0, 7.0, 6.0
_CLIENTS_IN_CALM = 6
# The number of the first one, beyond those of all plans.
_FIRST_IN_CALM = 25 * CLIENT_ADDRESSES
HELD = "ports in force are held"
_LACKS = {plans.NO_START, plans.SHORT, plans.TAKE}
_FAULTS = {plans.CRASH, plans.HAND_OVER, plans.END, plans.STOP, plans.BREAK, *_LACKS}
"""What doesn't happen any more when it is calm."""

ORACLES = (
    SERVED_ONES,
    STAY,
    SOON,
    KEPT,
    SOCKET,
    REST,
    OUTCOME,
    AFFINITY,
    OWN,
    LEFT,
    DRAINS,
    REPLACED,
    AGAIN,
    BOUND,
    REFUSES,
    HUNG,
    GONE,
    EJECTED,
    SILENCE,
    COUNTED,
    ADOPTED,
    BINDS,
    CLOSED_LATE,
    DRAINED,
    RELIEVED,
    AWAITED,
    BEGUN,
    IDLE,
    APPLIED,
    FORMER,
    SHOWN,
    SHOWN_WAITS,
    KEPT_COUNTS,
    SERVED_COUNTS,
    READ,
    COUNTED_DIALS,
    STREAKS,
    ACCEPTS,
    SAME,
    ONE,
    IN_TIME,
    ONCE,
    SUMS,
    PASSING,
    ASKED,
    READER,
    FRESH,
    LEAVES_NONE,
    KILLED,
    PASSED_ON,
    HELD,
    OLD,
    EJECTS,
    WOKEN,
    STARTS,
    REPLIED,
)
"""Those that judge in each campaign."""


class World(ProcessWorld[Machine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        is_traced: Whether to note each step.
    """

    MAX_EVENTS = 400_000

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        super().__init__(plan.seed, Machine, plan.speed, is_traced=is_traced)
        self.plan = plan
        self.desired = [Desired(n, planned) for n, planned in enumerate(plan.services)]
        self.controls: list[Control] = []
        self.workers = 0
        """How many were started."""
        self.orphan_s = plan.limits.get("ORPHAN_S", ORPHAN_S)
        """For so long workers serve on alone."""
        self._look_at = 0.0
        """When counters are looked at next."""
        self.came_at = 0.0
        """When a client last came, or was accepted."""
        self.networks: Networks | None = None
        """Of clients that keep their addresses; None: none does."""
        self.names = 0
        """How often a Service was renamed."""
        self.clients: list[Client] = []
        self.askers: list[Asker] = []
        self._numbers: set[int] = set()
        """Of clients: each has an address of its own."""
        self.in_force = InForce(self)
        self.breaks = Breaks(self)
        self.queues = Queues(self)
        self.checks = Checks(self)
        self.waits = Waits(self)
        self.calm = Calm(self)
        self.pins = Pins(self)
        self.counting = Counting(self)
        self.ejections = Ejections(self)
        self.streaks = Streaks(self)
        self.replacements = Replacements(self)
        self.draining = Draining(self)
        self.adoptions = Adoptions(self)
        self.agreement = Agreement(self)
        self.reporting = Reporting(self)
        self.disturbances = Disturbances(self)
        self.notices = Notices(self)
        self.resting = Resting(self)
        self.returns = Returns(self)
        self.replies = Replies(self)
        self.machine.dying = self._on_death
        self.machine.started = self._on_worker
        self.endpoints = {each: Endpoint(self, each) for each in ENDPOINTS}
        self.machine.hosts.update({(at.ip, at.port): each for at, each in self.endpoints.items()})

    @property
    def control(self) -> Control | None:
        """The control process that lives."""
        last = self.controls[-1] if self.controls else None
        return None if last is None or last.process.is_dead else last

    def take_line(self, record: logging.LogRecord) -> None:
        """Part of ProcessWorld: what workers log when a command can't be carried out."""
        if self.disturbances.is_expected(record):
            return
        text = record.getMessage()
        if "failed to apply" in text or "malformed" in text or "too large" in text:
            exc = record.exc_info[1] if record.exc_info else None
            self.violate(f"logged: {text} {exc!r}")

    def installed(self) -> AbstractContextManager[None]:
        """Part of ProcessWorld."""
        # A part of the messages that wait are made when there is room only.
        constants = {"RESERVE": RESERVE, "_BATCH_BYTES": self.plan.speed.room, **self.plan.limits}
        return installed(
            self.machine,
            self.rng,
            descriptors=self.plan.descriptors,
            constants=constants,
            watching=[
                *self.ejections.patches(),
                *self.replacements.patches(),
                *self.draining.patches(),
                *self.agreement.patches(),
                *self.reporting.patches(),
                *self.disturbances.patches(),
                *self.returns.patches(),
            ],
        )

    def carry_out(self) -> None:
        """Part of ProcessWorld."""
        try:
            self._carry_out()
        finally:
            self.disturbances.forget()

    def _carry_out(self) -> None:
        self._start_control()
        for event in self.plan.events:
            self.timeline.at(self.began + event.at, self._happen, event)
        self.run_for(self.plan.calm_at)
        self.note("calm")
        self.is_calm = True
        self.machine.fails_to_start = 0
        self.end_deaths()
        self.run_for(plans.LATE_S + _SETTLED_S)
        self._check_at_rest(_FIRST_IN_CALM)
        self._dial_again()
        self.counting.check_at_rest()
        if self.control is not None and not self.machine.violations:
            self.note("hand-over at rest")
            self.pins.note()
            self.control.process.die(-9)
            self.run_for(_SETTLED_S)
            # The same clients.
            self._check_at_rest(_FIRST_IN_CALM + CLIENT_ADDRESSES)
        if not self.machine.violations:
            self.pins.check()
        self.is_finishing = True
        if self.control is not None and not self.machine.violations:
            self._end(self.control)
            self.calm.check_end()

    def _end(self, control: Control) -> None:
        """Have the last control process end in order, or die and leave its workers alone."""
        if not self.plan.is_abandoned:
            control.process.loop.call_soon(control.stop)
            self.run_for(_ENDED_S)
            return
        self.note("no control process follows")
        workers = self.machine.alive(WORKER)
        control.process.die(-9)
        self.run_for(self.orphan_s - _ENDED_S)
        have_ended = [each.name for each in workers if each.is_dead]
        self.judgements.check(ALONE, not have_ended, f"{have_ended} ended without orders")
        self.run_for(2 * _ENDED_S)

    def _check_at_rest(self, number: int) -> None:
        """Check what must hold, and have clients with numbers from that one on dial."""
        if self.machine.violations:
            return
        self.resting.check()
        self.counting.note_calm()
        self._dial_all(number)
        self.run_for(_SERVED_S)
        if not self.machine.violations:
            self.calm.check()
        for client in self.clients:
            client.finish()
        self.run_for(_REPORTED_S)

    def after_step(self) -> None:
        """Part of ProcessWorld."""
        if self.timeline.now >= self._look_at:
            self._look_at = self.timeline.now + _LOOK_S
            self.counting.look()
            self.waits.look()
            self.draining.look()
            self.agreement.look()
            self.reporting.look()

    # -- processes ---------------------------------------------------------------------------------

    def _start_control(self) -> None:
        number = len(self.controls)
        process = Process(self.machine, CONTROL, f"control {number}")
        self.note(f"{process.name}: starts")
        if not self.is_calm:
            _give(process, self.plan.control_fates.get(number))
        workers = self.plan.workers
        control = Control(self, process, workers[min(number, len(workers) - 1)])
        process.main = control
        self.controls.append(control)
        process.start(control.run)

    def _on_worker(self, process: Process) -> None:
        self.ejections.note_worker(process)
        self.replacements.note_worker(process)
        if not self.is_calm:
            _give(process, self.plan.worker_fates.get(self.workers))
        self.workers += 1

    def _on_death(self, process: Process) -> None:
        self.queues.note_death(process)
        self.checks.dying(process)
        self.replacements.note_death(process)
        self.streaks.note_death(process)
        self.agreement.note_death()
        if process.kind == CONTROL and not self.is_finishing:
            # As a supervisor starts it again, or the one that has handed over takes the node back.
            absence_s = 0.0 if self.is_calm else self.plan.absence_s
            after_s = _START_S * (1 + self.rng.random()) + absence_s
            self.timeline.after(after_s, self._start_after)

    def _start_after(self) -> None:
        if self.control is None:
            self._start_control()

    # -- events ------------------------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        what, args = event.what, event.args
        if what == plans.CLIENT:
            number, service, hold_s = args
            self._dial(number, self.desired[service], hold_s)
        elif self.is_calm and what in _FAULTS:
            return
        elif what == plans.KILL:
            self.kill(WORKER, args[0])
        elif what == plans.STOP:
            self._stop(*args)
        elif what in (plans.CRASH, plans.HAND_OVER, plans.END):
            self._end_control(what)
        elif what == plans.BREAK:
            self._break(*args)
        elif what == plans.SWAP:
            self._swap(*args)
        elif what == plans.NETWORKS:
            self._preserve(*args)
        elif what in disturbances.EVENTS:
            self.disturbances.happen(what, *args)
        elif what in _LACKS:
            self._lack(what, *args)
        else:
            self._change(what, *args)

    def _end_control(self, what: str) -> None:
        if self.control is None:
            return
        if what == plans.END:
            self.note("the control process is to end")
            self.control.stop()
        else:
            # One that hands over executes another program, which closes all its descriptors.
            self.note(what)
            self.control.process.die(-9)

    def _preserve(self, networks: Networks | None) -> None:
        self.networks = networks
        if self.control is not None:
            self.control.process.loop.call_soon(self.control.preserve)

    def _break(self, endpoint: SocketAddress, how: str, seconds: float) -> None:
        self.note(f"endpoint {endpoint.ip}: {how} for {seconds:g} s")
        self.endpoints[endpoint].break_for(seconds, how)
        self.breaks.note(endpoint, seconds)

    def _lack(self, what: str, *args: Any) -> None:
        """Have processes, calls or ports lack."""
        if what == plans.NO_START:
            self.machine.fails_to_start += args[0]
        elif what == plans.TAKE:
            self._take(*args)
        elif self.control is not None and self.control.serves:
            self.machine.run_short(self.control.process, *args)

    def _stop(self, is_control: bool, number: int, seconds: float, is_hang: bool) -> None:
        process = self.stop_for(CONTROL if is_control else WORKER, number, seconds)
        if process is not None:
            process.is_hung = is_hang
            if is_hang:
                self.replacements.note_hung(process)
            self.in_force.disturb(process.loop.held_until)

    def _change(
        self,
        what: str,
        number: int,
        serving: Serving | None = None,
        places: tuple[int, ...] = (),
    ) -> None:
        desired = self.desired[number]
        if what == plans.REMOVE:
            desired.is_there = False
        elif what == plans.RENAME:
            self.names += 1
            desired.name = f"shop/other-{number}-{self.names}:http"
            self.in_force.note_moved(desired)
        else:
            assert serving is not None, "it says how to serve"
            desired.is_there, desired.serving, desired.places = True, serving, places
        ips = ", ".join(each.ip for each in serving.endpoints) or "none" if serving else ""
        self.note(f"service {number}: {what} {ips} {places or ''}")
        self._apply(desired)

    def _take(self, number: int, place: int, seconds: float) -> None:
        """Have another program bind an address of a Service, if nothing has it."""
        desired = self.desired[number]
        at, is_tcp = desired.addresses[place], desired.planned.protocol is Protocol.TCP
        is_free = self.machine.take_port((at.ip, at.port), is_tcp=is_tcp, for_s=seconds)
        if is_free:
            self.note(f"another program has {at} for {seconds:g} s")
        control = self.control
        if control is None or control.plane is None or control.is_ending or at in control.failures:
            return
        if self.in_force.at(at) is not None and at not in self.in_force.lost:
            kernel = control.process.kernel
            was_short = kernel.short_since <= self.in_force.changed_at(at) <= kernel.short_until
            what = f"another program can bind {at}, which {control.process.name} serves"
            if is_free and not is_tcp and was_short:
                self.judgements.excuse(HELD, "no socket could be opened that holds it")
            else:
                self.judgements.check(HELD, not is_free, what)

    def _swap(self, first: int, second: int) -> None:
        """Have two Services exchange their first addresses, which have the same keys."""
        one, other = self.desired[first], self.desired[second]
        if one.planned.protocol is other.planned.protocol:
            one.addresses[0], other.addresses[0] = other.addresses[0], one.addresses[0]
            self.note(f"services {first} and {second}: swap {one.addresses[0]}")
            self.in_force.note_moved(one)
            self.in_force.note_moved(other)
            self._apply(one, other)

    def _apply(self, *changed: Desired) -> None:
        for desired in changed:
            self.in_force.note_wanted(desired)
        if self.control is not None:
            self.control.process.loop.call_soon(self.control.apply)

    # -- clients -----------------------------------------------------------------------------------

    def _dial(self, number: int, desired: Desired, hold_s: float) -> None:
        self.came_at = self.timeline.now
        places = desired.places
        to = desired.addresses[places[number % len(places)]]
        self._dial_to(number, desired.planned.protocol, to, hold_s)

    def _dial_all(self, number: int) -> None:
        """Have new clients dial each address of each Service."""
        self.came_at = self.timeline.now
        self.calm.begin()
        for desired in self.desired:
            for to in desired.addresses:
                for _ in range(_CLIENTS_IN_CALM):
                    number += 1
                    self._dial_to(number, desired.planned.protocol, to)

    def _dial_again(self) -> None:
        """Have clients in calm of Services with affinity dial once more, and compare."""
        before = [] if self.machine.violations else self.calm.with_affinity()
        for one in before:
            others = self.calm.other_addresses(one)
            for turn, to in enumerate((one.to, *others), 1):
                self._dial_to(one.number + 2 * turn * CLIENT_ADDRESSES, one.protocol, to)
        if before:
            self.run_for(_SERVED_S)
            self.calm.check_again(before)
            for client in self.clients:
                client.finish()
            self.run_for(_REPORTED_S)

    def _dial_to(
        self, number: int, protocol: Protocol, to: SocketAddress, hold_s: float = 0.1
    ) -> None:
        # With an earlier one's address it would continue that one's flow, with its endpoint.
        assert number not in self._numbers, f"another client has the number {number}"
        self._numbers.add(number)
        if protocol is Protocol.TCP:
            self.clients.append(Client(self, number, to, hold_s))
        else:
            asker = Asker(self, number, to, hold_s)
            self.askers.append(asker)
            asker.ask()


def _give(process: Process, fate: Fate | None) -> None:
    """Have a process die when its fate says."""
    if fate is not None and fate.is_message:
        process.dies_at_message = fate.number
    elif fate is not None:
        process.dies_at_call = fate.number
