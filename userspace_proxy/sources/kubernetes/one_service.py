"""Reads one Service, what belongs to it, and on request its pods, once.

Rule 1: only lists of the Service's namespace are needed, so that a user who may read just that
namespace can read it. What is elsewhere is read if that is permitted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from ...cluster import Snapshot, Store
from ...errors import SourceError
from ...model import ServiceKey
from ...model.pod_endpoints import WireSelectingService, read_selection
from ...model.pods import PodState, read_pods
from ...model.reading import LABEL_SERVICE_NAME
from ...model.wire import FieldError, WireHead, WirePage, decode
from .api_paths import join
from .client import ApiClient
from .credentials import Credentials
from .kubeconfig_files import Kubeconfig
from .resources import SERVICES, SLICES, Resource, ResourceCache, inside, this_node
from .responses import Response, TransportError, invalid, rejected, unreachable

# Enough to find labels that are similar.
_PODS_MAX = "500"


@dataclass(frozen=True, slots=True)
class OneService:
    """What an API server contains about one Service."""

    url: str
    snapshot: Snapshot
    """It may lack the Service; it contains the other Services of the namespace."""
    targets: tuple[int | str, ...] = ()
    """The target ports of the Service: numbers, or names of container ports."""
    pods: tuple[PodState, ...] = ()
    """Those that the selector matches, or if there are none, all of the namespace."""


@contextlib.asynccontextmanager
async def asked_once(client: ApiClient, within_s: float) -> AsyncIterator[None]:
    """Open a client, wait some seconds for the server, and close it.

    Raises:
        SourceError: The server doesn't respond, or credentials can't be used.
    """
    try:
        # A plugin may ask for a password, and that isn't the server's time.
        await client.open()
        async with asyncio.timeout(within_s):
            yield
    except TransportError as exc:
        raise SourceError(unreachable(client.url, exc).text) from exc
    except TimeoutError as exc:
        silence = TransportError(f"no answer within {within_s:g} s")
        raise SourceError(unreachable(client.url, silence).text) from exc
    finally:
        await client.close()


def list_refused(client: ApiClient, what: str, response: Response) -> str:
    """Return why a server has refused a list, with the remedy."""
    credentials = client.credentials.description
    return rejected(client.url, f"list {what}", response, credentials=credentials).text


class OneServiceReader:
    """Reads one Service from one API server.

    The arguments are those of KubernetesSource.
    """

    def __init__(self, *, kubeconfig: str | Kubeconfig, master: str, node_name: str) -> None:
        self._client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
        self._node_name = node_name
        self._store = Store()

    async def read(self, key: ServiceKey, *, with_pods: bool, within_s: float) -> OneService:
        """Read a Service, within some seconds of the server.

        Raises:
            SourceError: The server doesn't respond, or doesn't permit it.
        """
        async with asked_once(self._client, within_s):
            return await self._read(key, with_pods)

    async def _read(self, key: ServiceKey, with_pods: bool) -> OneService:
        services = await self._list(SERVICES, inside(SERVICES, key.namespace).path)
        slices = inside(SLICES, key.namespace).path
        named = {"labelSelector": f"{LABEL_SERVICE_NAME}={key.name}"}
        if not await self._list(SLICES, slices, named):
            await self._list(SLICES, slices)
            # Those of other namespaces, and whether a Service is there: both, or neither.
            elsewhere = await self._client.get(SLICES.path, named)
            others = await self._client.get(
                SERVICES.path, {"fieldSelector": f"metadata.name={key.name}"}
            )
            if elsewhere.code == others.code == 200:
                self._put(SLICES, elsewhere)
                self._put(SERVICES, others)
        if self._node_name:
            node = this_node(self._node_name)
            found = await self._client.get(node.path, node.query)
            if found.code == 200:
                self._put(node, found)
        snapshot = self._store.snapshot()
        state = snapshot.services.get(key)
        if state is None:
            return OneService(self._client.url, snapshot)
        pods: tuple[PodState, ...] = ()
        if with_pods and state.service.selector:
            pods = await self._pods(key, state.service.selector)
        targets = next((_targets_of(item) for item in services if _is(item, key)), ())
        return OneService(self._client.url, snapshot, targets, pods)

    async def _pods(
        self, key: ServiceKey, selector: tuple[tuple[str, str], ...]
    ) -> tuple[PodState, ...]:
        path = join("/api/v1/namespaces", key.namespace, "pods")
        labels = ",".join(f"{name}={value}" for name, value in selector)
        for query in ({"labelSelector": labels}, {"limit": _PODS_MAX}):
            response = await self._client.get(path, query)
            self._check(response, "pods")
            try:
                pods = read_pods(response.body)
            except FieldError as exc:
                raise SourceError(invalid(self._client.url, "pods", str(exc)).text) from exc
            if pods:
                return pods
        return ()

    async def _list(
        self, resource: Resource, path: str, query: Mapping[str, str] | None = None
    ) -> list[bytes]:
        """Read a list into the store; return its items."""
        response = await self._client.get(path, query or {})
        self._check(response, resource.name)
        return self._put(resource, response)

    def _check(self, response: Response, what: str) -> None:
        if response.code != 200:
            raise SourceError(list_refused(self._client, what, response))

    def _put(self, resource: Resource, response: Response) -> list[bytes]:
        try:
            items = decode(response.body, WirePage).items or []
        except FieldError as exc:
            raise SourceError(invalid(self._client.url, resource.name, str(exc)).text) from exc
        cache = ResourceCache(resource, self._store)
        cache.list_items(items)
        return [bytes(item) for item in items]


def _is(item: bytes, key: ServiceKey) -> bool:
    return decode(item, WireHead).metadata.name == key.name


def _targets_of(item: bytes) -> tuple[int | str, ...]:
    selection = read_selection(decode(item, WireSelectingService))
    return tuple(target.port for target in selection.targets)
