"""Plans snapshots, and applies the plans to the listeners: a round's steps before steering.

    snapshot, node facts ─▶ plan ─▶ differences ─▶ listeners open, change, retire ─▶ reports

Rule 1: a Service port keeps the proxy port that its old rules point to, and until the first round
is applied no other Service port gets it. No Service port gets a port on which the previous
process's workers serve another Service port, or to which old rules steer several Service ports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Set

from ...causes.cause import Cause, CauseCode
from ...causes.say import remedy, say
from ...clocks import Clocks
from ...cluster import Snapshot
from ...log_fields import FieldLogger
from ...log_limit import SERVICE_LINES, LogLimit
from ...model import Frontend, FrontendKind, Protocol, ServiceKey, ServicePortName
from ...plan import Plan, PlanChanges, Planner, diff_plans, new_conflicts
from ...policy import NodeFacts
from ...sources import Happening
from .served_ports import ServedPorts
from .tasks import Pace

_log = FieldLogger("userspace_proxy.agent")


class Planning:
    """The plan that one proxy's listeners follow, and its replacement by newer plans.

    Args:
        recovered: Proxy ports that rules of an earlier run still point to.
        facts: Returns the current node facts for a plan; None to use the planner's facts.
        prepare: Called with the coming changes before they are applied.
        report: Called with events for users of the cluster.
        want_nodes: Called with whether the plan depends on all Nodes' addresses.
        ports_of_others: Returns the proxy ports on which the previous process's workers serve.
    """

    def __init__(
        self,
        planner: Planner,
        served_ports: ServedPorts,
        *,
        recovered: Mapping[Frontend, int],
        facts: Callable[[Snapshot], NodeFacts] | None = None,
        prepare: Callable[[PlanChanges], Awaitable[None]] | None = None,
        report: Callable[[Happening], None] = lambda _happening: None,
        want_nodes: Callable[[bool], None] = lambda _is_wanted: None,
        ports_of_others: Callable[[], Set[int]] = frozenset,
    ) -> None:
        self.plan = Plan.empty()
        """The plan that is applied to the listeners."""
        self.turned = 0.0
        """Monotonic seconds when planning, or changing listeners, last yielded to other tasks."""
        self.on_plan: Callable[[Plan, PlanChanges], None] = lambda _before, _changes: None
        """Called with the previous plan, and the changes that were applied to listeners."""
        self.kernel_elements = planner.kernel_elements
        self._planner = planner
        self._served_ports = served_ports
        self._recovered = dict(recovered)
        self._ports_of_others = ports_of_others
        self._spared: Set[int] = frozenset()
        self.spare_ports()
        served_ports.shortages.on_excess = self._report_unserved
        self._facts = facts
        self._prepare = prepare
        self._report = report
        self._want_nodes = want_nodes
        self._conflict_lines = LogLimit(SERVICE_LINES)

    async def follow(self, snapshot: Snapshot) -> PlanChanges:
        """Plan a snapshot, and apply it to listeners; return the changes for the rules."""
        plan = await self._make(snapshot)
        self._want_nodes(self._planner.needs_node_addresses)
        changes = diff_plans(self.plan, plan)
        if self._prepare is not None:
            await self._prepare(changes)
        await self._change_listeners(plan, changes)
        self._report_conflicts(plan)
        for happening in _left_out(self.plan, changes):
            self._report(happening)
        self.on_plan(self.plan, changes)
        self.plan = plan
        return changes

    def end_recovery(self) -> None:
        """Close the earlier run's unclaimed listeners and free its ports after an applied round."""
        # Close unclaimed listeners of the earlier run only now: until this round, old rules could
        # still steer clients to them.
        self._served_ports.close_recovered()
        self._recovered.clear()
        self.spare_ports()

    def spare_ports(self) -> None:
        """Reserve proxy ports that may belong to another Service; call this once a second."""
        # Until the first round is applied, old rules point to these ports, even for removed
        # Services. If another Service got such a port, it would receive their clients, and its own
        # clients would reach the endpoints that the previous process's workers serve there.
        spared = frozenset(self._recovered.values()) | self._ports_of_others()
        if spared != self._spared:
            self._spared = spared
            self._served_ports.pool.spare(spared)

    async def _make(self, snapshot: Snapshot) -> Plan:
        facts = self._facts(snapshot) if self._facts is not None else None
        pace = Pace(self._note_turn)
        for _ in self._planner.turns(snapshot, facts):
            await pace.turn()
        return self._planner.last

    async def _change_listeners(self, plan: Plan, changes: PlanChanges) -> None:
        for key in changes.close:
            self._served_ports.retire(key)
        pace = Pace(self._note_turn)
        for port in changes.update:
            self._served_ports.update(port)
            await pace.turn()
        # Open Service ports with recovered proxy ports first, so that no other port takes these.
        known, preferred = self._recovered.keys(), _of_one_owner(self._recovered, plan)
        for port in sorted(changes.open, key=lambda p: not (known & set(p.frontends))):
            self._served_ports.open(port, preferred)
            await pace.turn()

    def _note_turn(self) -> None:
        self.turned = Clocks.monotonic()

    def _report_conflicts(self, plan: Plan) -> None:
        for item in new_conflicts(self.plan, plan):
            cause = say(item.cause)
            if self._conflict_lines.take(Clocks.monotonic()):
                advice = remedy(item.cause)
                about = {"service": str(item.service), "port": item.port, "cause": cause}
                fields = {**about, "remedy": f"{advice[:1].lower()}{advice[1:]}"}
                text = "%(service)s: Service is not served: %(cause)s"
                if item.port:
                    text = "%(service)s: port %(port)s is not served: %(cause)s"
                if item.is_part:
                    text = "%(service)s: Service is partly served: %(cause)s"
                _log.warning(text, extra=fields)
            port = f"port {item.port}: " if item.port else ""
            self._report_unserved(item.service, f"{port}{cause}")

    def _report_unserved(self, service: ServiceKey, note: str) -> None:
        self._report(Happening("ServiceNotServed", "Serve", note, service=service))


