"""Publishes snapshots of the Services of a Kubernetes API server.

Rule 1: the source publishes once each resource was listed, except a Node that is forbidden.
Rule 2: all changes in one iteration of the event loop are one snapshot.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from ...clocks import Clocks
from ...cluster import Snapshot, Store
from ...cluster.from_pods import PodEndpoints
from ...facts import RejectedFacts
from ...facts.units import format_bytes, plural
from ...log_fields import FieldLogger
from ...log_limit import EVERY_S
from ...model import Workload
from ...model.quoting import shown
from ..base import Agree, Happening, May, Pause, Publish, ScaleDown, Source, SourceStatus, pause
from .client import ApiClient
from .credentials import SERVICE_ACCOUNT, Credentials
from .kubeconfig_files import Kubeconfig
from .leases import KubernetesLeases
from .node_addresses import NodeAddressLister, describe_missing
from .recorder import Recorder
from .reflector import Reflector, Timing
from .resources import ResourceCache, inside, resources_of, this_node
from .scaling import scale_from_zero, scale_to_zero
from .shares import SHARE_BYTES, ObjectShares

_log = FieldLogger("userspace_proxy.sources")

_SERVER = "cannot read cluster state: %(cause)s", "API server problems resolved"
_OBJECTS = "object not applied: %(cause)s", "object problems resolved"
OBJECT_PROBLEMS_MAX = 20
"""The maximum number of unreadable objects that are reported one by one; others are counted."""


class KubernetesSource(Source):
    """A source that lists and watches Services, EndpointSlices and this node's object.

    If the Node doesn't exist, as during a node's first boot, snapshots contain it as missing.

    Args:
        kubeconfig: A kubeconfig file, or several; empty for none.
        master: The server's URL, which overrides the kubeconfig's URL. If both are empty: this
            pod's server, with its service account.
        node_name: This node's name; empty to watch no Node.
        with_headless: Also read EndpointSlices of headless Services, and host names, which only DNS
            and port-forwards use.
        endpoints_from_pods: Also read Pods, and derive the endpoints of Services with a selector
            from them, as controllers would; their EndpointSlices are ignored.
        with_pods: Mark endpoints whose target can't be a pod, for port-forwards.
        namespace: The only namespace to read; empty for all namespaces.
        service_account: The folder with a pod's token and the server's certificate authority.
        share_bytes: The maximum memory of one kind's objects in each namespace, in bytes.
    """

    kind = "kubernetes"

    def __init__(
        self,
        *,
        kubeconfig: str | Kubeconfig = "",
        master: str = "",
        node_name: str = "",
        with_headless: bool = False,
        endpoints_from_pods: bool = False,
        with_pods: bool = False,
        namespace: str = "",
        service_account: Path = SERVICE_ACCOUNT,
        share_bytes: int = SHARE_BYTES,
        timing: Timing | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
    ) -> None:
        self._credentials = Credentials(
            kubeconfig=kubeconfig, master=master, service_account=service_account
        )
        self.location = self._credentials.location
        self.client = ApiClient(self._credentials, clock=clock)
        """The client, open while the source runs."""
        self._store = Store()
        self._pods = (
            PodEndpoints(self._store, with_headless=with_headless) if endpoints_from_pods else None
        )
        every = resources_of(with_headless=with_headless, with_pods=with_pods, pods=self._pods)
        resources = [inside(resource, namespace) for resource in every]
        self._required = len(resources)
        """The number of required resources, which come first: nothing is published without them."""
        self._node_name, self._lacks_node = node_name, asyncio.Event()
        if node_name:
            resources.append(this_node(node_name))
        self._share_bytes = share_bytes
        self._caches = [ResourceCache(r, self._store, ObjectShares(share_bytes)) for r in resources]
        follow = functools.partial(
            Reflector,
            client=self.client,
            changed=self._changed,
            recovered=self._recovered,
            timing=timing or Timing(),
            rng=rng or random.Random(),
            clock=clock,
            pause=pause,
        )
        self._reflectors = [follow(cache) for cache in self._caches]
        self._recorder = Recorder(self.client, node_name, self._store.uid_of, clock=clock)
        self._node_addresses = NodeAddressLister(self.client, self._set_node_addresses, pause=pause)
        self._publish: Publish | None = None
        self._published: Snapshot | None = None
        self._is_scheduled = False
        self._problems: tuple[str, ...] = ()
        self._rejected: tuple[RejectedFacts, ...] = ()
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        """When each problem of the last minute was logged, in seconds of the source's clock."""
        self._in_log: dict[str, str] = {}
        """Problems that were logged, but whose end wasn't, with the message that logs their end."""

    @property
    def identity(self) -> str:
        return self._credentials.cluster

    def check(self) -> None:
        self._credentials.check()

    def resume(self, snapshot: Snapshot) -> None:
        self._store.resume(snapshot)
        services, slices, *_ = self._caches
        services.resume(snapshot.services)
        slices.resume(item.key for state in snapshot.services.values() for item in state.slices)
        if self._pods is not None:
            self._pods.resume(snapshot)

    async def run(self, publish: Publish) -> None:
        """Read and publish until cancelled; see :meth:`.Source.run`.

        Raises:
            SourceError: The kubeconfig, or the pod's service account, can't be used.
        """
        await self.client.open()
        self.location = self.client.url
        self._publish, self._published = publish, None
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._reflectors:
                    group.create_task(reflector.run())
                group.create_task(self._recorder.run())
                group.create_task(self._node_addresses.run())
                group.create_task(self._describe_node())
        finally:
            self._publish = None
            await self.client.close()

    def record(self, happening: Happening) -> None:
        """Queue a Kubernetes Event for sending."""
        self._recorder.record(happening)

    async def wake(self, namespace: str, workload: Workload, may: May) -> str:
        if self._publish is None:
            return f"cannot scale {workload}: there is no connection to the API server yet"
        return await scale_from_zero(self.client, namespace, workload, may)

    async def scale_down(
        self, namespace: str, workload: Workload, may: May, agree: Agree
    ) -> ScaleDown:
        if self._publish is None:
            return ScaleDown()
        return await scale_to_zero(self.client, namespace, workload, may, agree)

    def leases(self, node_name: str, prefix: str) -> KubernetesLeases:
        return KubernetesLeases(
            self.client, node_name, prefix, is_open=lambda: self._publish is not None
        )

    def want_nodes(self, is_wanted: bool) -> None:
        self._node_addresses.want(is_wanted)

    def status(self) -> SourceStatus:
        is_synced = self._published is not None
        required, node = self._reflectors[: self._required], self._reflectors[self._required :]
        # A missing permission to read the Node doesn't make Services outdated.
        failing = [
            *(r.problem_since for r in required if r.problem),
            *(r.problem_since for r in node if r.problem and not r.is_forbidden),
        ]
        return SourceStatus(
            is_synced=is_synced,
            is_current=is_synced and not failing,
            behind_s=self._clock() - min(failing) if is_synced and failing else 0.0,
            problems=self._problems,
            restarts=sum(reflector.restarts for reflector in self._reflectors),
            rejected=self._rejected,
        )

    def _set_node_addresses(self, addresses: frozenset[str] | None) -> None:
        self._store.set_node_addresses(addresses)
        self._changed()

    async def _describe_node(self) -> None:
        """Find similar node names whenever this node has no Node object."""
        while True:
            await self._lacks_node.wait()
            node = await describe_missing(self.client, self._node_name)
            self._lacks_node.clear()
            if not self._caches[-1].has_objects:
                self._store.set_node(node)
                self._changed()

    def _recovered(self) -> None:
        """Wake all reflectors, because one of them has reached the server again."""
        for reflector in self._reflectors:
            reflector.wake()

    def _changed(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._update)

    def _update(self) -> None:
        """Publish the changes of one iteration, once everything is listed; log new problems."""
        self._is_scheduled = False
        if self._publish is None:
            return
        self._report()
        # The Node is optional: without permission to read it, Services are served, even if the next
        # response about it is another error.
        required, node = self._reflectors[: self._required], self._reflectors[self._required :]
        is_listed = all(reflector.is_listed for reflector in node)
        # Don't wait for the other lists: a Node that is found missing later changes all plans.
        if node and is_listed and self._store.node is None and not self._caches[-1].has_objects:
            self._lacks_node.set()
        if not all(reflector.is_listed for reflector in required):
            return
        is_node_known = all(reflector.is_listed or reflector.is_forbidden for reflector in node)
        if self._published is None and not is_node_known:
            return
        if self._pods is not None:
            self._pods.settle()
        snapshot = self._store.snapshot()
        if snapshot is not self._published:
            self._published = snapshot
            self._publish(snapshot)

    def _report(self) -> None:
        self._rejected = (*self._left_out(), *self._unread())
        # Report a cause that affects all resources as one line.
        of_server = dict.fromkeys(r.problem for r in self._reflectors if r.problem)
        problems = (*of_server, *(item.line for item in self._rejected))
        now = self._clock()
        # The problem of a watch that is repeatedly interrupted begins and ends each time, so log it
        # at most once a minute.
        recent = {line: at for line, at in self._logged_at.items() if now - at < EVERY_S}
        news = [line for line in problems if line not in self._in_log and line not in recent]
        for line in news:
            text, end = _SERVER if line in of_server else _OBJECTS
            _log.warning(text, extra={"cause": line})
            self._in_log[line] = end
        lasting = {(_SERVER if line in of_server else _OBJECTS)[1] for line in problems}
        for end in sorted({*self._in_log.values()} - lasting):
            _log.info(end, extra={"server": self.location})
        self._logged_at = {**recent, **dict.fromkeys(news, now)}
        kept = (line for line in (*problems, *self._logged_at) if line in self._in_log)
        self._in_log = {line: end for line in kept if (end := self._in_log[line]) in lasting}
        self._problems = problems

    def _left_out(self) -> Iterator[RejectedFacts]:
        """Yield a finding for each kind and namespace whose objects exceed its share of memory."""
        for cache in self._caches:
            for namespace, left_out in cache.left_out():
                # Round the numbers, because each changed line is logged.
                count, size = (1 << max(0, n.bit_length() - 1) for n in left_out)
                objects = plural(count, cache.resource.kind)
                yield RejectedFacts.at(
                    f"namespace {shown(namespace)}",
                    f"at least {objects} with {format_bytes(size)} of JSON left out, because the "
                    f"others take {format_bytes(self._share_bytes)} (delete some, and limit "
                    "their number by a ResourceQuota)",
                )

    def _unread(self) -> list[RejectedFacts]:
        first = (one for c in self._caches for one in c.first_rejected(OBJECT_PROBLEMS_MAX))
        objects = list(itertools.islice(first, OBJECT_PROBLEMS_MAX))
        more = sum(len(cache.rejected) for cache in self._caches) - OBJECT_PROBLEMS_MAX
        if more > 0:
            objects.append(RejectedFacts(f"… and {more} more objects that can't be read"))
        return objects
