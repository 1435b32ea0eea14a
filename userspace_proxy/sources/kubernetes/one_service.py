"""Reads one Service once, with its slices, this Node and optionally pods; or all Services' names.

Rule 1: only lists of the Service's namespace are required, so that a user with access to just that
namespace can read it. Objects elsewhere are read if permitted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from ...cluster import Snapshot, Store
from ...errors import SourceError
from ...model import ServiceKey
from ...model.endpoints import named_pods
from ...model.pod_endpoints import read_selection
from ...model.pods import PodState, read_pods
from ...model.reading import LABEL_SERVICE_NAME
from ...model.wire import FieldError, WireHead, WirePage, WireService, decode
from .api_paths import join
from .client import ApiClient
from .credentials import Credentials
from .kubeconfig_files import Kubeconfig
from .lists import Take, read_page, read_whole
from .node_addresses import describe_missing
from .resources import SERVICES, SLICES, Resource, ResourceCache, inside, this_node
from .responses import Response, TransportError, invalid, rejected, unreachable

_PODS_MAX = "500"


@dataclass(frozen=True, slots=True)
class OneService:
    """An API server's objects for one Service."""

    url: str
    snapshot: Snapshot
    """The namespace's Services, the Service's slices, and the Node. If the Service has no slices,
    also the namespace's slices, and Services and slices of this name elsewhere if permitted."""
    targets: tuple[int | str, ...] = ()
    """The target ports of the Service: numbers, or names of container ports."""
    pods: tuple[PodState, ...] = ()
    """The pods that match the selector, or if none do, up to 500 others, and those that slices only
    name (``named_pods``); empty if not read."""


@contextlib.asynccontextmanager
async def asked_once(client: ApiClient, within_s: float) -> AsyncIterator[None]:
    """Open a client, limit the block's requests to ``within_s`` seconds, and close the client.

    Raises:
        SourceError: The server doesn't respond, or credentials can't be used.
    """
    try:
        # A plugin may prompt for a password, so the time limit begins only after it has run.
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
    """Return the reason why a server refused a list, with the remedy."""
    credentials = client.credentials.description
    return rejected(client.url, "list", what, response, credentials=credentials).text


