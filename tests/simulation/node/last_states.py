"""The last state on disk: what an agent has written, and whether the next one serves it at once.

Rule 1: what is on disk is what was in force; after an orderly end it is all that was.
Rule 2: an agent that finds a state that it can use serves it without the API server.

The file is read here as JSON, line by line: nothing of the product reads it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .claims import Key
from .plan import Object
from .readings import LABEL_HEADLESS, cluster_ips, is_reserved, is_served, labels_of, name_of
from .truth import Truth

if TYPE_CHECKING:
    from userspace_proxy.facts import StatusFacts

    from ..control.machine import Process
    from .agents import AgentRun
    from .world import World

KEPT, RESTORED, NOT_KEPT = (
    "state kept on disk",
    "last state served",
    "since when a state isn't kept",
)
ORACLES = (KEPT, RESTORED, NOT_KEPT)

FILE = "state.json.gz"
_GZIP = 31
# For the first round with it, when nothing disturbs.
_SERVED_S = 1.0
# In which a stopped process, or a disk that was full, may have kept a write from its time.
_LATE_S = 3.0
# A file is replaced at most so often.
_PERIOD_S = 5.5
_RETRY_S, _RETRY_SOON_S = 30.0, 2.0
# For a write, after that.
_WRITTEN_S = 1.0
# For a thread's answer.
_TOLD_S = 0.5
_NEAR_S = 1e-3


def retry_s(seed: int) -> float:
    """Return how long an agent waits after a write that has failed: in half of the plans as in
    reality, so that an end has to write, and in others so that some writes fail in a row.
    """
    return _RETRY_S if seed % 2 else _RETRY_SOON_S


class LastStates:
    """The state files of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failed_at = float("-inf")
        """When a write has last failed."""
        self._failing: dict[Process | None, tuple[float, float]] = {}
        """By agent whose last write has failed: since when, also in Unix time."""
        self._changed_at = float("-inf")
        """When a write has last failed or succeeded."""
        world.disk.failed = self._note_failure
        world.disk.was_read = self._was_read

    def _note_failure(self) -> None:
        now = self._failed_at = self._changed_at = self._world.timeline.now
        self._failing.setdefault(self._world.machine.current, (now, self._world.unix()))

    def note_kept(self, name: str) -> None:
        """Note that a file is written, or is current again."""
        if name == FILE:
            self._changed_at = self._world.timeline.now
            self._failing.pop(self._world.machine.current, None)

    def check_said(self, run: AgentRun, facts: StatusFacts) -> None:
        """Judge since when an agent says that its state isn't kept: since the first failure."""
        world, said = self._world, facts.last_state
        told_s = _TOLD_S + world.machine.slow_s
        if world.timeline.now - self._changed_at < told_s or world.table.slow_s:
            return
        failing = self._failing.get(run.process)
        if failing is None:
            what = f"the state is kept, and the status has {said.problem!r}"
            world.judgements.check(NOT_KEPT, not said.problem and not said.failing_since, what)
            return
        since, unix = failing
        if since <= world.clock_set_at <= since + told_s:
            world.judgements.excuse(NOT_KEPT, "the clock was set as a write failed")
            return
        late_s = said.failing_since - unix
        what = f"the status has {said.problem!r}, {late_s:.3f} s after a write has failed"
        world.judgements.check(NOT_KEPT, bool(said.problem) and -_NEAR_S < late_s < told_s, what)

    # -- what is kept ------------------------------------------------------------------------------

    def ended(self, run: AgentRun, late_s: float = 0.0) -> None:
        """Judge the file of an agent that ends in order, or is at rest.

        Args:
            late_s: It may lack what has changed in so many seconds.
        """
        world = self._world
        file = world.disk.files.get(FILE)
        if not world.plan.keeps_state or not world.checks.hand_overs.has_served(run):
            return
        why = self._why_not_written(run)
        if why or (file is not None and file.is_torn):
            world.judgements.excuse(KEPT, why or "the file was torn, and is still the last state")
            return
        found = _read(file.data) if file is not None else None
        if found is None:
            world.judgements.violate(KEPT, "there is no file that can be read")
            return
        # Services and their slices arrive on their own ways.
        floor = min(world.freshness.floor(), world.timeline.now - late_s)
        states = list(world.cluster.between(floor, world.timeline.now))
        wrong = list(_differences(found, states))
        has_turns = bool(world.plan.endpoint_s) and not world.is_finishing
        if wrong and has_turns:
            world.judgements.excuse(KEPT, "a part of it waited for its turn")
        else:
            world.judgements.check(KEPT, not wrong, f"the file has {wrong[:3]}")

    def check_rest(self) -> None:
        """Judge the file of an agent for which nothing has changed for long."""
        world, run = self._world, self._world.agent
        if world.machine.violations:
            # The run has stopped there: nothing was written since.
            return
        file = world.disk.files.get(FILE)
        tried_s = retry_s(world.plan.seed) + _WRITTEN_S
        is_tried_again = self._failed_at > world.timeline.now - tried_s
        if run is not None and file is not None and not (file.is_torn or is_tried_again):
            self.ended(run, _PERIOD_S)

    def _why_not_written(self, run: AgentRun) -> str:
        world, now = self._world, self._world.timeline.now
        if world.disk.fails_with or self._failed_at > now - _LATE_S:
            return "the disk is full"
        if run.process.loop.held_until > now - _LATE_S:
            return "the agent was stopped"
        return ""

    # -- what is served ----------------------------------------------------------------------------

    def _was_read(self, name: str) -> None:
        """Follow that an agent has read its last state."""
        world, run = self._world, self._world.agent
        world.reports.was_read(name)
        file = world.disk.files.get(name)
        if name != FILE or run is None or file is None or _read(file.data) is None:
            return
        if world.unix() - file.mtime <= world.plan.settings.state_max_age_s:
            world.timeline.after(_SERVED_S, self._check_served, run, world.table.refused_count)
        elif world.api is not None:
            world.timeline.after(_SERVED_S, self._check_not_served, run, world.timeline.now)

    def _check_served(self, run: AgentRun, refused: int) -> None:
        world, now = self._world, self._world.timeline.now
        if run.process.is_dead or run.is_ending:
            return
        is_served = world.checks.hand_overs.has_served(run)
        count, is_held = world.table.refused_count, run.process.loop.held_until > now - _SERVED_S
        if not is_served and (count != refused or world.table.slow_s or is_held):
            # It tries again.
            world.timeline.after(2 * _SERVED_S, self._check_served, run, count)
        else:
            world.judgements.check(RESTORED, is_served, f"{run.process.name} doesn't serve it")

    def _check_not_served(self, run: AgentRun, read_at: float) -> None:
        """Judge that an agent doesn't serve a state that is too old where it can have no other."""
        world, api = self._world, self._world.api
        if api is None or not api.fails_wholly_since(read_at) or run.process.is_dead:
            return
        is_served = world.checks.hand_overs.has_served(run)
        what = f"{run.process.name} serves a state that is too old"
        world.judgements.check(RESTORED, not is_served, what)


