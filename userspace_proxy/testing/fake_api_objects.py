"""The objects behind the fake API server: their history, their lists and pages.

    put, delete ──▶ objects at a resourceVersion ──▶ lists, in pages
              └──▶ history ──▶ events since a resourceVersion, unless forgotten

No sockets here: values in, values out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserspaceProxyError

KINDS = {"Service": "services", "EndpointSlice": "endpointslices", "Node": "nodes"}
FIRST_REVISION = 1000

Object = Mapping[str, Any]
_Key = tuple[str, str, str]


class Expired(UserspaceProxyError):
    """What is asked for is forgotten; 410 Gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one object."""

    revision: int
    resource: str
    type: str
    object: Object

    @property
    def line(self) -> bytes:
        """What a watch is sent."""
        return json.dumps({"type": self.type, "object": self.object}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch wants."""

    resource: str
    name: str = ""
    """The only object, by ``fieldSelector``; empty: all."""

    def wants(self, resource: str, item: Object) -> bool:
        """Tell whether an object is among them."""
        return resource == self.resource and self.name in ("", item["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    revision: int
    items: list[Object]
    token: str = ""
    """What to continue with; empty at the end."""


class FakeObjects:
    """Services, EndpointSlices and Nodes, with resourceVersions."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self._objects: dict[_Key, Object] = {}
        self._history: list[Event] = []
        self._forgotten = FIRST_REVISION
        self._rests: dict[str, Page] = {}
        """What is left of lists, by continue token."""

    def put(self, item: Object) -> Event:
        """Add an object, or replace the one of its kind and name.

        Raises:
            KeyError: It has no kind of ours, or no name.
        """
        resource = KINDS[item["kind"]]
        namespace = {} if resource == "nodes" else {"namespace": "default"}
        metadata = {**namespace, **item["metadata"]}
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        type_ = "MODIFIED" if key in self._objects else "ADDED"
        event = self._record(type_, resource, {**item, "metadata": metadata})
        self._objects[key] = event.object
        return event

    def delete(self, kind: str, name: str, namespace: str) -> Event:
        """Delete an object.

        Raises:
            KeyError: It isn't there.
        """
        resource = KINDS[kind]
        item = self._objects.pop((resource, "" if resource == "nodes" else namespace, name))
        return self._record("DELETED", resource, item)

    def forget(self) -> None:
        """Forget the past: events and continue tokens from before now are expired."""
        self.revision += 1
        self._forgotten = self.revision
        self._history.clear()
        self._rests.clear()

    def list(self, selection: Selection, limit: int) -> Page:
        """Return the first page of a list; a limit of 0 means all."""
        items = [i for k, i in sorted(self._objects.items()) if selection.wants(k[0], i)]
        return self._page(Page(self.revision, items), limit)

    def list_on(self, token: str, limit: int) -> Page:
        """Return the page that a token stands for; each works once.

        Raises:
            Expired: The token is forgotten.
        """
        if token not in self._rests:
            raise Expired("The provided continue parameter is too old to display a list")
        return self._page(self._rests.pop(token), limit)

    def since(self, revision: int, selection: Selection) -> Iterable[Event]:
        """Return what has happened since then.

        Raises:
            Expired: It is forgotten.
        """
        if revision < self._forgotten:
            raise Expired(f"too old resource version: {revision} ({self._forgotten})")
        events = (e for e in self._history if e.revision > revision)
        return [e for e in events if selection.wants(e.resource, e.object)]

    def _page(self, whole: Page, limit: int) -> Page:
        limit = limit or len(whole.items)
        rest = whole.items[limit:]
        token = f"{len(rest)}-more-at-{whole.revision}" if rest else ""
        if rest:
            self._rests[token] = Page(whole.revision, rest)
        return Page(whole.revision, whole.items[:limit], token)

    def _record(self, type_: str, resource: str, item: Object) -> Event:
        self.revision += 1
        metadata = {**item["metadata"], "resourceVersion": str(self.revision)}
        event = Event(self.revision, resource, type_, {**item, "metadata": metadata})
        self._history.append(event)
        return event