def _of_one_owner(recovered: Mapping[Frontend, int], plan: Plan) -> Mapping[Frontend, int]:
    """Return the recovered ports, with 0 where the port may have belonged to another Service.

    Services may have exchanged addresses since the earlier run, or use addresses of a removed
    Service: they would receive its clients until the rules are updated, which may take long. A
    Service port is therefore recognised by its immutable cluster IP, or else by its node port.
    """
    owners: dict[tuple[Protocol, int], set[ServicePortName]] = defaultdict(set)
    telling: set[Frontend] = set()
    for key, planned in plan.ports.items() if recovered else ():
        telling.update(_told_by(planned.frontends))
        for frontend in planned.frontends:
            if frontend in recovered:
                owners[frontend.protocol, recovered[frontend]].add(key.name)
    return {
        f: p if f in telling and len(owners[f.protocol, p]) == 1 else 0
        for f, p in recovered.items()
    }


def _told_by(frontends: Collection[Frontend]) -> Collection[Frontend]:
    """Return the frontends by which a Service port is recognised after a restart."""
    for kind in (FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT):
        if telling := [f for f in frontends if f.kind is kind]:
            return telling
    return frontends


def _left_out(before: Plan, changes: PlanChanges) -> Iterator[Happening]:
    """Yield events for Service ports and Services that newly have too many endpoints."""
    reported: set[tuple[ServiceKey, Cause]] = set()
    for port in (*changes.open, *changes.update):
        old, service = before.ports.get(port.key), port.key.name.service
        for note in port.notes:
            is_new = old is None or note not in old.notes
            if note.code is CauseCode.TOO_MANY_ENDPOINTS and is_new:
                text = f"{port.key}: {say(note)}"
                yield Happening("EndpointsLeftOut", "Serve", text, service=service)
        cause = port.cause
        if cause is None or cause.code is not CauseCode.TOO_MANY_ENDPOINTS:
            continue
        # Report a cause once per Service, because thousands of its ports may share the cause.
        is_new = old is None or old.cause != cause
        if is_new and (service, cause) not in reported:
            reported.add((service, cause))
            text = f"{port.key}: {say(cause)}"
            yield Happening("EndpointsLeftOut", "Serve", text, service=service)
