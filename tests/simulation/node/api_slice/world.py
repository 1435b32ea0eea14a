"""Carries a plan out, and checks what the source publishes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

from userspace_proxy.cluster import Snapshot
from userspace_proxy.cluster.encoding import StateOwner, decode_state, encode_state
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.base import Happening
from userspace_proxy.sources.kubernetes import (
    KubernetesSource,
    lists,
    node_addresses,
    position,
    reflector,
)
from userspace_proxy.sources.kubernetes.client import LineSplitter
from userspace_proxy.sources.kubernetes.list_body import ListBody
from userspace_proxy.sources.kubernetes.reflector import Timing

from ...control.machine import Machine
from ..api import ApiServer
from ..api_client import Address, SimulatedClient
from ..api_faults import Cut, OldEvent
from ..api_process import ApiProcess
from ..source_world import SourceWorld
from .checks import ORACLES, Checks
from .plan import NODE, Plan, Step
from .reading import Key, stamp
from .recording import RecordingChecks
from .wrong_answers import LISTS, line

__all__ = ["ORACLES", "World"]

# Connecting, the longest wait, and what follows.
_BOUND_S = 40.0
_EVENTS_S = 160.0
_RESPONSE_S = 75.0
_LOOK_S = 5.0
_SOON_S = 1.0
_AGAIN_S = 14.0
# All servers are stopped, etcd is restored, and they start again.
_RESTORE_S = 4.0
_KIND_OF = {
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "pods": "Pod",
}
_OWNER = StateOwner("kubernetes", "http://api.example:6443", NODE, "")
_WRITES = ("put", "put-same", "delete", "touch")


class World(SourceWorld[Machine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        is_traced: Whether to note each step.
    """

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        super().__init__(plan.seed, Machine, is_traced=is_traced)
        self.plan = plan
        self.stamps = 0
        self._looks = 0
        self.items: dict[Key, dict[str, Any]] = {}
        """The last object of each key that was put, also if it was deleted since."""
        self.servers = [self._server() for _ in range(plan.servers)]
        self.address = Address(self.servers, self.rng)
        self.address.checks_health = plan.checks_health
        self.process: ApiProcess | None = None
        self.source: KubernetesSource | None = None
        self.client: SimulatedClient | None = None
        self.published: Snapshot | None = None
        self.last_state: Snapshot | None = None
        """What an agent has published last, which the next one begins with."""
        self.calm_at = self.began + plan.chaos_s
        """Nothing is broken any more from then on."""
        self.down_since: float | None = None
        self.cut_off_since = 0.0
        self.restoring_until = 0.0
        self.wants_nodes = plan.wants_nodes
        self.checks = Checks(self)
        self.recording = RecordingChecks(self)

    def _clock(self) -> float:
        """Return the time, which is another one at each look."""
        self._looks += 1
        return self.now + 1e-6 * self._looks

    def _server(self) -> ApiServer:
        plan = self.plan
        server = ApiServer(self.etcd, self.timeline, self.rng, lag_s=plan.lag_s)
        server.has_watch_cache = plan.has_watch_cache
        server.waits_for_future = plan.waits_for_future
        server.tells_from_now = plan.tells_from_now
        server.expires_by_status = plan.expires_by_status
        server.has_nulls = plan.has_nulls
        server.repeats = plan.repeats
        server.bookmark_s = plan.bookmark_s
        server.piece_max = plan.piece_max
        server.page_max = plan.page_max
        if plan.denies_node:
            server.refuse(403, math.inf, resource="nodes")
        return server

    # -- the run -----------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Part of SourceWorld."""
        for item in self.plan.first_items:
            self._put(item)
        self._start(None)
        for step in self.plan.steps:
            self.timeline.at(self.began + step.at, self._take, step)
        self.timeline.after(_LOOK_S, self._look)
        self.timeline.run_until(self.began + self.plan.chaos_s)
        for server in self.servers:
            server.cuts.clear()
            server.wrong_lists.clear()
            server.old_events.clear()
            server.slow_s = 0.0
        while self.now < self.calm_at + self.bound_s and not self.judgements.violations:
            self.timeline.run_until(self.calm_at + self.bound_s)
        self.checks.check_end()
        watches = self.checks.watches
        self._change_once_more()
        self.timeline.run_until(self.now + self.plan.lag_s + _SOON_S)
        if self.checks.watches != watches or None in watches:
            # A watch began anew meanwhile, perhaps after a list.
            self.timeline.run_until(self.now + _AGAIN_S)
        self.checks.check_end(is_last=True)
        if self.recording.is_used:
            self.timeline.run_until(self.calm_at + _EVENTS_S)
            self.recording.check_end()

    @property
    def bound_s(self) -> float:
        """So long after the last fault everything is published at the latest."""
        bound_s = _BOUND_S + 2 * self.plan.lag_s
        if "stall" in self.plan.features:
            bound_s += max(_RESPONSE_S, self.plan.silence_s, 2 * self.plan.watch_s + 30.0)
        if "shares" in self.plan.features:
            # What was left out is found by the list after a watch; that history went back, too.
            watches = 4 if "restore" in self.plan.features else 2
            bound_s += watches * self.plan.watch_s
        return bound_s

    def _change_once_more(self) -> None:
        for item in self.plan.first_items[:2] or ():
            self._put(item)
        self._put(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "last", "namespace": "shop"},
                "spec": {
                    "clusterIP": "10.96.9.9",
                    "type": "ClusterIP",
                    "selector": {"app": "last"},
                    "ports": [{"name": "p", "port": 1, "protocol": "TCP", "nodePort": 0}],
                    "sessionAffinity": "None",
                    "internalTrafficPolicy": "Cluster",
                    "externalTrafficPolicy": "Cluster",
                },
            }
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Part of SourceWorld."""
        plan = self.plan
        names = [
            *self.address.names(self._make_client),
            (position, "PAGE_LIMIT", plan.page_limit),
            (lists, "BATCH_BYTES", plan.batch_bytes),
            (lists, "ListBody", partial(ListBody, value_bytes_max=plan.line_bytes)),
            (reflector, "LineSplitter", partial(LineSplitter, limit_bytes=plan.line_bytes)),
            (node_addresses, "_PAGE", min(plan.page_limit, 100)),
        ]
        before = [(module, name, getattr(module, name)) for module, name, _ in names]
        logger = logging.getLogger("userspace_proxy.sources")
        was_disabled, logger.disabled = logger.disabled, True
        for module, name, value in names:
            setattr(module, name, value)
        try:
            yield
        finally:
            logger.disabled = was_disabled
            for module, name, value in before:
                setattr(module, name, value)

    # -- the agent's process -----------------------------------------------------------------------

    def _make_client(self) -> SimulatedClient:
        assert self.process is not None, "a process runs"
        self.client = client = self.address.client_for(self.process.loop, NODE)
        return client

    def _start(self, resumed: Snapshot | None) -> None:
        plan = self.plan
        self.process = process = ApiProcess(
            self.machine, f"agent {len(self.machine.processes) + 1}"
        )
        with process:
            self.source = source = KubernetesSource(
                master="http://api.example:6443",
                node_name=NODE if plan.with_node else "",
                namespace=plan.namespace,
                share_bytes=plan.share_bytes,
                endpoints_from_pods=plan.from_pods,
                timing=Timing(watch_s=plan.watch_s, silence_s=plan.silence_s, list_s=plan.list_s),
                rng=Random(plan.seed + 2),
                clock=self._clock,
            )
            if resumed is not None:
                source.resume(resumed)
        assert self.client is not None, "the source has made one"
        self.checks.follow(source, self.client, resumed)
        self.published = None
        process.start(lambda: self._main(source))
        self._want_nodes(self.wants_nodes)

    async def _main(self, source: KubernetesSource) -> int:
        await source.run(self._publish)
        return 0

    def _publish(self, snapshot: Snapshot) -> None:
        self.note(
            f"agent: published {len(snapshot.services)} Services, revision {snapshot.revision}"
        )
        before, self.published = self.published, snapshot
        self.last_state = snapshot
        self.checks.published(before, snapshot)

    def _call(self, callback: Any, *args: Any) -> None:
        """Call something of the source, within its process."""
        assert self.process is not None, "a process runs"
        with self.process:
            callback(*args)

    def _want_nodes(self, is_wanted: bool) -> None:
        self.wants_nodes = is_wanted
        self.checks.node_lists.want(is_wanted=is_wanted)
        assert self.source is not None, "a source runs"
        self._call(self.source.want_nodes, is_wanted)

    # -- steps -------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if step.kind in _WRITES and self.now < self.restoring_until:
            # There is no server to write to.
            self.timeline.at(self.restoring_until + self.rng.random(), self._take, step)
            return
        self.note(f"plan: {step.text}")
        values = step.values
        if step.item is not None:
            self._put(step.item)
            return
        first = values[0] if values and isinstance(values[0], int) else 0
        server = self.servers[first % len(self.servers)]
        actions: dict[str, Callable[[], object]] = {
            "delete": lambda: self._delete(Key(*values)),
            "put-same": lambda: self._put_same(Key(*values)),
            "touch": self.etcd.touch,
            "cut": server.cut,
            "end": server.end_watches,
            "stall": server.stall,
            "silence": lambda: self._silence(server, values[1]),
            "refuse": lambda: self._refuse(server, *values[1:]),
            "cut-answer": lambda: self._cut_answer(server, *values[1:]),
            "wrong-line": lambda: self._send_wrong(server, *values[1:]),
            "wrong-list": lambda: server.answer_lists(values[1], LISTS[values[2]]),
            "old-event": lambda: self._send_old(*values[:2], is_deleted=values[2]),
            "restart": lambda: self._restart(server, *values[1:]),
            "compact": self.etcd.forget_history,
            "restore": lambda: self._restore(*values),
            "partition": lambda: self._partition(values[0]),
            "slow": lambda: self._slow(server, *values[1:]),
            "forget-events": self.recording.forget,
            "happen": lambda: self._happen(*values),
            "want-nodes": lambda: self._want_nodes(values[0]),
            "agent-restart": lambda: self._restart_agent(is_resumed=values[0]),
        }
        actions[step.kind]()

    def _silence(self, server: ApiServer, seconds: float) -> None:
        server.go_silent(seconds)
        self._until(seconds)

    def _until(self, seconds: float) -> None:
        """Note that something is broken for so long."""
        self.calm_at = max(self.calm_at, self.now + seconds)

    def _put(self, item: dict[str, Any]) -> None:
        self.stamps += 1
        made = stamp({k: v for k, v in item.items() if k != "is-invalid"}, self.stamps)
        key = _key_of(item)
        is_invalid = item.get("is-invalid", False)
        self.items[key] = made
        self.checks.written(key, self.stamps, made, is_invalid=is_invalid)
        self.etcd.put(made)

    def _put_same(self, key: Key) -> None:
        item = self.items.get(key)
        if item is None or not self.checks.is_there(key):
            return
        self.stamps += 1
        metadata = item["metadata"]
        annotations = {**metadata.get("annotations", {}), "example.org/touched": str(self.stamps)}
        self.etcd.put({**item, "metadata": {**metadata, "annotations": annotations}})

    def _delete(self, key: Key) -> None:
        if self.checks.is_there(key):
            self.checks.written(key, None, None)
            self.etcd.delete(key.kind, key.name, key.namespace)

    def _cut_answer(self, server: ApiServer, *values: Any) -> None:
        cut = Cut(*values)

        def meanwhile() -> None:
            # They are the first of a list, so its first page has had them.
            kind = _KIND_OF.get(cut.resource)
            for key in [each for each in sorted(self.items) if each.kind == kind][:3]:
                self._delete(key)

        cut.meanwhile = meanwhile
        server.cut_next(cut)

    def _refuse(
        self, server: ApiServer, code: int, seconds: float, resource: str, retry_s: int
    ) -> None:
        server.refuse(code, seconds, resource=resource, retry_after_s=retry_s)
        self._until(seconds + retry_s)

    def _send_wrong(self, server: ApiServer, resource: str, which: str) -> None:
        server.send_to_watches(resource, line(which, self.plan.line_bytes))

    def _send_old(self, resource: str, back: int, *, is_deleted: bool) -> None:
        """Have the next watch of a kind begin with an event older than what was seen."""
        kind, type_ = _KIND_OF[resource], "DELETED" if is_deleted else "MODIFIED"
        keys = [key for key in sorted(self.items) if key.kind == kind]
        for item in [self.items[key] for key in keys if kind != "Node" or key.name == NODE][:1]:
            for server in self.servers:
                server.old_events[resource] = OldEvent(type_, item, back)

    def _restart(self, server: ApiServer, seconds: float, behind: int, behind_s: float) -> None:
        if not server.is_up:
            return
        server.stop()
        if not any(each.is_up for each in self.servers):
            self.down_since = self.now
        self._until(seconds + behind_s)
        self.timeline.after(seconds, self._start_server, server, behind, behind_s)

    def _start_server(self, server: ApiServer, behind: int, behind_s: float) -> None:
        if self.now < self.restoring_until:
            self.timeline.at(self.restoring_until, self._start_server, server, 0, 0.0)
            return
        self.note("server: starts")
        server.start(behind=behind, behind_s=behind_s)
        self.down_since = None

    def _restore(self, count: int, draw: float) -> None:
        seconds = _RESTORE_S * (1 + draw)
        self.restoring_until = max(self.restoring_until, self.now + seconds)
        for server in [each for each in self.servers if each.is_up]:
            server.stop()
            self.timeline.at(self.restoring_until, self._start_server, server, 0, 0.0)
        self.down_since = self.down_since or self.now
        revision = max(1000, self.etcd.revision - count)
        self.checks.restoring()
        self.etcd.go_back(revision)
        self.checks.restored(self.etcd.revision)
        self.items = {_key_of(i): i for i in self._all_items()}
        self._until(seconds)

    def _all_items(self) -> Iterator[dict[str, Any]]:
        for kind in _KIND_OF:
            yield from self.etcd.items(kind)

    def _partition(self, seconds: float) -> None:
        if self.address.cut_off_until(NODE) <= self.now:
            self.cut_off_since = self.now
        self.address.partition(NODE, seconds)
        self._until(seconds)

    def _slow(self, server: ApiServer, seconds: float, slow_s: float) -> None:
        server.slow_s = slow_s
        self.timeline.after(seconds, setattr, server, "slow_s", 0.0)
        self._until(seconds + slow_s)

    def _happen(self, reason: int, number: int) -> None:
        service = None if number == 3 else ServiceKey("shop", f"web-{number}")
        happening = Happening(f"Reason{reason}", "Try", f"note {self.now:.3f}", service)
        assert self.source is not None, "a source runs"
        self.recording.note(happening)
        self._call(self.source.record, happening)

    def _restart_agent(self, *, is_resumed: bool) -> None:
        assert self.process is not None, "a process runs"
        assert self.client is not None, "and has a client"
        resumed = self._read_back(self.last_state) if is_resumed and self.last_state else None
        self.process.die(-9)
        self.process.forget()
        self.client.abort()
        self.recording.note_restart()
        self._until(0.0)
        self._start(resumed)

    def _read_back(self, last: Snapshot) -> Snapshot:
        """Return what a file has of the last state."""
        found = decode_state(encode_state(last, _OWNER), _OWNER)
        mine, its = ((s.services, s.node, s.node_addresses) for s in (last, found))
        self.judgements.check("last state", mine == its, lambda: f"{its}, not {mine}")
        return found

    def _look(self) -> None:
        self.checks.look()
        if not self.is_over:
            self.timeline.after(_LOOK_S, self._look)


def _key_of(item: dict[str, Any]) -> Key:
    metadata = item["metadata"]
    namespace = "" if item["kind"] == "Node" else metadata.get("namespace", "default")
    return Key(item["kind"], namespace, metadata["name"])