def _read(data: bytes) -> list[dict[str, Any]] | None:
    """Return the lines of a file; None if it isn't complete."""
    reader = zlib.decompressobj(wbits=_GZIP)
    try:
        text = reader.decompress(data)
    except zlib.error:
        return None
    return [json.loads(line) for line in text.splitlines()] if reader.eof else None


def _differences(lines: list[dict[str, Any]], states: list[Truth]) -> Iterator[str]:
    """Yield what a file has that no state had, and what it lacks that each of them had."""
    node, services = lines[1]["node"], lines[2:]
    zones = {truth.zone for truth in states}
    if node is not None and (node["zone"] or "") not in zones:
        yield f"zone {node['zone']}"
    have: dict[tuple[str, ...], object] = {}
    for line in services:
        service = line["service"]
        key = tuple(service["key"])
        have["Service", *key] = _service(
            service["cluster_ips"][:1], service["external_ips"], _ports_of_state(service["ports"])
        )
        for item in line["slices"]:
            have["EndpointSlice", *item["key"]] = frozenset(
                (each["ip"], each["node"], each["ready"]) for each in item["endpoints"]
            )
    each_state = [dict(_objects(truth)) for truth in states]
    odd = {key for truth in states for key in _odd(truth)}
    for key in (have.keys() | each_state[-1].keys()) - odd:
        if key in have:
            if not any(state.get(key) == have[key] for state in each_state):
                yield f"{' '.join(key)}: {have[key]}"
        elif all(key in state for state in each_state):
            yield f"no {' '.join(key)}"


def _objects(truth: Truth) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the Services, and the slices that belong to one, of a state."""
    for key, item in truth.objects.items():
        if key[0] == "Service":
            spec = item["spec"]
            ports = (
                (name_of(p), p["port"], p["protocol"], p.get("nodePort", 0))
                for p in spec.get("ports", ())
            )
            yield key, _service(cluster_ips(item)[:1], spec.get("externalIPs") or (), ports)
        elif key[0] == "EndpointSlice" and _owner(key, item) in truth.objects:
            yield key, frozenset(_endpoints(item["endpoints"]))


def _owner(key: Key, item: Object) -> Key:
    return "Service", key[1], labels_of(item).get("kubernetes.io/service-name", "")


def _odd(truth: Truth) -> Iterator[Key]:
    """Yield Services that aren't served, their slices, and slices whose endpoints aren't usual.

    What is kept of these isn't promised.
    """
    odd = {k for k, item in truth.objects.items() if k[0] == "Service" and not is_served(item)}
    yield from odd
    for key, item in truth.objects.items():
        if key[0] != "EndpointSlice":
            continue
        ends = item.get("endpoints") or ()
        is_own = item.get("addressType") in ("IPv4", "IPv6") and LABEL_HEADLESS not in labels_of(
            item
        )
        is_usual = is_own and all(
            "conditions" in e and len(e["addresses"]) == 1 and not is_reserved(e["addresses"][0])
            for e in ends
        )
        if not is_usual or _owner(key, item) in odd:
            yield key


def _endpoints(endpoints: Iterable[Any]) -> Iterator[tuple[str, str, bool]]:
    for each in endpoints:
        ready = each["conditions"].get("ready")
        yield each["addresses"][0], each.get("nodeName", ""), ready is None or ready


def _ports_of_state(ports: Iterable[Any]) -> Iterator[tuple[str, int, str, int]]:
    for port in ports:
        yield port["name"], port["port"], port["protocol"], port["node_port"]


def _service(ips: Iterable[str], more: Iterable[str], ports: Iterable[object]) -> object:
    return frozenset(ips), frozenset(more), frozenset(ports)
