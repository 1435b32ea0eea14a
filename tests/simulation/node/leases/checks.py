"""What must hold of nodes that put workloads to rest together.

Rule 1: a client loses no endpoint: none is led to a pod between a node's answer and the time at
which the workload serves again, and pods end without clients.
Rule 2: an excuse belongs to one event, and is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from userspace_proxy.model import ServiceKey
from userspace_proxy.model.serving import Serving
from userspace_proxy_testing.fakes.api_objects import WatchEvent

from ..api_exchange import Exchange
from .clients import CONNECTED, DIALLING, DONE, WAITING, Client, named
from .known import Known
from .scale_checks import ORACLES as ORACLES_OF_SCALES
from .scale_checks import ScaleChecks
from .sum_checks import ORACLES as ORACLES_OF_SUMS
from .sum_checks import SumChecks
from .truth import NAMESPACE, Answer, Asked, Wish, answer_of, asked_by, holder_of
from .wait_checks import ORACLES as ORACLES_OF_WAITS
from .wait_checks import WaitChecks
from .workloads import ENDING, GONE, READY, Pod, Workload

if TYPE_CHECKING:
    from .agents import SimulatedNode
    from .workers import Worker, WorkerPort
    from .world import World

ORACLES = (
    *ORACLES_OF_SCALES,
    *ORACLES_OF_SUMS,
    *ORACLES_OF_WAITS,
    "no client while asleep",
    "no client while promised",
    "served while promised",
    "served while asleep",
    "answer is true",
    "answer is on disk",
    "lost client",
    "one holder",
    "end of a round",
    "no request without need",
    "rest",
    "Event of what keeps awake",
)
_DELETED = "its Service was deleted"
# An answer holds for 20 s since a node began to quiesce, which is after the round began.
_PROMISE_S = 20.0
# So long a holder counts answers.
_ANSWERS_S = 8.0
# Until a holder has seen an answer, and has ended its round.
_ENDED_S = 4.0
# Until a node knows of a pod that is listed.
_LISTED_S = 5.0
# Waking is put off for 10 s while pods are listed as ready, and repeated after 5 s.
_STAYS_S = 15.0
_DURATION_S = 45.0


@dataclass(slots=True)
class Sleep:
    """A workload that a node has put to rest."""

    since: float
    began: float
    """When its round began."""
    pods: set[Pod]
    """Those of then."""
    services: frozenset[str]
    """Those that all nodes were asked about."""
    is_woken: bool = False
    is_theirs: bool = False
    """Someone else has scaled it since."""


@dataclass(slots=True)
class Promise:
    """What a node has answered about a Service."""

    number: str
    at: float
    """When the round began."""
    pods: set[Pod]
    """To which it leads no client."""


class Checks:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known = Known(world)
        self.asleep: dict[Workload, Sleep] = {}
        self.promises: dict[tuple[str, str], Promise] = {}
        """By node and Service."""
        self.rounds_at: dict[str, float] = {}
        """When each round began, by its number."""
        self.failed_at: dict[str, float] = {}
        """When a node has answered first that a Service has a client, by the round's number."""
        self.answers: dict[str, Answer] = {}
        self.excused: dict[Client, str] = {}
        """Clients that may be at a pod that ends, and why."""
        self.blind_since: dict[str, float] = {}
        """When the agent of a node has forgotten what it promised."""
        self._held: tuple[str, float] = ("", world.began)
        """The last holder, and when it wrote last."""
        self.scales = ScaleChecks(self, world)
        self.sums = SumChecks(self, world)
        self.waits = WaitChecks(self, world)
        world.workloads.scaling = self._scaling
        world.workloads.changed = self._changed
        world.workloads.ending = self._ending
        world.etcd.written.append(self._written)

    def judge(
        self, oracle: str, is_right: bool, what: str, excuses: Mapping[str, bool] | None = None
    ) -> bool:
        """Count a judgement, or an excuse if it is wrong; return whether it is right."""
        judgements = self.world.judgements
        if is_right:
            judgements.right(oracle)
            return True
        for reason, holds in (excuses or {}).items():
            if holds:
                judgements.excuse(oracle, reason)
                return False
        judgements.violate(oracle, what)
        return False

    # -- what happens ------------------------------------------------------------------------------

    def asked(self, exchange: Exchange) -> None:
        """Follow a request of a node."""
        path = exchange.path.rpartition("/namespaces/")[2]
        self.world.note(f"agent {exchange.client.node}: {exchange.method} {path}")
        if "/leases" in exchange.path:
            text = f"{exchange.client.node} asks for Leases, and no Service names a workload"
            self.judge("no request without need", self.known.names_workloads, text)

    def started(self, node: SimulatedNode) -> None:
        """Note that an agent starts."""
        if not self.world.plan.keeps_files or self.known.has_changed(f"files {node.name}", 60.0):
            self.forget(node.name)

    def forget(self, node: str) -> None:
        """Note that a node's agent doesn't know what it has promised."""
        self.blind_since[node] = self.world.now
        for key in [key for key in self.promises if key[0] == node]:
            del self.promises[key]

    def is_blind(self, node: str, since: float) -> bool:
        """Return whether a node's agent doesn't know what was promised before a time.

        One that starts 20 s after its node's promise doesn't know it, either.
        """
        forgot = self.blind_since.get(node, float("-inf")) >= since - 20.0
        return forgot or self.world.node(node).started_at > since + _PROMISE_S - 12.0

    def look(self) -> None:
        """Judge what must have happened by now."""
        self.waits.look()
        self.sums.look()
        self._look_at_round()

    def _look_at_round(self) -> None:
        """Judge that a round ends once a node hasn't agreed, or hasn't answered."""
        lease, now = self.lease("holder"), self.world.now
        asked = asked_by(lease)
        began = self.rounds_at.get(asked.number)
        if asked.is_over or began is None or self.known.calm_at > began:
            return
        holder = self.world.node(holder_of(lease).partition("_")[0])
        if not holder.is_running or holder.started_at > began:
            return
        since = self.failed_at.get(asked.number, began + _ANSWERS_S)
        text = f"{holder.name} hasn't ended the round of {named(sorted(asked.services))}"
        text = f"{text} {now - since:.1f} s after it has failed"
        self.judge("end of a round", now - since < _ENDED_S, text)

    def serves(self, node: str, service: ServiceKey, serving: Serving) -> None:
        """Judge what a worker is about to be told."""
        key, ends = f"{service.namespace}/{service.name}", {end.ip for end in serving.endpoints}
        promise = self._promise(node, key)
        if promise is not None:
            led = ends & {pod.ip for pod in promise.pods}
            text = f"{node} serves {service} by {led}, and has promised not to"
            self.judge("served while promised", not led, text)
        for workload, sleep in self.asleep.items():
            led = ends & {pod.ip for pod in sleep.pods if pod.state != GONE}
            if key in sleep.services and not sleep.is_woken:
                text = f"{node} serves {service} by {led} of {workload}, which rests"
                excuses = {
                    "its agent doesn't know": self.is_blind(node, sleep.since),
                    "its Service has changed": self.known.has_changed(key),
                    "slices were behind": all(
                        self._is_unlisted(self.world.workloads.pods[ip], sleep) for ip in led
                    ),
                }
                self.judge("served while asleep", not led, text, excuses)

    def _is_unlisted(self, pod: Pod, sleep: Sleep) -> bool:
        """Return whether nodes didn't know of a pod when they were asked."""
        return pod.known_at > sleep.began - self.world.plan.lag_s - 0.5

    def _seems_to_stay(self, pod: Pod, sleep: Sleep, service: str) -> bool:
        """Return whether a pod that ends looks like one that stays, as its workload was woken.

        It is listed as ready all the time that waking may be put off, and at the next attempt.
        """
        if not sleep.is_woken or self.world.now - sleep.since < _STAYS_S:
            return False
        namespace, _, name = service.partition("/")
        item = self.world.etcd.objects.get("endpointslices", f"{name}-1", namespace)
        listed = item["endpoints"] if item is not None else ()
        return any(e["addresses"] == [pod.ip] and e["conditions"]["ready"] for e in listed)

    # -- Leases ------------------------------------------------------------------------------------

    def lease(self, name: str) -> Mapping[str, Any] | None:
        return self.world.etcd.objects.get("leases", name, NAMESPACE)

    def _written(self, event: WatchEvent | None) -> None:
        if event is None or event.resource != "leases":
            return
        name = event.object["metadata"]["name"]
        if name == "holder":
            self._follow_holder(event.object)
        elif event.type != "DELETED":
            self._follow_node(name.removeprefix("node."), event.object)

    def _follow_holder(self, lease: Mapping[str, Any]) -> None:
        now, asked, identity = self.world.now, asked_by(lease), holder_of(lease)
        if asked.number and asked.number not in self.rounds_at:
            self.rounds_at[asked.number] = now
            self.world.round_began(len(self.rounds_at))
        before, at = self._held
        if before and identity != before:
            text = f"{identity} takes the Lease {now - at:.3f} s after {before} has written it"
            self.judge("one holder", now - at >= _DURATION_S, text)
        self._held = identity, now
        for key, promise in list(self.promises.items()):
            if asked.number != promise.number or asked.is_over:
                del self.promises[key]
        if asked.is_over and self.waits.released(asked):
            self._follow_doubt(asked)

    def _follow_doubt(self, asked: Asked) -> None:
        """Follow that a workload is taken for asleep which may not be: its update had no answer."""
        now = self.world.now
        for workload in self.world.workloads.all.values():
            names = {wish.key for wish in self.known.rights(workload).asked}
            began = self.rounds_at.get(asked.number, now)
            sleep = self.asleep.get(workload)
            if names & asked.services and (sleep is None or sleep.since < began):
                pods = _not_ending(workload)
                self.asleep[workload] = Sleep(now, began, pods, asked.services, is_woken=True)

    def _follow_node(self, node: str, lease: Mapping[str, Any]) -> None:
        answer = answer_of(lease)
        if answer.number == self.answers.get(node, Answer("", frozenset())).number:
            return
        self.answers[node] = answer
        world, asked = self.world, asked_by(self.lease("holder"))
        began = self.rounds_at.get(answer.number, float("-inf"))
        is_asked = asked.number == answer.number and not asked.is_over
        if not is_asked or world.now > began + _ANSWERS_S:
            # One that comes late counts for nothing.
            return
        if not asked.services <= answer.services:
            self.failed_at.setdefault(answer.number, world.now)
        for service in sorted(answer.services):
            served = [
                client
                for client in world.clients
                if client.state == CONNECTED and (client.node, client.service) == (node, service)
            ]
            clients = named(served)
            text = f"{node} answers that {service} has no client, and has {clients}"
            excuses = {
                "it has come since": all(map(self._is_at_new_pod, served)),
                _DELETED: all(map(self.is_of_deleted, served)),
            }
            self.judge("answer is true", not served, text, excuses)
            if pods := set(self._pods_of(service)):
                self._check_disk(node, answer, service)
            self.promises[node, service] = Promise(answer.number, began, pods)

    def _check_disk(self, node: str, answer: Answer, service: str) -> None:
        """Judge that a promise is on disk before it is given."""
        if self.world.plan.keeps_files:
            file = self.world.node(node).disk.files.get("promises.json")
            kept = json.loads(file.data) if file is not None else {}
            is_kept = kept.get("round") == answer.number and service in kept["endpoints"]
            text = f"{node} answers about {service}, and {file} doesn't say so"
            self.judge("answer is on disk", is_kept, text)

    def _is_at_new_pod(self, client: Client) -> bool:
        return client.pod is not None and self.world.now - client.pod.listed_at < _LISTED_S

    def _pods_of(self, service: str) -> Iterable[Pod]:
        """Yield the pods of a Service that nodes know."""
        namespace, _, name = service.partition("/")
        item = self.world.etcd.objects.get("endpointslices", f"{name}-1", namespace)
        for endpoint in item["endpoints"] if item is not None else ():
            pod = self.world.workloads.pods[endpoint["addresses"][0]]
            if self.world.now - pod.listed_at >= _LISTED_S:
                yield pod

    def _promise(self, node: str, service: str) -> Promise | None:
        """Return what a node has promised about a Service, while it holds for sure."""
        promise = self.promises.get((node, service))
        if promise is None or self.world.now - promise.at >= _PROMISE_S:
            return None
        return None if self.known.has_changed(service) else promise

    # -- workloads ---------------------------------------------------------------------------------

    def _scaling(self, workload: Workload, to: int, by: str) -> None:
        self.scales.scaling(workload, to, by)
        if to == 0:
            asked = asked_by(self.lease("holder"))
            now, pods = self.world.now, _not_ending(workload)
            began = self.rounds_at.get(asked.number, now)
            self.asleep[workload] = Sleep(now, began, pods, asked.services)

    def _changed(self, workload: Workload) -> None:
        sleep = self.asleep.get(workload)
        if sleep is None or sleep.since == self.world.now:
            return
        if workload.replicas == 0:
            # Someone else has scaled it.
            del self.asleep[workload]
        else:
            sleep.is_woken = True

    def someone_scales(self, workload: Workload) -> None:
        """Note that someone else scales a workload: its pods are theirs, if it has been woken."""
        if workload in self.asleep and self.asleep[workload].is_woken:
            self.asleep[workload].is_theirs = True

    def someone_ends(self, pod: Pod) -> None:
        """Note that someone else ends a pod."""
        for sleep in self.asleep.values():
            sleep.pods.discard(pod)

    def _ending(self, pod: Pod) -> None:
        lost = [c for c in self.world.clients if c.state == CONNECTED and c.pod is pod]
        sleep = self.asleep.get(pod.workload)
        if sleep is not None and pod in sleep.pods and not sleep.is_theirs:
            for client in lost:
                wish = self.known.wishes.get(client.service)
                selects = wish is not None and wish.selects(dict(pod.workload.spec.labels))
                excuses = {
                    self.excused.get(client, ""): client in self.excused,
                    # Only those that do keep it awake.
                    "its Service selects other pods now": wish is not None and not selects,
                }
                self.judge("lost client", False, f"{client} at {pod}", excuses)
            if not lost:
                self.judge("lost client", True, "")
        for client in lost:
            if client.worker is not None:
                client.worker.leave(client)

    # -- clients -----------------------------------------------------------------------------------

    def last_use(self, wish: Wish, began: float) -> tuple[float, Client | None]:
        """Return when a Service was used last before a time, and by which client.

        A new endpoint counts as a client.
        """
        last, by = float("-inf"), None
        for client in self.world.clients:
            if client.service != wish.key or not 0.0 < client.needs_since < began:
                continue
            until = client.since if client.state == DONE else self.world.now
            if until > last:
                last, by = until, client
        newest = self.newest_pod(wish.key)
        return (last, by) if last >= newest else (newest, None)

    def newest_pod(self, service: str) -> float:
        """Return when a slice of a Service had a new pod last."""
        listed = [pod.listed_at for pod in self._pods_of(service)]
        return max(listed, default=float("-inf"))

    def port_closed(self, worker: Worker, port: WorkerPort) -> None:
        """Note that a worker has closed a port: no one counts connections of a deleted Service.

        Source: docs/scale-to-zero.md.
        """
        for client in self.world.clients:
            is_here = (client.worker, client.service) == (worker, port.service)
            is_dialled = is_here and client.state in (CONNECTED, DIALLING)
            since = client.needs_since - _LISTED_S
            if is_dialled and self.known.was_deleted(port.service, since):
                self.excused.setdefault(client, _DELETED)

    def is_of_deleted(self, client: Client) -> bool:
        """Return whether a client's Service was deleted since it has come."""
        return self.excused.get(client) == _DELETED

    def is_of_dead_agent(self, client: Client) -> bool:
        """Return whether a client's worker reports to no one."""
        return client.worker is not None and client.worker.plane is None

    def excuses_of(self, client: Client) -> dict[str, bool]:
        """Return why a client's connection may be unknown to all that are asked."""
        is_there = self.world.etcd.objects.get("nodes", client.node, "") is not None
        return {
            self.excused.get(client, ""): client in self.excused,
            "its Node was deleted": not is_there
            or self.known.has_changed(f"node {client.node}", 60.0),
        }

    def _waits(self, client: Client) -> None:
        """Count that a client isn't led to pods that may be about to end."""
        if self._promise(client.node, client.service) is not None:
            self.judge("no client while promised", True, "")
        for workload, sleep in self.asleep.items():
            if client.service in sleep.services and sleep.pods.intersection(workload.pods):
                self.judge("no client while asleep", True, "")

    def moved(self, client: Client, before: str) -> None:
        """Judge what a client sees."""
        self.waits.moved(client, before)
        if client.state == WAITING:
            self._waits(client)
        if client.state != CONNECTED or client.pod is None:
            return
        pod = client.pod
        promise = self._promise(client.node, client.service)
        if promise is not None:
            is_led = pod in promise.pods
            text = f"{client} is led to {pod}, and {client.node} has promised not to"
            self.judge("no client while promised", not is_led, text)
        sleep = self.asleep.get(pod.workload)
        if sleep is None or pod not in sleep.pods:
            return
        excuses = {
            "its agent doesn't know": self.is_blind(client.node, sleep.since),
            "slices were behind": self._is_unlisted(pod, sleep),
            "slices haven't followed since": self._seems_to_stay(pod, sleep, client.service),
            "its Service wasn't asked about": client.service not in sleep.services,
            "its Service has changed": self.known.has_changed(client.service),
            **self.excuses_of(client),
        }
        is_right = sleep.is_woken and pod.state == READY
        text = f"{client} is led to {pod} of {pod.workload}, which rests"
        if not self.judge("no client while asleep", is_right, text, excuses):
            self.excused[client] = next((r for r, holds in excuses.items() if holds), "")


def _not_ending(workload: Workload) -> set[Pod]:
    """Return the pods that a scale to zero would end: the others are already on their way out."""
    return {pod for pod in workload.pods if pod.state != ENDING}