class OneServiceReader:
    """Reads one Service from one API server.

    The arguments are the same as for KubernetesSource.
    """

    def __init__(self, *, kubeconfig: str | Kubeconfig, master: str, node_name: str) -> None:
        self._client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
        self._node_name = node_name
        self._store = Store()
        self._services = ResourceCache(SERVICES, self._store)
        self._slices = ResourceCache(SLICES, self._store)

    async def read(self, key: ServiceKey, *, with_pods: bool, within_s: float) -> OneService:
        """Read a Service; the time limit excludes loading credentials.

        Raises:
            SourceError: The server doesn't respond, sends invalid data, or doesn't permit reading.
        """
        async with asked_once(self._client, within_s):
            return await self._read(key, with_pods)

    async def _read(self, key: ServiceKey, with_pods: bool) -> OneService:
        targets: list[tuple[int | str, ...]] = []

        def take_services(items: Sequence[bytes]) -> None:
            self._services.list_items(items)
            targets.extend(_targets_of(item) for item in items if _is(item, key))

        path = inside(SERVICES, key.namespace).path
        self._check(await self._ask(SERVICES, path, {}, take_services), SERVICES)
        path = inside(SLICES, key.namespace).path
        named = {"labelSelector": f"{LABEL_SERVICE_NAME}={key.name}"}
        self._check(await self._ask(SLICES, path, named, self._slices.list_items), SLICES)
        if not self._slices.has_objects:
            self._check(await self._ask(SLICES, path, {}, self._slices.list_items), SLICES)
            await self._read_elsewhere(key, named)
        if self._node_name:
            node = this_node(self._node_name)
            cache = ResourceCache(node, self._store)
            refusal = await self._ask(node, node.path, node.query, cache.list_items)
            if refusal is None and not cache.has_objects:
                self._store.set_node(await describe_missing(self._client, self._node_name))
        snapshot = self._store.snapshot()
        state = snapshot.services.get(key)
        if state is None:
            return OneService(self._client.url, snapshot)
        pods: tuple[PodState, ...] = ()
        if with_pods and state.service.selector:
            pods = await self._pods(key, state.service.selector)
        for name in named_pods(state.slices) if with_pods else ():
            if all(one.name != name for one in pods):
                pods += await self._list_pods(key, {"fieldSelector": f"metadata.name={name}"})
        return OneService(self._client.url, snapshot, next(iter(targets), ()), pods)

    async def _read_elsewhere(self, key: ServiceKey, named: Mapping[str, str]) -> None:
        """Read Services of this name, and their slices, in all namespaces if both are permitted."""
        services: list[bytes] = []
        slices: list[bytes] = []
        name = {"fieldSelector": f"metadata.name={key.name}"}
        if await self._ask(SERVICES, SERVICES.path, name, services.extend) is not None:
            return
        # A slice whose Service isn't read would be reported as one without a Service.
        if await self._ask(SLICES, SLICES.path, named, slices.extend) is None:
            self._services.list_items(services)
            self._slices.list_items(slices)

    async def _pods(
        self, key: ServiceKey, selector: tuple[tuple[str, str], ...]
    ) -> tuple[PodState, ...]:
        labels = ",".join(f"{name}={value}" for name, value in selector)
        # The first page suffices for finding similar labels.
        own = await self._list_pods(key, {"labelSelector": labels})
        return own or await self._list_pods(key, {"limit": _PODS_MAX})

    async def _list_pods(self, key: ServiceKey, query: Mapping[str, str]) -> tuple[PodState, ...]:
        path = join("/api/v1/namespaces", key.namespace, "pods")
        items: list[bytes] = []
        try:
            page = await read_page(self._client, path, query, items.extend)
            if isinstance(page, Response):
                raise SourceError(list_refused(self._client, "pods", page))
            return read_pods(items)
        except FieldError as exc:
            raise SourceError(invalid(self._client.url, "pods", str(exc)).text) from exc

    async def _ask(
        self, resource: Resource, path: str, query: Mapping[str, str], take: Take
    ) -> Response | None:
        """Read a list; return the first response that isn't 200, if any. Raises SourceError."""
        try:
            return await read_whole(self._client, path, query, take)
        except FieldError as exc:
            raise SourceError(invalid(self._client.url, resource.name, str(exc)).text) from exc

    def _check(self, refusal: Response | None, resource: Resource) -> None:
        if refusal is not None:
            raise SourceError(list_refused(self._client, resource.name, refusal))


def _is(item: bytes, key: ServiceKey) -> bool:
    return decode(item, WireHead).metadata.name == key.name


def _targets_of(item: bytes) -> tuple[int | str, ...]:
    selection = read_selection(decode(item, WireService))
    return tuple(target.port for target in selection.targets)


async def read_service_names(
    kubeconfig: str | Kubeconfig, master: str, *, namespace: str, within_s: float
) -> list[ServiceKey]:
    """Return the keys of a namespace's Services, or of all Services if the name is empty.

    Args:
        within_s: The time limit for the server; the other arguments are as for KubernetesSource.

    Raises:
        SourceError: The server doesn't respond, sends invalid data, or refuses.
    """
    client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
    async with asked_once(client, within_s):
        response = await client.get(inside(SERVICES, namespace).path, {})
    if response.code != 200:
        raise SourceError(list_refused(client, SERVICES.name, response))
    try:
        items = decode(response.body, WirePage).items or []
        heads = [decode(item, WireHead).metadata for item in items]
    except FieldError as exc:
        raise SourceError(invalid(client.url, SERVICES.name, str(exc)).text) from exc
    return [ServiceKey(head.namespace or "", head.name or "") for head in heads]
