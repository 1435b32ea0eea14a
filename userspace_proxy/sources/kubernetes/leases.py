"""Reads and writes Leases of coordination.k8s.io, in a separate namespace.

Rule 1: only Leases with this proxy's label are listed, so other Leases are ignored.
Rule 2: a node's Lease is owned by the Node, so the garbage collector deletes it after the Node.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from ...errors import SourceError
from ...model.annotations import DOMAIN
from ...model.wire import FieldError, WireEvent, WireHead, WireLease, decode
from ..base import DURATION_S, Lease, Leases
from .api_paths import join
from .client import ApiClient, LineSplitter, LineTooLong
from .lists import read_whole
from .responses import Response, TransportError, cause_of, unreachable

NAMESPACE = "userspace-proxy"
"""The namespace of all Leases: permission to write Leases in it affects nothing else, unlike in
kube-system."""
_PATH = join("/apis/coordination.k8s.io/v1/namespaces", NAMESPACE, "leases")
_LABEL = f"{DOMAIN}leases-of"
# The duration of a watch, and the silence after which it is ended. Within this time, the holder
# renews its Lease several times.
_WATCH_S = 300
_SILENCE_S = 330.0
_ANSWER_S = 5.0
_LIST_S = 30.0
# The numbers of Nodes and of Leases per page; such pages are about 1.5 MiB and 1 MiB.
_PAGE = 100
_LEASE_PAGE = 500
_HINT = (
    f"create the namespace {NAMESPACE}, and allow this user to get, list, watch, create and update "
    "leases of coordination.k8s.io there, and to get and list nodes"
)
_Item = TypeVar("_Item")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9.-]")


class KubernetesLeases(Leases):
    """The Leases of all proxies with the same name.

    Args:
        prefix: The proxy's name; empty for the node's proxy.
        is_open: Returns whether the client can be used.
    """

    def __init__(
        self, client: ApiClient, node_name: str, prefix: str, is_open: Callable[[], bool]
    ) -> None:
        self.node_name = node_name
        self._client = client
        self._is_open = is_open
        self._owner: Mapping[str, str] | None = None
        self._prefix = f"{_NOT_IN_NAMES.sub('-', prefix.lower())}." if prefix else ""
        self._label = prefix or "node"

    async def read(self, name: str) -> Lease | None:
        response = await self._ask(lambda: self._client.get(self._path(name), {}))
        return None if response.code == 404 else self._lease("read", response)

    async def write(self, lease: Lease) -> Lease | None:
        item = await self._written(lease)
        method, path = ("PUT", self._path(lease.name)) if lease.version else ("POST", _PATH)
        response = await self._ask(
            lambda: self._client.send(method, path, item, content_type="application/json"),
        )
        # For PUT, 404 means that the Lease was deleted; for POST, that the namespace is missing.
        if response.code == 409 or (response.code == 404 and lease.version):
            return None
        return self._lease("write", response)

    async def read_all(self) -> list[Lease]:
        query = {
            "labelSelector": f"{_LABEL}={self._label}",
            "limit": str(_LEASE_PAGE),
            # The server's cache suffices: a write that is based on a stale version fails, and each
            # node's acknowledgement names its round.
            "resourceVersion": "0",
        }
        return await self._items(_PATH, query, self._read_item)

    async def nodes(self) -> frozenset[str]:
        query = {"limit": str(_PAGE)}
        heads = await self._items("/api/v1/nodes", query, partial(decode, type_=WireHead))
        return frozenset(head.metadata.name or "" for head in heads)

    async def follow(self, name: str) -> AsyncIterator[Lease]:
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={self._prefix}{name}",
            "resourceVersion": "0",
            "timeoutSeconds": str(_WATCH_S),
        }
        lines = LineSplitter()
        self._check_open()
        try:
            async with self._client.stream(_PATH, query) as stream:
                if stream.code != 200:
                    raise self._refused("watch", await stream.rest())
                while chunk := await stream.read(silence_s=_SILENCE_S):
                    for line in lines.feed(chunk):
                        event = decode(line, WireEvent)
                        if not event.type:
                            raise self._invalid()
                        if event.type in ("ADDED", "MODIFIED"):
                            yield self._read_item(event.object)
        except (TransportError, TimeoutError) as exc:
            raise self._unreachable(exc) from exc
        except (LineTooLong, FieldError) as exc:
            raise self._invalid() from exc

    async def _items(
        self, path: str, query: Mapping[str, str], read: Callable[[bytes], _Item]
    ) -> list[_Item]:
        found: list[_Item] = []
        self._check_open()
        try:
            refusal = await read_whole(
                self._client,
                path,
                query,
                lambda items: found.extend(map(read, items)),
                within_s=_LIST_S,
            )
        except TransportError as exc:
            raise self._unreachable(exc) from exc
        except FieldError as exc:
            raise self._invalid() from exc
        if refusal is not None:
            raise self._refused("list", refusal)
        return found

    async def _written(self, lease: Lease) -> Mapping[str, Any]:
        metadata: dict[str, Any] = {
            "name": self._prefix + lease.name,
            "namespace": NAMESPACE,
            "labels": {_LABEL: self._label},
            "annotations": {DOMAIN + name: text for name, text in lease.notes.items()},
        }
        if lease.version:
            metadata["resourceVersion"] = lease.version
        if lease.name.endswith(f".{self.node_name}"):
            metadata["ownerReferences"] = await self._owners()
        spec = {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }

    async def _owners(self) -> list[Mapping[str, str]]:
        """Return a reference to this node's object; empty if its uid can't be read."""
        if self._owner is None:
            path = join("/api/v1/nodes", self.node_name)
            response = await self._ask(lambda: self._client.get(path, {}))
            if response.code != 200:
                return []
            try:
                uid = decode(response.body, WireHead).metadata.uid
            except FieldError:
                uid = None
            if uid is None:
                return []
            self._owner = {"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": uid}
        return [self._owner]

    async def _ask(self, ask: Callable[[], Awaitable[Response]]) -> Response:
        self._check_open()
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await ask()
        except (TransportError, TimeoutError) as exc:
            raise self._unreachable(exc) from exc

    def _lease(self, verb: str, response: Response) -> Lease:
        if response.code not in (200, 201):
            raise self._refused(verb, response)
        try:
            return self._read_item(response.body)
        except FieldError as exc:
            raise self._invalid() from exc

    def _read_item(self, item: Any) -> Lease:
        wire = decode(item, WireLease)
        metadata = wire.metadata
        if not metadata.name or not metadata.resource_version:
            raise FieldError("metadata", "lacks a name or a version")
        notes = {
            key.removeprefix(DOMAIN): text or ""
            for key, text in (metadata.annotations or {}).items()
            if key.startswith(DOMAIN)
        }
        holder = (wire.spec and wire.spec.holder_identity) or ""
        name = metadata.name.removeprefix(self._prefix)
        return Lease(name, holder, notes, metadata.resource_version)

    def _check_open(self) -> None:
        if not self._is_open():
            raise SourceError("there is no connection to the API server yet")

    def _path(self, name: str) -> str:
        return join(_PATH, self._prefix + name)

    def _refused(self, verb: str, response: Response) -> SourceError:
        text = f"the API server at {self._client.url} refuses to {verb} leases: "
        hint = _HINT if response.code in (401, 403, 404) else ""
        return SourceError(text + cause_of(response), hint=hint)

    def _unreachable(self, exc: Exception) -> SourceError:
        cause = TransportError(str(exc) or "no answer in time")
        return SourceError(unreachable(self._client.url, cause).text)

    def _invalid(self) -> SourceError:
        return SourceError(f"invalid response from {self._client.url} for leases")
