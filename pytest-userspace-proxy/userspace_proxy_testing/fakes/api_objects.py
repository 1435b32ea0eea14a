"""The fake API server's objects: their history, lists and pages.

    put, delete ──▶ objects at a resourceVersion ──▶ lists, in pages
              └──▶ history ──▶ events since a resourceVersion, unless forgotten

This module does no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from userspace_proxy.errors import UserspaceProxyError

KINDS = {
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "Node": "nodes",
    "Pod": "pods",
    "Lease": "leases",
    "DaemonSet": "daemonsets",
}
FIRST_REVISION = 1000

Object = Mapping[str, Any]
_Key = tuple[str, str, str]


class Expired(UserspaceProxyError):
    """The requested history is no longer available; 410 Gone."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one object."""

    revision: int
    resource: str
    type: str
    object: Object

    @property
    def line(self) -> bytes:
        """The event as a watch sends it."""
        return json.dumps({"type": self.type, "object": self.object}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """Selects the objects of a list or watch."""

    resource: str
    name: str = ""
    """The name of the only matching object (``fieldSelector``); empty for any."""
    namespace: str = ""
    """The only matching namespace, from the path; empty for any."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that a matching object has (``labelSelector``)."""

    def matches(self, resource: str, item: Object) -> bool:
        """Return whether an object is selected."""
        metadata = item["metadata"]
        return (
            resource == self.resource
            and self.name in ("", metadata["name"])
            and self.namespace in ("", metadata.get("namespace", ""))
            and {*self.labels} <= {*metadata.get("labels", {}).items()}
        )


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list."""

    revision: int
    items: list[Object]
    token: str = ""
    """The continue token; empty on the last page."""


class FakeObjects:
    """Objects of the kinds in ``KINDS``, with resourceVersions."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self._objects: dict[_Key, Object] = {}
        self._history: list[WatchEvent] = []
        self._forgotten = FIRST_REVISION
        self._rests: dict[str, ListPage] = {}
        """The remaining pages of lists, by continue token."""

    def put(self, item: Object) -> WatchEvent:
        """Add an object, or replace one of the same kind, namespace and name; return the event.

        Raises:
            KeyError: The kind isn't in ``KINDS``, or the object has no name.
        """
        resource = KINDS[item["kind"]]
        namespace = {} if resource == "nodes" else {"namespace": "default"}
        metadata = {**namespace, **item["metadata"]}
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        type_ = "MODIFIED" if key in self._objects else "ADDED"
        event = self._record(type_, resource, {**item, "metadata": metadata})
        self._objects[key] = event.object
        return event

    def get(self, resource: str, name: str, namespace: str) -> Object | None:
        """Return an object; None if it doesn't exist."""
        return self._objects.get((resource, namespace, name))

    def delete(self, kind: str, name: str, namespace: str) -> WatchEvent:
        """Delete an object; return the event.

        Raises:
            KeyError: The kind isn't in ``KINDS``, or the object doesn't exist.
        """
        resource = KINDS[kind]
        item = self._objects.pop((resource, "" if resource == "nodes" else namespace, name))
        return self._record("DELETED", resource, item)

    def forget(self) -> None:
        """Forget the history: earlier events and continue tokens expire."""
        self.revision += 1
        self._forgotten = self.revision
        self._history.clear()
        self._rests.clear()

    def list(self, wanted: ObjectFilter, limit: int) -> ListPage:
        """Return the first page of a list; with a limit of 0, it contains all objects."""
        items = [i for k, i in sorted(self._objects.items()) if wanted.matches(k[0], i)]
        return self._page(ListPage(self.revision, items), limit)

    def list_on(self, token: str, limit: int) -> ListPage:
        """Return the page for a continue token.

        Raises:
            Expired: The token has expired.
        """
        if token not in self._rests:
            raise Expired("The provided continue parameter is too old to display a list")
        return self._page(self._rests[token], limit)

    def since(self, revision: int, wanted: ObjectFilter) -> Iterable[WatchEvent]:
        """Return the events after a revision; after 0, one event per existing object.

        Raises:
            Expired: The revision, unless it is 0, is older than the last :meth:`forget`.
        """
        if revision == 0:
            # Source: Kubernetes API concepts, "Get State and Start at Any".
            now = self.list(wanted, 0)
            return [WatchEvent(now.revision, wanted.resource, "ADDED", item) for item in now.items]
        if revision < self._forgotten:
            raise Expired(f"too old resource version: {revision} ({self._forgotten})")
        events = (e for e in self._history if e.revision > revision)
        return [e for e in events if wanted.matches(e.resource, e.object)]

    def _page(self, whole: ListPage, limit: int) -> ListPage:
        limit = limit or len(whole.items)
        rest = whole.items[limit:]
        token = f"{len(rest)}-more-at-{whole.revision}" if rest else ""
        if rest:
            self._rests[token] = ListPage(whole.revision, rest)
        return ListPage(whole.revision, whole.items[:limit], token)

    def _record(self, type_: str, resource: str, item: Object) -> WatchEvent:
        self.revision += 1
        metadata = {**item["metadata"], "resourceVersion": str(self.revision)}
        event = WatchEvent(self.revision, resource, type_, {**item, "metadata": metadata})
        self._history.append(event)
        return event
