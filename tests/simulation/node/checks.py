"""What must hold: what each client gets, where the table leads, and what is left.

Rule 1: a client gets what the objects of the API say, of a state that may be in force.
Rule 2: each frontend of the table leads to a port at which a listener of its Service accepts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from userspace_proxy.steering import Target

from ..control.files import CONTROL, WORKER, Port
from ..control.machine import Process
from ..streams import Stream
from .claims import Claim, Dialled
from .clients import DIALS, DROPPED, ENDED, REFUSED, RESET, SERVED, WAITS, Client
from .cluster import in_parts
from .expecting import Expecting, Moments
from .hand_overs import LATE_WORKER, HandOvers
from .rest_checks import at_of
from .seam import answer_of
from .truth import Expected
from .waits import ANSWERED_S, WAITED, Waits

if TYPE_CHECKING:
    from .agents import AgentRun
    from .world import World

ALLOWED, REFUSAL, DROP, RESETS, ANSWER, OPEN_PORT, OWN_SERVICE, HEALTH = (
    "allowed endpoint",
    "refusal",
    "drop",
    "reset",
    "answer in time",
    "steered to an open port",
    "steered to its own Service",
    "health check port",
)
ORACLES = (ALLOWED, REFUSAL, DROP, RESETS, ANSWER, WAITED, OPEN_PORT, OWN_SERVICE, HEALTH)

_LOOK_S = 0.25
# A change of the table by another program is undone in that time.
_REPAIRED_S = 2.0
_ORACLES = {SERVED: ALLOWED, REFUSED: REFUSAL, DROPPED: DROP}
_LEFT_BEHIND = "another Service got the last agent's port with an address"
_LEFT_IN_QUEUE = "its listener admits only some clients, and takes over no queue"
_OLD_WORKER = "until it drains, the last agent's worker serves the port's last owner"


class Checks:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._outages: list[tuple[float, float]] = [(world.timeline.now, float("inf"))]
        """When no agent had a round in force whose listeners are open; the last may last."""
        self._is_dirty = True
        self._look_at = 0.0
        self._waiting: list[Client] = []
        self.hand_overs = HandOvers(world)
        self._expecting = Expecting(world)
        self._waits = Waits(world, self._expecting, self._excuses)
        self.drifts = 0
        """How often another program has changed the table."""
        self._drifted_until = 0.0
        """Another program has changed the table, until it is repaired."""
        world.table.changed = self._table_changed
        world.table.refused = self._table_refused
        machine = world.machine
        machine.stopped_listening = self._stopped_listening
        machine.dropped = self._dropped

    # -- outages -----------------------------------------------------------------------------------

    def begin_outage(self) -> None:
        """Note that no agent serves from now on."""
        if self._outages[-1][1] != float("inf"):
            self.world.note("outage begins")
            self._outages.append((self.world.timeline.now, float("inf")))
        self.world.freshness.disturb()

    def _end_outage(self) -> None:
        began, ends = self._outages[-1]
        if ends == float("inf"):
            self.world.note("outage ends")
            # What the rules of the last agent lead to is recovered now.
            self._note_change()
            self._outages[-1] = (began, self.world.timeline.now)

    def _in_outage(self, since: float) -> bool:
        return self._outages[-1][1] >= since

    def dying(self, process: Process) -> None:
        """Follow a death."""
        world = self.world
        world.freshness.disturb()
        self._note_change()
        lost = {port.port for port in world.machine.ports if port.holders <= {process}}
        ends_all = process.kind == CONTROL and not world.plan.keeps_workers
        if (ends_all or not lost.isdisjoint(world.table.targets.values())) and not (
            world.is_finishing
        ):
            self.begin_outage()
        for client in world.clients:
            if client.stream is not None and client.stream in process.kernel.taken:
                client.is_excused = f"{process.name} died"

    def agent_failed(self, run: AgentRun, exc: Exception) -> None:
        """Take the error that ends an agent."""
        self.world.violate(f"{run.process.name} failed: {exc}")

    def begin_drift(self) -> None:
        """Note that another program has changed the table."""
        self.drifts += 1
        self._drifted_until = self.world.timeline.now + _REPAIRED_S
        self.world.freshness.disturb()

    # -- while it runs -----------------------------------------------------------------------------

    def _stopped_listening(self, port: Port, cause: str) -> None:
        self.world.note(f"port {port.port} stops listening: {cause}")
        agent = self.world.agent
        is_of_last = agent is not None and agent.process not in port.known_to
        for queued in port.queue:
            for client in self.world.clients:
                if queued.peer is not client.stream:
                    continue
                if self._has_changed(client):
                    client.is_excused = "its Service is served at another port now"
                elif is_of_last and not self.world.plan.keeps_workers:
                    # A worker that was starting ends later than the others.
                    client.is_excused = "the last agent's worker had the port"
        current, agent = self.world.machine.current, self.world.agent
        is_late = (
            # No process runs as a stopped one is killed.
            (is_of_last if current is None else current.kind == WORKER)
            and agent is not None
            # Before, the port can be recovered.
            and agent.core is not None
            and not self.hand_overs.has_served(agent)
            # What hands its sockets over drains only once another one serves there.
            and not self.world.plan.keeps_workers
        )
        ip = port.local[0] if port.local else ""
        has_other = bool(self.world.machine.ports_at(port.port, ip, is_tcp=port.is_tcp))
        if is_late and cause == "no process has it" and not has_other:
            self.hand_overs.lost[port.port] = LATE_WORKER
        self._note_change()

    def _table_changed(self) -> None:
        agent = self.world.agent
        if agent is not None and agent.is_ending and not self.world.table.targets:
            self.begin_outage()
        self._note_change()

    def _table_refused(self) -> None:
        agent = self.world.agent
        if agent is not None and agent.is_ending:
            # It logs that clients are still led to it, and ends.
            self.begin_outage()
        now = self.world.timeline.now
        if self._drifted_until >= now:
            # A repair is refused, too.
            self._drifted_until = now + _REPAIRED_S
        self.world.freshness.disturb()

    def _note_change(self) -> None:
        self._is_dirty = True

    def after_step(self) -> None:
        """Look at what may have changed."""
        world, now = self.world, self.world.timeline.now
        agent = world.agent
        core = agent.core if agent is not None else None
        if agent is None or core is None or agent.is_ending or core.sync.progress.in_force is None:
            world.freshness.disturb()
            # Clients wait at recovered sockets, or are those of the last agent's workers.
            is_there = agent is not None and core is not None and not agent.is_ending
            if is_there and world.table.targets:
                self._end_outage()
        else:
            self._end_outage()
            self.hand_overs.serves(agent)
        if self._is_dirty:
            self._is_dirty = False
            self._check_table()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._check_progress()
            self._check_health_ports()
            world.lacks.check()
            world.health.look()

    def _has_changed(self, client: Client) -> bool:
        """Return whether the Service that a client has dialled has changed since."""
        cluster = self.world.cluster
        states = cluster.between(client.floors.all, self.world.timeline.now)
        claims = [truth.frontends.get(client.at) for truth in states]
        first = claims[0] if claims else None
        return first is None or any(c is None or c.service != first.service for c in claims)

    def _dropped(self, stream: Stream) -> None:
        for client in self.world.clients:
            if client.stream is stream:
                client.drop()

    def follow(self, client: Client) -> None:
        """Judge a client that dials."""
        self._waiting.append(client)

    def client_changed(self, client: Client, was: str) -> None:
        """Judge what has become of a client."""
        world = self.world
        if world.is_finishing:
            return
        expected = self._expecting.of(client)
        is_right = _is_among(client, expected)
        if not is_right:
            expected = self._expecting.in_parts(client)
            is_right = _is_among(client, expected)
        if was in (DIALS, WAITS):
            world.judgements.right(ANSWER)
        if client.state in (RESET, ENDED):
            self._judge_reset(client, was, expected)
        elif client.state in _ORACLES:
            self._judge_outcome(client, expected, is_right=is_right)
        if client.state == SERVED:
            if was == WAITS:
                self._waits.was_served(client, expected)
            world.pins.served(client)

    def _judge_outcome(
        self, client: Client, expected: Collection[Expected], *, is_right: bool
    ) -> None:
        judgements, oracle = self.world.judgements, _ORACLES[client.state]
        is_refused = client.state == REFUSED
        if not is_right and is_refused and self._excuses(client, REFUSAL):
            return
        if not is_right and not is_refused and self._has_heir(client):
            judgements.excuse(oracle, _LEFT_BEHIND)
        elif not is_right and self._is_of_last_owner(client):
            judgements.excuse(oracle, _OLD_WORKER)
        else:
            allowed = sorted(frozenset().union(*(each.endpoints for each in expected)))
            by = f" by {client.endpoint}, may get {allowed}" if client.state == SERVED else ""
            judgements.check(
                oracle, is_right, f"{client.name} at {at_of(client)} was {client.state}{by}"
            )

    def _is_of_last_owner(self, client: Client) -> bool:
        target = self.target_of(client.at)
        return client.state == SERVED and self.hand_overs.is_of_last_owner(client, target)

    def _excuses(self, client: Client, oracle: str) -> bool:
        """Return whether there is a reason why a client isn't served, and count it."""
        if self._in_outage(client.dialled_at):
            # Without an agent it can't be anything else.
            self.world.judgements.right(oracle)
            return True
        reason = client.is_excused or self._why_ended(client) or self.world.lacks.why(client)
        agent = self.world.agent
        if not reason and not self.hand_overs.has_served(agent):
            target = self.target_of(client.at)
            if not isinstance(target, int):
                reason = "the agent hasn't steered yet"
            else:
                reason = self.hand_overs.lost.get(target, "")
        if not reason and self._drifted_until >= client.dialled_at:
            reason = "another program has changed the table"
        if reason:
            self.world.judgements.excuse(oracle, reason)
        return bool(reason)

    def _heirs(self, moments: Moments, at: Dialled) -> list[Claim]:
        """Return what may have the port to which the last agent's rules lead an address.

        A Service that took over another's cluster IP, or node port, while no agent ran gets that
        one's port; the rules may lead the last owner's other addresses there, too, until the first
        round.
        """
        target = self.target_of(at)
        if self.hand_overs.has_served(self.world.agent) or not target:
            return []
        keys = [
            (f.ip, f.port, str(f.protocol))
            for f, where in self.world.table.targets.items()
            if where == target
        ]
        return [
            claim
            for key in keys
            for claim in self._expecting.owners(moments, key)
            if claim is not None and claim.tells_its_service(key)
        ]

    def _has_heir(self, client: Client) -> bool:
        """Return whether rules may lead a client to another Service, or side of its own."""
        moments = self._expecting.moments(client.floors)
        owners = self._expecting.owners(moments, client.at)
        kinds = {claim.kind for claim in owners if claim is not None}
        return any(heir.kind not in kinds for heir in self._heirs(moments, client.at))

    def target_of(self, at: Dialled) -> Target | None:
        """Return where the table leads an address; None: nowhere."""
        for frontend, target in self.world.table.targets.items():
            if (frontend.ip, frontend.port, str(frontend.protocol)) == at:
                return target
        return None

    def _why_ended(self, client: Client) -> str:
        """Return that a worker of an earlier agent ends with the one that has its place."""
        if self.hand_overs.is_ended_by_successor(client):
            return "an agent ends before its predecessor's workers have drained"
        return ""

    def _was_left(self, client: Client) -> bool:
        """Return whether a client's listener may have taken over no queue.

        The kernel completes the handshakes of all clients in a queue from before, of which the
        listener admits only some.
        """
        is_recovered = self.hand_overs.was_recovered(client)
        return is_recovered and self._expecting.may_keep_some_out(client)

    def _judge_reset(self, client: Client, was: str, expected: Collection[Expected]) -> None:
        judgements = self.world.judgements
        if client.state == ENDED:
            judgements.right(RESETS)
        elif was != SERVED and self._was_left(client):
            judgements.excuse(RESETS, _LEFT_IN_QUEUE)
        elif was != SERVED and any(each.waits_s for each in expected):
            self._waits.was_reset(client, expected)
        elif was != SERVED and not all(each.endpoints for each in expected):
            # Without an endpoint at any time it is to be refused or dropped, and never accepted.
            if any(each.endpoints for each in expected):
                judgements.excuse(RESETS, "the Service has no endpoint meanwhile")
            elif self.hand_overs.was_never_taken(client):
                judgements.excuse(RESETS, "it was in the queue of a listener of the last agent")
            elif not self._excuses(client, RESETS):
                what = f"{client.name} at {at_of(client)} was accepted, and may not be served"
                judgements.violate(RESETS, what)
        elif was == SERVED and self.hand_overs.has_drained(client):
            judgements.right(RESETS)
        elif not self._excuses(client, RESETS):
            judgements.violate(RESETS, f"{client.name} at {at_of(client)} was reset while it {was}")

    def _check_progress(self) -> None:
        world = self.world
        now = world.timeline.now
        for client in self._waiting:
            if client.state not in (DIALS, WAITS):
                self._waiting = [each for each in self._waiting if each.state in (DIALS, WAITS)]
                continue
            since = max(client.dialled_at, world.freshness.calm_at)
            if client.stream is None or now - since < ANSWERED_S:
                continue
            expected = self._waits.expected_at_last(client)
            if all(e.endpoints for e in expected) and not self._excuses(client, ANSWER):
                what = f"{client.name} at {at_of(client)} {client.state} for too long"
                world.judgements.violate(ANSWER, what)

    # -- the table ---------------------------------------------------------------------------------

    def _check_table(self) -> None:
        world = self.world
        if world.is_finishing or self._outages[-1][1] == float("inf"):
            return
        labels = self.hand_overs.labels()
        moments = self._expecting.moments(world.freshness.floors())
        for frontend, target in world.table.targets.items():
            if not isinstance(target, int):
                continue
            is_tcp = frontend.protocol == "TCP"
            ports = world.machine.ports_at(target, frontend.ip, is_tcp=is_tcp)
            at = (frontend.ip, frontend.port, str(frontend.protocol))
            if not ports and (why := self._why_closed(target, is_tcp)):
                world.judgements.excuse(OPEN_PORT, why)
                continue
            # Also while it refuses it is the proxy's: another program must not get its clients.
            is_kept = not self.hand_overs.has_served(world.agent) or world.machine.is_bound(
                target, frontend.ip, is_tcp=is_tcp
            )
            if not is_kept or not (ports or self._expecting.may_refuse(moments, at)):
                what = f"{frontend} is steered to port {target}, which is closed"
                world.judgements.violate(OPEN_PORT, what)
                return
            world.judgements.right(OPEN_PORT)
            owners = {
                claim.name for claim in self._expecting.owners(moments, at) if claim is not None
            }
            for port in ports:
                label = labels.get(port)
                if label is None:
                    continue
                heirs = () if label in owners else self._heirs(moments, at)
                if any(label == heir.name for heir in heirs):
                    world.judgements.excuse(OWN_SERVICE, _LEFT_BEHIND)
                else:
                    what = f"{frontend} is steered to {label}, and belongs to {owners}"
                    world.judgements.check(OWN_SERVICE, label in owners, what)

    def _why_closed(self, port: int, is_tcp: bool) -> str:
        why = self.hand_overs.why_closed(port, is_tcp=is_tcp)
        return why or self.world.lacks.why_closed(port)

    def _check_health_ports(self) -> None:
        world = self.world
        agent = world.agent
        if agent is None or agent.core is None or self._outages[-1][1] == float("inf"):
            return
        states = list(world.cluster.between(world.freshness.floor(), world.timeline.now))
        for number in {port for truth in states for port in truth.open_health_ports}:
            with agent.process:
                status = answer_of(agent.core.health_checks, number)
            counts = [truth.open_health_ports.get(number, ("", 0))[1] for truth in states]
            is_right = status != 200 or any(counts)
            if world.freshness.is_calm and all(counts) and not world.lacks.is_taken(number):
                # By the wall clock, which may have been set while a change waits.
                is_late = world.reports.is_late(agent, world.unix())
                is_right = status == (503 if is_late else 200)
            elif not is_right and world.api is not None and not world.freshness.is_calm:
                is_right = any(
                    t.open_health_ports.get(number, ("", 0))[1] for t in in_parts(states)
                )
            what = f"health check port {number} says {status} with {counts} ready endpoints here"
            world.judgements.check(HEALTH, is_right, what)


def _is_among(client: Client, expected: Collection[Expected]) -> bool:
    """Return whether a client got what it may get."""
    if client.state == SERVED:
        return any(client.endpoint in each.endpoints for each in expected)
    if client.state == REFUSED:
        return any(each.may_be_refused for each in expected)
    return client.state != DROPPED or any(each.may_be_dropped for each in expected)
