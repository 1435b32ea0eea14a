"""The kinds of objects that are read, and a cache that keeps the objects of one kind in the store.

Rule 1: an object that can't be read is a problem of its own: what was read of it before stays,
and so do the other objects.
Rule 2: a list is a difference: equal objects stay the same objects, and only what the whole list
doesn't contain is deleted, at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...cluster import Store
from ...cluster.from_pods import PodEndpoints
from ...facts import RejectedFacts
from ...facts.node import NO_OBJECT, ObjectKey
from ...model import ServiceKey, SliceKey
from ...model.pod_endpoints import (
    PodKey,
    WireSelectingService,
    read_pod,
    read_selection,
)
from ...model.pods import WirePod
from ...model.reading import LABEL_SERVICE_NAME, read_node, read_slice
from ...model.service_reading import read_service
from ...model.wire import (
    FieldError,
    Metadata,
    WireEndpointSlice,
    WireHead,
    WireNode,
    WireService,
    decode,
)
from .api_paths import join

Key = tuple[str, str]
"""Namespace (empty for a Node) and name."""


class _HasMetadata(Protocol):
    @property
    def metadata(self) -> Metadata: ...


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of objects: where it is listed, and how it is stored."""

    kind: str
    """``Service``."""
    name: str
    """``services``."""
    path: str
    wire: type[Any]
    put: Callable[[Store, Any], None]
    """Reads a decoded object into the store; may raise FieldError."""
    delete: Callable[[Store, Key], None]
    query: Mapping[str, str] = field(default_factory=dict)
    """Restricts lists and watches."""


# All Services and slices are listed, also those without a listener (headless ones, those of
# another service proxy), which kube-proxy omits: the page shows why they have none.
SERVICES = Resource(
    kind="Service",
    name="services",
    path="/api/v1/services",
    wire=WireService,
    put=lambda store, wire: store.put_service(read_service(wire)),
    delete=lambda store, key: store.delete_service(ServiceKey(*key)),
)


def slices(
    *, with_headless: bool = False, with_pods: bool = False, pods: PodEndpoints | None = None
) -> Resource:
    """Return EndpointSlices as a resource.

    Args:
        with_headless: Those of headless Services, too, and host names, which only DNS and
            port-forwards use.
        with_pods: With the names of their pods.
        pods: Takes them instead of the store.
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
    )


SLICES = slices()


def inside(resource: Resource, namespace: str) -> Resource:
    """Return a resource as far as it is in one namespace; all of it where that is empty."""
    if not namespace:
        return resource
    start, _, name = resource.path.rpartition("/")
    return replace(resource, path=join(start, "namespaces", namespace, name))


def resources_of(
    *, with_headless: bool, with_pods: bool = False, pods: PodEndpoints | None
) -> list[Resource]:
    """Return what a source needs: Services, slices and, for endpoints from Pods, Pods.

    Args:
        with_headless, with_pods: As of :func:`slices`.
        pods: Takes all objects, and puts them into the store; None: no Pods are read.
    """
    if pods is None:
        return [SERVICES, slices(with_headless=with_headless, with_pods=with_pods)]
    return [
        replace(
            SERVICES,
            wire=WireSelectingService,
            put=lambda _, wire: pods.put_service(read_service(wire), read_selection(wire)),
            delete=lambda _, key: pods.delete_service(ServiceKey(*key)),
        ),
        slices(with_headless=with_headless, pods=pods),
        Resource(
            kind="Pod",
            name="pods",
            path="/api/v1/pods",
            wire=WirePod,
            put=lambda _, wire: pods.put_pod(read_pod(wire)),
            delete=lambda _, key: pods.delete_pod(PodKey(*key)),
        ),
    ]


def this_node(name: str) -> Resource:
    """Return the resource whose only object is this node's."""
    return Resource(
        kind="Node",
        name="nodes",
        path="/api/v1/nodes",
        wire=WireNode,
        put=lambda store, wire: store.set_node(read_node(wire)),
        delete=lambda store, _: store.set_node(None),
        query={"fieldSelector": f"metadata.name={name}"},
    )


class ResourceCache:
    """The objects of one kind, in a store."""

    def __init__(self, resource: Resource, store: Store) -> None:
        self.resource = resource
        self._store = store
        self._known: set[Key] = set()
        self._listed: set[Key] = set()
        self.rejected: dict[Key, RejectedFacts] = {}
        """Objects that can't be read."""

    def resume(self, keys: Iterable[Key]) -> None:
        """Note which objects of an earlier run are in the store."""
        self._known.update(keys)

    def begin_list(self) -> None:
        """Begin a list, or begin it again."""
        self._listed.clear()

    def list_items(self, items: Iterable[Any]) -> None:
        """Add some items of a list, as JSON."""
        for item in items:
            self._listed.add(self._put(item)[0])

    def end_list(self) -> None:
        """End a list: delete the objects that it didn't contain."""
        for key in self._known - self._listed:
            self._delete(key)
        for key in self.rejected.keys() - self._listed:
            del self.rejected[key]
        self._listed.clear()

    def put(self, item: Any) -> str | None:
        """Add or replace an object, as JSON; return its resourceVersion."""
        return self._put(item)[1]

    def delete(self, item: Any) -> str | None:
        """Delete an object; return its last resourceVersion."""
        metadata = _metadata(item)
        self._delete(_key(metadata))
        return metadata.resource_version

    def _put(self, item: Any) -> tuple[Key, str | None]:
        try:
            wire: _HasMetadata = decode(item, self.resource.wire)
            metadata = wire.metadata
            self.resource.put(self._store, wire)
        except FieldError as exc:
            metadata = _metadata(item)
            key = _key(metadata)
            self.rejected[key] = _rejected(self.resource.kind, metadata, str(exc))
            return key, metadata.resource_version
        key = _key(metadata)
        self.rejected.pop(key, None)
        self._known.add(key)
        return key, metadata.resource_version

    def _delete(self, key: Key) -> None:
        self.resource.delete(self._store, key)
        self._known.discard(key)
        self.rejected.pop(key, None)


def _rejected(kind: str, metadata: Metadata, problem: str) -> RejectedFacts:
    key = _key(metadata)
    service = key[1]
    if kind == SLICES.kind:
        service = (metadata.labels or {}).get(LABEL_SERVICE_NAME) or ""
    object_ = ObjectKey(kind, *key) if any(key) else NO_OBJECT
    place = str(object_) or f"{kind} (without a name)"
    services = (f"{key[0]}/{service}",) if key[0] and service else ()
    return RejectedFacts.at(place, problem, object_, services)


def _metadata(item: Any) -> Metadata:
    """Return an object's metadata; empty if even that can't be read."""
    try:
        return decode(item, WireHead).metadata
    except FieldError:
        return Metadata()


def _key(metadata: Metadata) -> Key:
    return metadata.namespace or "", metadata.name or ""
