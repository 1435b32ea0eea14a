"""Derives the endpoints of Services with a selector from Pods; other Services keep their slices.

    Services, Pods, slices ──▶ PodEndpoints ──settle()──▶ Store

Rule 1: slices of a Service with a selector, whether written by a controller or a user, are ignored:
its endpoints are its Pods.
Rule 2: only Services whose own object or Pods have changed are derived again.
Rule 3: endpoints of an earlier run stay until the Service's object has been read, because its
selector is unknown until then. A Service that can't be read stays unchanged.
Rule 4: the cost of a Pod's change depends on the Pods of all Services that select it, so the
Services of a namespace share a maximum number of Pods. A Service that exceeds its share gets a note
instead of endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from ..model import EndpointSlice, Service, ServiceKey, SliceKey
from ..model.notes import NoteKind
from ..model.pod_endpoints import (
    PodEndpoint,
    PodKey,
    PodSelection,
    derive_slices,
    is_selecting,
)
from ..shares import Shares
from .store import Snapshot, Store

PODS_MAX = 20_000
"""The maximum number of Pods of a namespace, each counted once per Service; a Pod takes 5 µs."""

_K = TypeVar("_K")
_V = TypeVar("_V")
_Label = tuple[str, str, str]
"""A namespace, and the key and value of a label."""


class PodEndpoints:
    """Updates one store with the slices derived from Pods, and all other slices.

    Args:
        with_headless: Whether to derive endpoints of headless Services, which only DNS uses.
    """

    def __init__(self, store: Store, *, with_headless: bool) -> None:
        self._store = store
        self._with_headless = with_headless
        self._services: dict[ServiceKey, tuple[Service, PodSelection]] = {}
        self._selecting: dict[_Label, set[ServiceKey]] = {}
        """The keys of Services, by the first label of their selector."""
        self._pods: dict[PodKey, PodEndpoint] = {}
        self._labelled: dict[_Label, set[PodKey]] = {}
        """The keys of Pods, by each of their labels."""
        self._written: dict[SliceKey, EndpointSlice] = {}
        """The slices that the source has read."""
        self._written_for: dict[ServiceKey, set[SliceKey]] = {}
        self._in_store: dict[ServiceKey, set[SliceKey]] = {}
        self._affected: set[ServiceKey] = set()
        self._shares = Shares[ServiceKey](of_namespace=PODS_MAX)
        self._unread: set[ServiceKey] = set()
        """Services of an earlier run that haven't been read, so that their Pods are unknown."""

    def resume(self, snapshot: Snapshot) -> None:
        """Record the objects that an earlier run left in the store."""
        for key, state in snapshot.services.items():
            self._in_store[key] = {item.key for item in state.slices}
            self._affected.add(key)
            if self._is_derived(state.service):
                self._unread.add(key)

    def put_service(self, service: Service, selection: PodSelection) -> None:
        """Add or replace a Service here and in the store."""
        self._forget_service(service.key)
        self._services[service.key] = service, selection
        if self._is_derived(service):
            label = (service.key.namespace, *service.selector[0])
            self._selecting.setdefault(label, set()).add(service.key)
        self._store.put_service(service)

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a Service here and from the store, if it exists."""
        self._forget_service(key)
        self._store.delete_service(key)

    def put_pod(self, pod: PodEndpoint) -> None:
        """Add or replace a Pod."""
        self.delete_pod(pod.key)
        self._pods[pod.key] = pod
        for label in pod.labels:
            self._labelled.setdefault((pod.key.namespace, *label), set()).add(pod.key)
        self._touch_services_of(pod)

    def delete_pod(self, key: PodKey) -> None:
        """Delete a Pod, if it exists."""
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        for label in pod.labels:
            _discard(self._labelled, (key.namespace, *label), key)
        self._touch_services_of(pod)

    def put_slice(self, item: EndpointSlice) -> None:
        """Add or replace a slice that the source has read."""
        self.delete_slice(item.key)
        self._written[item.key] = item
        self._written_for.setdefault(item.service, set()).add(item.key)
        self._affected.add(item.service)

    def delete_slice(self, key: SliceKey) -> None:
        """Delete a slice that the source has read, if it exists. Idempotent."""
        item = self._written.pop(key, None)
        if item is not None:
            _discard(self._written_for, item.service, key)
            self._affected.add(item.service)

    def settle(self) -> None:
        """Replace the slices of changed Services in the store."""
        pods = {key: self._pods_of(key) for key in self._affected - self._unread}
        moved = self._shares.change({key: len(selected) for key, selected in pods.items()})
        pods |= {key: self._pods_of(key) for key in moved - pods.keys()}
        wanted = {
            key: {item.key: item for item in self._slices_of(key, selected)}
            for key, selected in pods.items()
        }
        # Delete first: a slice may have moved to another Service.
        for key, slices in wanted.items():
            for gone in self._in_store.pop(key, set()) - slices.keys():
                self._store.delete_slice(gone)
        for key, slices in wanted.items():
            for item in slices.values():
                self._store.put_slice(item)
            if slices:
                self._in_store[key] = set(slices)
        self._affected.clear()

    def _pods_of(self, key: ServiceKey) -> Sequence[PodEndpoint]:
        """Return the Pods that a Service selects; empty if its endpoints aren't derived."""
        service, _ = self._services.get(key, (None, None))
        if service is None or not self._is_derived(service):
            return ()
        candidates = self._labelled.get((key.namespace, *service.selector[0]), ())
        pods = (self._pods[pod] for pod in candidates)
        return [pod for pod in pods if pod.labels.issuperset(service.selector)]

    def _slices_of(self, key: ServiceKey, pods: Sequence[PodEndpoint]) -> Iterable[EndpointSlice]:
        service, selection = self._services.get(key, (None, None))
        if service is None or selection is None or not self._is_derived(service):
            return [self._written[item] for item in self._written_for.get(key, ())]
        if self._shares.is_left_out(key):
            note = NoteKind.TOO_MANY_PODS(PODS_MAX)
            empty = derive_slices(service, selection, ())
            return [replace(item, notes=(note,)) for item in empty]
        return derive_slices(service, selection, sorted(pods, key=lambda pod: pod.key))

    def _is_derived(self, service: Service) -> bool:
        return is_selecting(service) and (self._with_headless or not service.is_headless)

    def _forget_service(self, key: ServiceKey) -> None:
        self._unread.discard(key)
        service, _ = self._services.pop(key, (None, None))
        if service is not None and service.selector:
            _discard(self._selecting, (key.namespace, *service.selector[0]), key)
        self._affected.add(key)

    def _touch_services_of(self, pod: PodEndpoint) -> None:
        for label in pod.labels:
            for key in self._selecting.get((pod.key.namespace, *label), ()):
                if pod.labels.issuperset(self._services[key][0].selector):
                    self._affected.add(key)


def _discard(index: dict[_K, set[_V]], key: _K, value: _V) -> None:
    """Remove a value from an index of sets, and remove the set once it is empty."""
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]
