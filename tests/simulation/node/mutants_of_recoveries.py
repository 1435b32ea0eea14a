"""Faults of what outlives an agent, of its start and end, and of what it is refused."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"
_WATCHERS = "agent.watchers"

MUTANTS: Mapping[str, Mutant] = {
    # -- the last state
    "state-noted-as-kept-before-it-is-written": Mutant(
        "last_state",
        "                self._data = await asyncio.to_thread(self._write, file, snapshot, "
        "self._known_at)\n                self._kept = snapshot\n",
        "                self._kept = snapshot\n"
        "                self._data = await asyncio.to_thread(self._write, file, snapshot, "
        "self._known_at)\n",
        _WATCHERS,
    ),
    "stop-writes-nothing-new": Mutant(
        "last_state",
        "saving = self._save(file, None if newest is self._kept else newest)",
        "saving = self._save(file, None)",
        _WATCHERS,
    ),
    "last-state-without-the-node": Mutant(
        "encoding",
        "        others.node,\n        None if",
        "        None,\n        None if",
        "cluster",
    ),
    # -- workers of the last agent
    "predecessors-drain-before-the-first-round": Mutant(
        "hand_over", "        await self._progress.caught_up()\n", "", "agent"
    ),
    "last-socket-of-a-port-is-adopted-alone": Mutant(
        "adoption",
        "            self._sockets.setdefault(key, []).append((index, sock))\n",
        "            self._sockets[key] = [(index, sock)]\n",
        "plane",
    ),
    "stop-leaves-predecessors": Mutant(
        "agent",
        "        if self._predecessors is not None:\n            self._predecessors.end()\n",
        "",
        "agent",
    ),
    # -- node ports
    "released-port-is-bound-again": Mutant(
        "node_ports",
        "        self._claimed.discard(port)\n        self._unbound.pop(port, None)\n",
        "        self._claimed.discard(port)\n",
        _ROUNDS,
    ),
    "node-ports-of-no-earlier-rules-are-claimed": Mutant(
        "served_ports",
        "for f in plan.frontends if f in preferred))",
        "for f in plan.frontends))",
        _ROUNDS,
    ),
    # -- workers that die, or can't start
    "dead-worker-still-owes-a-closing": Mutant(
        "listeners",
        "        self._stand_ins.worker_ended(worker)\n"
        "        for listener in (*self._open.values(), *self._leaving.values()):",
        "        self._stand_ins.worker_ended(worker)\n"
        "        for listener in (*self._open.values(),):",
        "plane",
    ),
    "worker-that-could-not-start-is-not-started-again": Mutant(
        "workers",
        "            self._early_deaths = max(2, self._early_deaths + 1)\n"
        "            self._start_again()\n",
        "            self._early_deaths = max(2, self._early_deaths + 1)\n",
        "plane",
    ),
    # -- what is refused
    "filter-that-is-refused-lets-old-sources-in": Mutant(
        "listeners",
        "        except ListenError:\n            self._refuse(listener)\n            raise",
        "        except ListenError:\n            raise",
        "plane",
    ),
    "repair-keeps-the-problem": Mutant(
        "rules",
        "            return\n        self._note_recovery()\n        self._steered",
        "            return\n        self.has_drifted = False\n        self._steered",
        _ROUNDS,
    ),
    "recovered-ports-are-spared-for-ever": Mutant(
        "planning",
        "            self._spared = spared\n            self._served_ports.pool.spare(spared)",
        "            self._spared = spared",
        _ROUNDS,
    ),
    # -- health
    "change-in-force-counts-as-waiting": Mutant(
        "changes",
        "        self._arrived = 0.0\n        arrived, triggers",
        "        arrived, triggers",
        _ROUNDS,
    ),
    "ready-while-it-drains": Mutant("proxy_parts", " and not facts.is_draining", "", "agent"),
    # -- addresses of the node
    "change-during-a-listing-is-lost": Mutant(
        "followed_listing",
        "if not is_current or self._changed_at > self._seen_at:",
        "if not is_current:",
        "kernel",
    ),
    # -- of a second measure
    "last-health-check-port-stays-open": Mutant(
        "health_check_ports",
        "        if self._ports is None:\n            if not plan.health_checks:\n"
        "                return\n",
        "        if not plan.health_checks:\n            return\n        if self._ports is None:\n",
        _WATCHERS,
    ),
    "only-the-last-retry-counts": Mutant(
        "sync",
        "            has_changed |= is_change\n",
        "            has_changed = is_change\n",
        _ROUNDS,
    ),
    "late-sockets-are-kept": Mutant(
        "adoption",
        "        for worker in self._workers:\n            worker.be_late()\n",
        "",
        "plane",
    ),
    "worker-that-runs-again-stays-a-problem": Mutant(
        "workers", 'self.is_running, self.problem = True, ""', "self.is_running = True", "plane"
    ),
    "stand-in-serves-for-ever": Mutant(
        "plane", "            self._listeners.end_stand_in(worker)\n", "", "plane"
    ),
    "state-is-as-current-as-its-write": Mutant(
        "state_file", "                os.utime(file.fileno(), (current_at, current_at))\n", "", ""
    ),
    "recovered-queue-of-barred-clients-is-served": Mutant(
        "recovered_sockets",
        "        if serving.admits is None and not serving.is_refusing:",
        "        if not serving.is_refusing:",
        "plane",
    ),
    "recovered-queue-is-reset": Mutant(
        "recovered_sockets",
        "            return (sock,)\n",
        "            sock.close()\n            return ()\n",
        "plane",
    ),
    "retired-port-keeps-its-node-ports": Mutant(
        "served_ports",
        "        self._touch(served, served.plan.frontends, ())\n",
        "        self.steered.touch(served)\n",
        _ROUNDS,
    ),
    "rules-go-after-listeners-at-the-end": Mutant(
        "agent",
        "        if self._steering is not None:\n            await steer_nothing(self._steering)\n",
        "        if self._core is not None:\n            self._core.served_ports.close()\n"
        "        if self._steering is not None:\n            await steer_nothing(self._steering)\n",
        "agent",
    ),
    "last-agents-workers-end-before-rules-go": Mutant(
        "agent",
        "        if self._steering is not None:\n            await steer_nothing(self._steering)\n",
        "        if self._predecessors is not None:\n            self._predecessors.end()\n"
        "        if self._steering is not None:\n            await steer_nothing(self._steering)\n",
        "agent",
    ),
    "late-change-is-healthy": Mutant("health", "        and is_working(view, now)\n", "", "status"),
    "port-that-refuses-is-not-kept": Mutant(
        "listener",
        "self._stop_listening(keeps_port=True)",
        "self._stop_listening(keeps_port=False)",
        "plane",
    ),
    # -- that hardly any seed found before restarts were drawn
    "recovered-listeners-close-before-rules": Mutant(
        "sync",
        "        if not await self.rules.follow():\n            return\n"
        "        await self._check_health(self.plan)\n        self.planning.end_recovery()\n",
        "        self.planning.end_recovery()\n        if not await self.rules.follow():\n"
        "            return\n        await self._check_health(self.plan)\n",
        _ROUNDS,
    ),
    "recovered-port-of-another-program-ends-the-recovery": Mutant(
        "recovered_sockets",
        "            except ListenError:\n                continue\n",
        "            except ListenError:\n                break\n",
        "plane",
    ),
    "tries-of-proxy-ports-run-out": Mutant(
        "served_ports", "        self._addresses.start_over()\n", "", _ROUNDS
    ),
    "new-addresses-of-the-node-are-outside": Mutant(
        "facts",
        "return _inside(self.cluster_networks, self.addresses, family)",
        "return _inside(self.cluster_networks, self.primary_addresses, family)",
        "policy",
    ),
    # -- of oracles that have no other one
    "livez-fails-for-a-late-change": Mutant(
        "health",
        "is_healthy=view.sync.turned_s_ago < STUCK_S",
        "is_healthy=is_working(view, now)",
        "status",
    ),
    "refusal-is-not-shown": Mutant("rules", "        self._condition.set(str(exc))\n", "", _ROUNDS),
    "last-state-is-read-and-not-served": Mutant(
        "last_state",
        "        self._sync.publish(snapshot)\n        return True",
        "        return True",
        _WATCHERS,
    ),
}
