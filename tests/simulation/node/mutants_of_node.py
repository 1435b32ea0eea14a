"""Faults that the simulation of a whole node is to find: in plans, rounds and watchers."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS, _WATCHERS = "agent.rounds", "agent.watchers"
_IN_FORCE = (
    "        if not await self.rules.follow():\n            return\n        await self._check"
)

MUTANTS: Mapping[str, Mutant] = {
    # -- which endpoints are usable
    "hints-ignored": Mutant(
        "usable",
        "why_not_meant([e for _, _, e in sound if e.ready], facts, by_priority=preferred)",
        "None",
        "policy",
    ),
    "hints-of-some-endpoints": Mutant(
        "hints",
        "        if not (own and names):\n            return False",
        "        if not (own and names):\n            continue",
        "policy",
    ),
    "hints-of-zones-before-those-of-nodes": Mutant(
        "hints",
        "    if _decides(facts.node_name, (e.hinted_nodes for e in ready)):",
        "    if not ready:",
        "policy",
    ),
    "terminating-beside-ready": Mutant(
        "usable", "    return tuple(ready or [a", "    return tuple(ready + [a", "policy"
    ),
    "ended-as-terminating": Mutant(
        "usable", "if e.serving and e.terminating]", "if e.terminating]", "policy"
    ),
    "local-from-outside-as-cluster": Mutant(
        "usable",
        "        outside = None if scope is Scope.LOCAL else local",
        "        outside = None if scope is Scope.LOCAL else in_cluster",
        "policy",
    ),
    "internal-local-as-cluster": Mutant(
        "usable",
        "        chosen = local if scope is Scope.LOCAL else in_cluster",
        "        chosen = in_cluster",
        "policy",
    ),
    "refused-instead-of-dropped": Mutant(
        "usable", "is_dropping=not shown and bool(in_cluster)", "is_dropping=False", "policy"
    ),
    "stale-copy-of-an-endpoint": Mutant(
        "usable",
        "_rank(endpoint, facts) > _rank(known, facts)",
        "_rank(endpoint, facts) < _rank(known, facts)",
        "policy",
    ),
    "health-counts-other-nodes": Mutant(
        "usable", "endpoint.weight and _is_local(endpoint, facts)", "endpoint.weight", "policy"
    ),
    "health-counts-the-unready": Mutant(
        "usable", "is_ready = endpoint.ready and", "is_ready = endpoint.serving and", "policy"
    ),
    "endpoint-that-left-stays": Mutant(
        "usable_changes",
        "touched = changed.keys() | (left.keys() - came.keys())",
        "touched = changed.keys() | set()",
        "policy",
    ),
    "zone-of-the-node-kept": Mutant(
        "node_facts", "        zone=node.zone,", '        zone="zone-1",', "policy"
    ),
    "pods-as-outside": Mutant(
        "facts",
        "    return tuple(dict.fromkeys((*of_family(pods, family), _LOOPBACK[family], *own)))",
        "    return tuple(dict.fromkeys((_LOOPBACK[family], *own)))",
        "policy",
    ),
    # -- who has an address
    "younger-service-owns": Mutant(
        "ownership",
        "_PRECEDENCE[claimed[c.key].kind], c.created, c.key)",
        "_PRECEDENCE[claimed[c.key].kind], c.key)",
        "plan",
    ),
    "external-ip-of-another-service": Mutant(
        "ownership",
        "if owner := self._owner_of(frontend.ip, claims.service):",
        "if owner := self.cluster_ips.get(frontend.ip):",
        "plan",
    ),
    "loser-not-planned-again": Mutant(
        "planner",
        "self._update_ports(again.union(gone, change.services), before)",
        "self._update_ports(again.union(gone), before)",
        "plan",
    ),
    "owner-not-decided-again": Mutant(
        "ownership",
        "            if len(before) > 1 or len(now) > 1:",
        "            if len(now) > 2:",
        "plan",
    ),
    "source-ranges-everywhere": Mutant(
        "claims",
        "    if kind is FrontendKind.LOAD_BALANCER and service.load_balancer_source_ranges:",
        "    if service.load_balancer_source_ranges:",
        "plan",
    ),
    "source-ranges-forgotten": Mutant(
        "ports",
        "admits=_admits(claim.admits, inside, is_dropping",
        "admits=_admits(None, inside, is_dropping",
        "plan",
    ),
    "external-local-for-all": Mutant(
        "claims",
        "    return Scope.LOCAL_FROM_OUTSIDE if service.is_external_local",
        "    return Scope.LOCAL if service.is_external_local",
        "plan",
    ),
    "change-of-endpoints-is-none": Mutant(
        "plan",
        "            if old != new or _kinds(old) != _kinds(new):",
        "            if old.frontends != new.frontends:",
        "plan",
    ),
    "change-of-protocol-as-update": Mutant(
        "plan",
        "and old.protocol is new.protocol:",
        "and old.protocol:",
        "plan",
    ),
    "facts-of-the-start": Mutant(
        "planner",
        "(facts is not None and facts != self.facts)",
        "(facts is not None and not self._states)",
        "plan",
    ),
    # -- the cluster
    "deleted-slice-stays": Mutant(
        "store",
        "            self._touched[old.service][key] = None",
        "            pass",
        "cluster",
    ),
    "change-of-slices-is-none": Mutant(
        "store",
        "return old.service != service or old.slices is not self._slices_of.get(key, NO_SLICES)",
        "return old.service != service",
        "cluster",
    ),
    "deleted-service-stays": Mutant(
        "store",
        "        if self._services.pop(key, None) is not None:\n"
        "            self._touched.setdefault(key, {})",
        "        self._services.pop(key, None)",
        "cluster",
    ),
    "slices-lost-on-disk": Mutant(
        "encoding",
        "batch.append(state)",
        "batch.append(replace(state, slices=state.slices[:1]))",
        "cluster",
    ),
    "object-listed-before-stays": Mutant(
        "resources",
        "        self._listed.clear()\n        self._not_listed.clear()",
        "        self._not_listed.clear()",
        "sources.kubernetes",
    ),
    # -- rounds
    "listeners-close-before-rules": Mutant(
        "sync", _IN_FORCE, "        self._served_ports.close_retired()\n" + _IN_FORCE, _ROUNDS
    ),
    "recovered-ports-for-anything": Mutant(
        "planning",
        "frozenset(self._recovered.values()) | self._ports_of_others()",
        "frozenset(self._ports_of_others())",
        _ROUNDS,
    ),
    "recovered-ports-not-preferred": Mutant(
        "planning",
        "self._served_ports.open(port, preferred)",
        "self._served_ports.open(port, {})",
        _ROUNDS,
    ),
    "recovered-sockets-close-first": Mutant(
        "planning",
        "        for key in changes.close:\n            self._served_ports.retire(key)",
        "        self._served_ports.close_recovered()\n"
        "        for key in changes.close:\n            self._served_ports.retire(key)",
        _ROUNDS,
    ),
    "difference-after-a-failure": Mutant(
        "rules",
        "                self.are_in_force = False\n                self._note_failure(exc)",
        "                self._steered.mark(change)\n                self._note_failure(exc)",
        _ROUNDS,
    ),
    "failed-round-not-repeated": Mutant(
        "sync",
        "            is_behind = self._is_behind\n",
        "            is_behind = False\n",
        _ROUNDS,
    ),
    "failed-turn-not-repeated": Mutant(
        "sync",
        "        self._is_unfinished = True\n",
        "        self._is_unfinished = False\n",
        _ROUNDS,
    ),
    "change-during-a-round-lost": Mutant(
        "changes",
        "self.in_force, self._seen = batch.snapshot, batch.newest",
        "self.in_force, self._seen = batch.snapshot, self.latest",
        _ROUNDS,
    ),
    "turns-never-come": Mutant(
        "change_turns",
        "return min(self._waiting.values(), default=math.inf) - self._clock()",
        "return math.inf",
        _ROUNDS,
    ),
    "what-left-waits-for-a-turn": Mutant(
        "change_turns",
        "return state if kept == old else replace(state, service=kept)",
        "return state",
        _ROUNDS,
    ),
    "no-repair": Mutant("sync", "                await self.rules.repair()\n", "", _ROUNDS),
    "frontend-that-left-stays-steered": Mutant(
        "served_port",
        "gone.update(served.steered.keys() - targets.keys())",
        "gone.update(())",
        _ROUNDS,
    ),
    "steered-while-it-refuses": Mutant(
        "served_port",
        "            serves = listener is not None and listener.is_serving".replace(
            "            ", "                "
        ),
        "                serves = listener is not None",
        _ROUNDS,
    ),
    "node-port-stays-reserved": Mutant(
        "served_ports", "        self._reservations.release_unused()\n", "", _ROUNDS
    ),
    "retired-listener-stays": Mutant(
        "served_ports",
        "            closed += self._plane.close_group(served.group)",
        "            closed += []",
        _ROUNDS,
    ),
    "port-given-twice": Mutant(
        "listen_addresses",
        "                self._pool.take(listener.address.port)\n",
        "",
        _ROUNDS,
    ),
    # -- the agent and its watchers
    "listeners-close-before-steering-ends": Mutant(
        "agent",
        "            await steer_nothing(self._steering)",
        "            self._steering.unsteered",
        "agent",
    ),
    "rules-left-at-the-end": Mutant(
        "agent",
        "        if steering is not None and not await remove_steering(steering):",
        "        if steering is None:",
        "agent",
    ),
    "no-recovered-sockets": Mutant(
        "agent",
        "                    plane.recover(addresses, transparent=steering.needs_transparent)",
        "                    pass",
        "agent",
    ),
    "last-state-stays": Mutant(
        "last_state",
        "            self._served_at = 0.0\n            _log.info(",
        "            self._served_at = 0.0\n            return\n            _log.info(",
        _WATCHERS,
    ),
    "last-state-not-confirmed-as-kept": Mutant(
        "last_state",
        "                self._kept = snapshot\n            else:",
        "                pass\n            else:",
        _WATCHERS,
    ),
    "health-says-200-always": Mutant(
        "health_checks",
        "200 if is_healthy and check.local_endpoints else 503",
        "200 if is_healthy else 503",
        "status",
    ),
    "health-port-stays-open": Mutant(
        "health_checks",
        "            self._listeners.pop(at).close()",
        "            self._listeners.pop(at)",
        "status",
    ),
    "health-of-the-first-plan": Mutant(
        "health_check_ports",
        "            plan.health_checks.values(),",
        "            self._ports._checks.values() or plan.health_checks.values(),",
        _WATCHERS,
    ),
    "predecessors-not-drained": Mutant(
        "hand_over", "        predecessors.drain(drain_s)\n", "", "agent"
    ),
    "predecessors-drained-at-once": Mutant(
        "hand_over",
        "        await self._progress.caught_up()\n        await self._plane",
        "        await self._plane",
        "agent",
    ),
    # -- the plane
    "listener-of-another-not-taken-over": Mutant(
        "listeners",
        "                    self._unwanted.pop(listener, None)\n                if listener.group",
        "                    pass\n                if listener.group",
        "plane",
    ),
    "filter-of-before": Mutant(
        "listener",
        "        self._admits = networks\n",
        "        pass\n",
        "plane",
    ),
    "refusal-after-workers-know": Mutant(
        "listeners",
        "                self._refuse(listener)\n            elif",
        "                pass\n            elif",
        "plane",
    ),
}
