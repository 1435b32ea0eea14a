"""Defines the resources to read, and a cache that keeps the objects of one resource in the store.

Rule 1: an unreadable object affects no other object, and its last valid version stays.
Rule 2: a list is applied as a difference: unchanged objects stay in place, and objects missing from
the complete list are deleted at its end.
Rule 3: objects beyond a namespace's share are omitted and counted (``shares``).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...cluster import Store
from ...cluster.from_pods import PodEndpoints
from ...facts import RejectedFacts
from ...facts.node import NO_OBJECT, ObjectKey
from ...model import ServiceKey, SliceKey
from ...model.pod_endpoints import (
    PodKey,
    read_pod,
    read_selection,
)
from ...model.reading import LABEL_SERVICE_NAME, read_node, read_slice
from ...model.service_reading import read_service
from ...model.wire import (
    FieldError,
    Metadata,
    WireEndpointSlice,
    WireHead,
    WireNode,
    WirePod,
    WireService,
    decode,
)
from .api_paths import join
from .shares import (
    NAME_BYTES,
    NOTHING,
    OBJECT_BYTES,
    PART_BYTES,
    SERVICE_BYTES,
    Excess,
    Key,
    ObjectShares,
)


class _HasMetadata(Protocol):
    @property
    def metadata(self) -> Metadata: ...


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: the path of its list, and the functions that store its objects."""

    kind: str
    """The kind, such as ``Service``."""
    name: str
    """The name in paths, such as ``services``."""
    path: str
    wire: type[Any]
    put: Callable[[Store, Any], None]
    """Parses a decoded object into the store; may raise FieldError."""
    delete: Callable[[Store, Key], None]
    query: Mapping[str, str] = field(default_factory=dict)
    """Selectors that restrict lists and watches."""
    weigh: Callable[[Any], int] = lambda _: OBJECT_BYTES
    """Returns the approximate size of a decoded object in memory, in bytes."""
    in_namespaces: bool = True

    @property
    def path_of_one(self) -> str:
        """The path at which listing one object by name is cheap for the server.

        Across all namespaces, the server would visit each object.
        """
        if not self.in_namespaces or "/namespaces/" in self.path:
            return self.path
        return inside(self, "default").path


def _weight(*parts: Sized | None) -> int:
    return OBJECT_BYTES + PART_BYTES * sum(len(part) for part in parts if part)


def _weigh_service(wire: WireService) -> int:
    spec = wire.spec
    if spec is None:
        return SERVICE_BYTES + _weight()
    balancer = wire.status.load_balancer if wire.status else None
    return SERVICE_BYTES + _weight(
        spec.ports,
        spec.selector,
        spec.cluster_ips,
        spec.external_ips,
        spec.load_balancer_source_ranges,
        balancer.ingress if balancer else None,
    )


def _weigh_slice(wire: WireEndpointSlice) -> int:
    # A host name is stored four times: once in the endpoint, and three times in indexes for DNS.
    names = (len(one.node_name or "") + 4 * len(one.hostname or "") for one in wire.endpoints or ())
    long = sum(max(0, length - NAME_BYTES) for length in names)
    return _weight(wire.endpoints, wire.ports) + long


def _weigh_pod(wire: WirePod) -> int:
    containers = wire.spec.containers if wire.spec else None
    ports = (one.ports for one in containers or ())
    ips = wire.status.pod_ips if wire.status else None
    return _weight(wire.metadata.labels, containers, ips, *ports)


# Unlike kube-proxy, this also lists Services and slices that have no listener (headless, or of
# another service proxy): the status page shows why they have none.
SERVICES = Resource(
    kind="Service",
    name="services",
    path="/api/v1/services",
    wire=WireService,
    put=lambda store, wire: store.put_service(read_service(wire)),
    delete=lambda store, key: store.delete_service(ServiceKey(*key)),
    weigh=_weigh_service,
)


