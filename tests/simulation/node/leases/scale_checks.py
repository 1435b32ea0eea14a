"""What must hold at the moment at which a node scales a workload.

Rule 1: what a node may not know yet, or what changes while it acts, is an excuse of that write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clients import CONNECTED, WAITING, Client, named
from .truth import RECENT_S, Asked, Rights, Wish, answer_of, asked_by, forbids, holder_of
from .workloads import READY, Workload

if TYPE_CHECKING:
    from .checks import Checks
    from .world import World

ORACLES = (
    "only between 0 and 1",
    "right to rest",
    "other Services",
    "autoscalers and budgets",
    "idle long enough",
    "no open connection",
    "asked for all Services",
    "all nodes agree",
    "holder",
    "right to wake",
    "wanted by a client",
    "not before its pods end",
)
# An attempt to wake ends after 5 s, and a report is as old; attempts wait for each other.
_WANTED_S = 15.0
_ENDS_S = 10.0


class ScaleChecks:
    """The oracles of scales that nodes write."""

    def __init__(self, checks: Checks, world: World) -> None:
        self._checks = checks
        self._world = world
        self._known = checks.known
        self._judge = checks.judge

    def scaling(self, workload: Workload, to: int, by: str) -> None:
        """Judge a write before it is carried out."""
        before = workload.replicas
        self._world.note(f"server: {by} scales {workload} from {before} to {to}")
        what = f"{by} scales {workload} from {before} to {to}"
        is_right = (before, to) in ((0, 1), (1, 0))
        self._judge("only between 0 and 1", is_right, what)
        if to == 0:
            self._rests(workload, by)
        else:
            self._wakes(workload, by)

    # -- to zero -----------------------------------------------------------------------------------

    def _rests(self, workload: Workload, by: str) -> None:
        world, known, judge = self._world, self._known, self._judge
        spec, rights = workload.spec, known.rights(workload)
        what = f"{by} puts {workload} to rest"
        changed = {"a Service has changed": known.have_services_changed(spec.namespace)}
        judge("right to rest", rights.asks_for_rest, f"{what}: no Service may", changed)
        others = [wish.key for wish in rights.others]
        judge("other Services", not others, f"{what}, which {others} keep awake", changed)
        forbidden = list(forbids(world.workloads.others, spec))
        newly = {"it is new": known.has_changed(f"forbids {spec.namespace}")}
        judge("autoscalers and budgets", not forbidden, f"{what}, against {forbidden}", newly)
        for wish in rights.asked:
            self._check_idle(what, wish, known.has_changed(wish.key))
        open_ = [c for c in world.clients if c.state == CONNECTED and c.pod in workload.pods]
        for client in open_:
            excuses = self._checks.excuses_of(client)
            judge("no open connection", False, f"{what}, and {client} is connected", excuses)
            # Its pod ends then: what excuses the write excuses that end.
            for reason in (r for r, holds in excuses.items() if holds):
                self._checks.excused.setdefault(client, reason)
        if not open_:
            judge("no open connection", True, what)
        self._check_round(workload, what, by, rights, changed)

    def _check_idle(self, what: str, wish: Wish, has_changed: bool) -> None:
        idle_s = wish.idle_s or RECENT_S
        began = self._checks.rounds_at.get(self._asked.number, self._world.now)
        last, client = self._checks.last_use(wish, began)
        so_long = self._world.now - last
        text = f"{what}: {wish.key} was used {so_long:.3f} s ago by {client}, not {idle_s:g}"
        excuses = {"the Service has changed": has_changed}
        if client is not None:
            excuses |= self._checks.excuses_of(client)
            # Connections of an agent that has died are counted by no one, until they have ended.
            excuses["its agent has died"] = self._checks.is_of_dead_agent(client)
        self._judge("idle long enough", so_long >= idle_s, text, excuses)

    @property
    def _asked(self) -> Asked:
        return asked_by(self._checks.lease("holder"))

    def _check_round(
        self, workload: Workload, what: str, by: str, rights: Rights, changed: dict[str, bool]
    ) -> None:
        checks, asked = self._checks, self._asked
        identity = holder_of(checks.lease("holder"))
        is_held = identity.startswith(f"{by}_") and not asked.is_over
        self._judge("holder", is_held, f"{what}, and {identity or 'no node'} holds the Lease")
        lacking = {wish.key for wish in rights.asked} - asked.services
        self._judge("asked for all Services", not lacking, f"{what}: not {lacking}", changed)
        began = checks.rounds_at.get(asked.number, self._world.now)
        for node in self._world.etcd.items("nodes"):
            name = node["metadata"]["name"]
            lease = checks.lease(f"node.{name}")
            answer = answer_of(lease) if lease is not None else None
            agrees = answer is not None and answer.number == asked.number
            agrees = agrees and answer is not None and asked.services <= answer.services
            is_new = self._known.changed_at(f"node {name}") >= began
            text = f"{what}, and {name} hasn't agreed: {answer}"
            self._judge("all nodes agree", agrees, text, {"the Node is new": is_new})

    # -- from zero ---------------------------------------------------------------------------------

    def _wakes(self, workload: Workload, by: str) -> None:
        world, known, judge = self._world, self._known, self._judge
        rights = known.rights(workload)
        what = f"{by} wakes {workload}"
        changed = {"a Service has changed": known.have_services_changed(workload.spec.namespace)}
        judge("right to wake", bool(rights.asked), f"{what}: no Service may", changed)
        keys = {wish.key for wish in rights.asked}
        waited = any(self._has_waited(c, by) for c in world.clients if c.service in keys)
        judge("wanted by a client", waited, f"{what}, for no client", changed)
        sleep = self._checks.asleep.get(workload)
        if sleep is None:
            return
        listed = [pod for pod in sleep.pods if pod.state == READY]
        is_soon = world.now - sleep.since < _ENDS_S
        text = f"{what} after {world.now - sleep.since:.3f} s, and {named(listed)} is ready"
        excuses = {
            "its agent doesn't know": self._checks.is_blind(by, sleep.since),
            "slices are late": not known.is_calm,
        }
        judge("not before its pods end", not (listed and is_soon), text, excuses)

    def _has_waited(self, client: Client, at: str) -> bool:
        until = self._world.now if client.state == WAITING else client.since
        waited = client.waits_since and client.node == at
        return bool(waited) and self._world.now - until <= _WANTED_S
