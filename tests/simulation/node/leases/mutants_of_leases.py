"""Mutants of what puts workloads to rest: each is one fault, as people make them."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

_SCALING, _SOURCES, _AGENT = "scaling", "sources.kubernetes", "agent"


def _scaling(module: str, old: str, new: str) -> Mutant:
    return Mutant(module, old, new, _SCALING)


def _source(old: str, new: str, module: str = "scaling") -> Mutant:
    return Mutant(module, old, new, _SOURCES)


MUTANTS: Mapping[str, Mutant] = {
    "leases-no-second-count": _scaling(
        "node_lease",
        "self._without_clients(quiesced) if is_settled else frozenset()",
        "quiesced if is_settled else frozenset()",
    ),
    "leases-no-wait-for-dials": _scaling(
        "node_lease",
        "        await self._pause(self._settle_s)\n",
        "        await self._pause(0)\n",
    ),
    "leases-dials-of-busy-workers-are-forgotten": _scaling(
        "node_lease",
        "        if not await self._count():\n            return False\n        await self._pause",
        "        await self._pause",
    ),
    "leases-counts-arent-fresh": _scaling(
        "node_lease", "                await self._refresh()\n", "                pass\n"
    ),
    "leases-late-count-is-none": _scaling(
        "node_lease",
        "        except TimeoutError:\n            return False\n",
        "        except TimeoutError:\n            return True\n",
    ),
    "leases-answer-without-quiescing": _scaling(
        "promises",
        "        self._served_ports.quiesce(service, is_quiesced=True)\n",
        "",
    ),
    "leases-conflict-keeps-the-version": _scaling(
        "node_lease",
        "            self._lease = await self._leases.write(written)\n",
        "            self._lease = await self._leases.write(written) or lease\n",
    ),
    "leases-new-demand-comes-late": _scaling(
        "node_lease",
        "        if demand.keys() != before.keys():\n            return True\n",
        "",
    ),
    "leases-some-answers-suffice": _scaling(
        "holder_lease", "            if len(answers) == len(nodes):\n", "            if answers:\n"
    ),
    "leases-answers-of-any-round": _scaling(
        "holder_lease",
        "                and known.report.answer.number == asked.number\n",
        "",
    ),
    "leases-refusal-of-a-node-is-ignored": _scaling(
        "holder_lease",
        "            if any(not wanted <= quiesced for quiesced in answers):\n"
        "                return False\n",
        "",
    ),
    "leases-silent-node-is-idle": _scaling(
        "holder_lease",
        "            await self._pause(_ANSWERS_EVERY_S)\n        return False\n",
        "            await self._pause(_ANSWERS_EVERY_S)\n        return self.is_held\n",
    ),
    "leases-nodes-of-a-minute-ago": _scaling(
        "holder_lease",
        "        self._nodes, self._nodes_at = await self._leases.nodes(), began\n"
        "        if not self._nodes or self._unknown(began):",
        "        if not self._nodes or self._unknown(began):",
    ),
    "leases-taken-from-a-holder-that-lives": _scaling(
        "holder_lease",
        "elif now - self._changed_at >= DURATION_S + self._jitter_s:",
        "elif now - self._changed_at >= self._jitter_s:",
    ),
    "leases-round-without-an-end": _scaling(
        "holder_lease", "        if self._tally.round == asked:\n", "        if is_asleep:\n"
    ),
    "leases-only-the-first-service-is-asked-about": _scaling(
        "holder_lease",
        "        asked = tuple(dict.fromkeys(map(_service_of, ports)))\n",
        "        asked = tuple(dict.fromkeys(map(_service_of, ports)))[:1]\n",
    ),
    "leases-sum-of-the-last-node": _scaling(
        "holder_lease",
        "                sums[key] += count\n",
        "                sums[key] = count\n",
    ),
    "leases-unknown-is-none": _scaling(
        "holder_lease", "least, own = int(bool(tally.unknown))", "least, own = 0"
    ),
    "leases-nothing-tells-what-keeps-awake": _scaling(
        "holder_lease",
        "            elif self._why_awake.get(service) != why:\n",
        "            elif self._why_awake.get(service) == why:\n",
    ),
    "leases-promise-isnt-restored": _scaling(
        "promises",
        "                self._served_ports.quiesced.set(service, quiesced)\n",
        "",
    ),
    "leases-promise-isnt-kept-on-disk": _scaling(
        "promises",
        "        if self._file is None or not promised:\n",
        "        if self._file is not None or not promised:\n",
    ),
    "leases-later-round-forgets-earlier-promises": _scaling(
        "promises",
        "        kept |= dict.fromkeys(promised, _KeptPromise(number, self._wall_clock()))\n",
        "        kept = dict.fromkeys(promised, _KeptPromise(number, self._wall_clock()))\n",
    ),
    "leases-answer-although-the-disk-is-full": _scaling(
        "promises",
        "                self.release(service)\n            raise\n",
        "                pass\n",
    ),
    "leases-promise-without-an-end": _scaling(
        "promises",
        "            return are_gone or self._is_ready(service)\n",
        "            return are_gone\n",
    ),
    "leases-wakes-while-pods-end": _scaling(
        "promises",
        "            if is_recent and self._is_ready(service):\n                return True\n",
        "",
    ),
    "leases-never-wakes-while-pods-stay": _scaling(
        "promises",
        "            is_recent = sleep is None or self._clock() - sleep.since < ENDS_S\n",
        "            is_recent = True\n",
    ),
    "leases-asleep-is-forgotten": _scaling(
        "promises",
        "                self._asleep[service] = _Sleep(self._clock())\n",
        "                self._served_ports.quiesce(service, is_quiesced=False)\n",
    ),
    "leases-woken-once-serves-again": _scaling(
        "promises",
        "                if sleep.is_woken:\n",
        "                if sleep is not None:\n",
    ),
    "leases-idle-after-isnt-waited-for": _scaling(
        "usage",
        "            if now - seen.used_at < recent_s(served):\n",
        "            if now < seen.used_at:\n",
    ),
    "leases-new-endpoints-arent-use": _scaling(
        "usage",
        " or not endpoints <= seen.endpoints:\n",
        ":\n",
    ),
    "leases-short-connections-arent-use": _scaling(
        "usage",
        "if traffic != (seen.traffic or (0,) * len(traffic)) or not",
        "if not",
    ),
    "leases-clients-that-wait-arent-demand": _scaling(
        "usage",
        "            counts[key] += seen.active + served.group.waiting(now).clients\n",
        "            counts[key] += seen.active\n",
    ),
    "leases-naming-a-workload-is-a-right": _scaling(
        "rights", '        return ""\n    return (\n', '        return ""\n    return str() and (\n'
    ),
    "leases-other-services-are-ignored": _scaling(
        "rights",
        "        if selector and not of_pods and not why_not(selector, workload, labels):\n",
        "        if selector and of_pods and not why_not(selector, workload, labels):\n",
    ),
    "leases-workload-of-another-namespace": _scaling(
        "served",
        "(name.service.namespace, wake)",
        '("shop", wake)',
    ),
    "leases-second-look-isnt-repeated": _scaling(
        "waking",
        "    attempts.again_s = min(2 * attempts.again_s, _AGAIN_MAX_S) or _AGAIN_S\n",
        "    attempts.again_s = _AGAIN_MAX_S * 10\n",
    ),
    "leases-no-event-that-pods-are-needed": _scaling(
        "waking", "        self._source.record(happening)\n", ""
    ),
    "leases-version-isnt-named": _source(
        '    wanted = {**scale, "spec": {"replicas": replicas}}\n',
        '    wanted = {**scale, "spec": {"replicas": replicas}, "metadata": {}}\n',
    ),
    "leases-lost-answer-is-awake": _source(
        "    _log.warning("
        '"%(namespace)s %(workload)s may be scaled to zero: %(cause)s", extra=fields)\n'
        "    return Rest(is_asleep=True)\n",
        "    return Rest()\n",
    ),
    "leases-conflict-is-awake": _source(
        "                    return Rest(is_asleep=not _replicas(present))\n        except",
        "                    return Rest(is_asleep=present is None)\n        except",
    ),
    "leases-several-replicas-rest": _source(
        "            if _replicas(scale) != 1:\n", "            if _replicas(scale) < 1:\n"
    ),
    "leases-wakes-what-runs": _source(
        '        if _replicas(scale) > 0:\n            return ""\n', ""
    ),
    "leases-autoscalers-are-ignored": _source(
        "    if why := autoscaler_of(workload, autoscalers):\n        return why\n", ""
    ),
    "leases-budgets-are-ignored": _source(
        "    return budget_of(_labels(scale), await _list(client, namespace, *_BUDGETS))\n",
        '    return ""\n',
    ),
    "leases-old-workers-have-no-clients": Mutant(
        "scaling",
        "        if self._core.predecessors:\n            return False\n",
        "        return True\n",
        _AGENT,
    ),
    "leases-old-workers-have-drained-at-once": Mutant(
        "scaling",
        "        return now - self._relieved_at >= self._core.options.predecessor_drain_s\n",
        "        return now - self._relieved_at >= 0.0\n",
        _AGENT,
    ),
    "leases-only-usable-endpoints-are-quiesced": Mutant(
        "served_ports",
        "(verdict.address for served in ports for verdict in served.plan.verdicts)",
        "(e for served in ports for e in served.plan.serving.all_endpoints)",
        "agent.rounds",
    ),
    "leases-asked-for-without-need": Mutant(
        "scaling",
        "            if not self._is_wanted():\n",
        "            if self is None:\n",
        _AGENT,
    ),
    "leases-first-failure-ends-the-reports": Mutant(
        "scaling",
        "min(2 * wait_s, _RETRY_S)",
        "10 * _RETRY_S",
        _AGENT,
    ),
}