def slices(
    *, with_headless: bool = False, with_pods: bool = False, pods: PodEndpoints | None = None
) -> Resource:
    """Return the resource of EndpointSlices.

    Args:
        with_headless: Include slices of headless Services, and host names, which only DNS and
            port-forwards use.
        with_pods: Mark endpoints whose target can't be a pod, for port-forwards.
        pods: Receives the slices instead of the store.
    """

    def put(store: Store, wire: WireEndpointSlice) -> None:
        item = read_slice(wire, with_headless=with_headless, with_pods=with_pods)
        (pods or store).put_slice(item)

    def delete(store: Store, key: Key) -> None:
        (pods or store).delete_slice(SliceKey(*key))

    return Resource(
        kind="EndpointSlice",
        name="endpointslices",
        path="/apis/discovery.k8s.io/v1/endpointslices",
        wire=WireEndpointSlice,
        put=put,
        delete=delete,
        weigh=_weigh_slice,
    )


SLICES = slices()


def inside(resource: Resource, namespace: str) -> Resource:
    """Return a resource restricted to one namespace; unrestricted if the name is empty."""
    if not namespace:
        return resource
    start, _, name = resource.path.rpartition("/")
    return replace(resource, path=join(start, "namespaces", namespace, name))


def resources_of(
    *, with_headless: bool, with_pods: bool = False, pods: PodEndpoints | None
) -> list[Resource]:
    """Return a source's resources: Services, slices and, for endpoints from Pods, Pods.

    Args:
        with_headless, with_pods: As for :func:`slices`.
        pods: Receives all objects, and puts them into the store; None to read no Pods.
    """
    if pods is None:
        return [SERVICES, slices(with_headless=with_headless, with_pods=with_pods)]
    return [
        replace(
            SERVICES,
            put=lambda _, wire: pods.put_service(read_service(wire), read_selection(wire)),
            delete=lambda _, key: pods.delete_service(ServiceKey(*key)),
        ),
        slices(with_headless=with_headless, with_pods=with_pods, pods=pods),
        Resource(
            kind="Pod",
            name="pods",
            path="/api/v1/pods",
            wire=WirePod,
            put=lambda _, wire: pods.put_pod(read_pod(wire)),
            delete=lambda _, key: pods.delete_pod(PodKey(*key)),
            weigh=_weigh_pod,
        ),
    ]


def this_node(name: str) -> Resource:
    """Return the resource that contains only this node's object."""
    return Resource(
        kind="Node",
        name="nodes",
        path="/api/v1/nodes",
        wire=WireNode,
        put=lambda store, wire: store.set_node(read_node(wire)),
        delete=lambda store, _: store.set_node(None),
        query={"fieldSelector": f"metadata.name={name}"},
        in_namespaces=False,
    )


class ResourceCache:
    """A cache that keeps one resource's objects in a store.

    Args:
        shares: Limits the memory for objects in each namespace; None for the default limit.
    """

    def __init__(
        self, resource: Resource, store: Store, shares: ObjectShares | None = None
    ) -> None:
        self.resource = resource
        self._store = store
        self._shares = shares or ObjectShares()
        self._listed: set[Key] = set()
        """The objects of the list in progress that are kept."""
        self._not_listed: dict[str, Excess] = {}
        """The number and size of that list's omitted objects, by namespace."""
        self.rejected: dict[Key, RejectedFacts] = {}
        """Objects that can't be read."""
        self._rejected_keys: list[Key] = []
        """The sorted keys of :attr:`rejected`, of which each change reads only the first ones."""

    def resume(self, keys: Iterable[Key]) -> None:
        """Record the objects that an earlier run left in the store."""
        for key in keys:
            self._shares.keep((key[0], key[1]))

    def begin_list(self) -> None:
        """Begin or restart a list."""
        self._listed.clear()
        self._not_listed.clear()

    def list_items(self, items: Iterable[Any]) -> None:
        for item in items:
            key, is_kept = self._put(item)
            if is_kept:
                self._listed.add(key)
            else:
                self._listed.discard(key)
                left_out = self._not_listed.get(key[0], NOTHING)
                self._not_listed[key[0]] = left_out.plus(1, _size(item))

    def end_list(self) -> None:
        """End a list: delete objects that it didn't contain, and set the counts of omitted ones."""
        for key in self._shares.kept() - self._listed:
            self._delete(key)
        self._shares.set_left_out(self._not_listed)
        self.begin_list()

    def put(self, item: Any, metadata: Metadata, *, is_new: bool = True) -> None:
        """Add or replace an object, given as JSON, or count it as omitted.

        Args:
            metadata: The object's metadata, as :func:`metadata_of` returns it.
            is_new: Whether the object didn't exist before.
        """
        was_kept = _key(metadata) in self._shares
        key, is_kept = self._put(item)
        if is_new or was_kept:
            if not is_kept:
                self._shares.count(key[0], 1, _size(item))
        elif is_kept:
            self._shares.count(key[0], -1, -_size(item))

    def delete(self, item: Any, metadata: Metadata) -> None:
        """Delete an object, or subtract it from the omitted ones; metadata is as in :meth:`put`."""
        key = _key(metadata)
        if key in self._shares:
            self._delete(key)
        else:
            self._shares.count(key[0], -1, -_size(item))

    def left_out(self) -> Iterator[tuple[str, Excess]]:
        """Yield each namespace with omitted objects, sorted, and its excess."""
        return self._shares.left_out()

    def first_rejected(self, count: int) -> Iterator[RejectedFacts]:
        """Yield the first objects that can't be read, by namespace and name."""
        return (self.rejected[key] for key in self._rejected_keys[:count])

    @property
    def has_objects(self) -> bool:
        return bool(self._shares.kept())

    @property
    def has_room(self) -> bool:
        """Whether omitted objects may fit now; a list would find them."""
        return self._shares.has_room

    def _put(self, item: Any) -> tuple[Key, bool]:
        """Parse an object into the store; return its key, and whether it is kept."""
        if self._shares.has_full:
            key = _key(metadata_of(item))
            if not self._shares.is_open(key):
                return key, False
        try:
            wire: _HasMetadata = decode(item, self.resource.wire)
        except FieldError as exc:
            return self._reject(metadata_of(item), exc)
        key = _key(wire.metadata)
        if not self._shares.take(key, self.resource.weigh(wire)):
            self._delete(key)
            return key, False
        try:
            self.resource.put(self._store, wire)
        except FieldError as exc:
            return self._reject(wire.metadata, exc)
        self._accept(key)
        return key, True

    def _reject(self, metadata: Metadata, exc: FieldError) -> tuple[Key, bool]:
        key = _key(metadata)
        is_kept = key in self._shares or self._shares.take(key, OBJECT_BYTES)
        if is_kept:
            if key not in self.rejected:
                bisect.insort(self._rejected_keys, key)
            self.rejected[key] = _rejected(self.resource.kind, metadata, str(exc))
        return key, is_kept

    def _accept(self, key: Key) -> None:
        if self.rejected.pop(key, None) is not None:
            del self._rejected_keys[bisect.bisect_left(self._rejected_keys, key)]

    def _delete(self, key: Key) -> None:
        self.resource.delete(self._store, key)
        self._shares.drop(key)
        self._accept(key)


def _size(item: Any) -> int:
    return memoryview(item).nbytes


def _rejected(kind: str, metadata: Metadata, problem: str) -> RejectedFacts:
    key = _key(metadata)
    service = key[1]
    if kind == SLICES.kind:
        service = (metadata.labels or {}).get(LABEL_SERVICE_NAME) or ""
    object_ = ObjectKey(kind, *key) if any(key) else NO_OBJECT
    place = str(object_) or f"{kind} (without a name)"
    services = (f"{key[0]}/{service}",) if key[0] and service else ()
    return RejectedFacts.at(place, problem, object_, services)


def metadata_of(item: Any) -> Metadata:
    """Return an object's metadata; empty if it can't be read."""
    try:
        return decode(item, WireHead).metadata
    except FieldError:
        return Metadata()


def _key(metadata: Metadata) -> Key:
    return metadata.namespace or "", metadata.name or ""
