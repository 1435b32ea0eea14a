"""Lists the addresses of all Nodes while endpoints must be compared with them.

Rule 1: nothing is requested unless the plan needs it. A Node is 15 KiB and changes every few
minutes: watching all Nodes from each of 5,000 nodes would cost the API server more than everything
else. Endpoints whose port is a node port's number, and endpoints by name, are rare.
Rule 2: if a list fails, the last addresses stay, and the list is retried. Without permission to
list Nodes, or once the plan no longer needs them, the addresses are unknown. An API server that is
starting denies everything for a moment, so two lists in a row must be denied.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from ...log_fields import FieldLogger
from ...model import Node
from ...model.reading import read_node
from ...model.similar import similar_hosts
from ...model.wire import FieldError, WireHead, WireNode, decode
from ..base import Pause, pause
from .client import ApiClient
from .lists import read_page, read_whole
from .responses import TransportError, read_status

_log = FieldLogger("userspace_proxy.sources")

EVERY_S = 300.0
_RETRY_S = 10.0
_DENIALS = 2
# The number of Nodes per page; a page of this many is about 1.5 MiB.
_PAGE = 100


class _Forbidden(TransportError):
    """The account isn't permitted to list Nodes."""


class NodeAddressLister:
    """Lists all Nodes' addresses regularly while they are wanted.

    Args:
        take: Called with the addresses from each list, and with None when they are unknown.
    """

    def __init__(
        self,
        client: ApiClient,
        take: Callable[[frozenset[str] | None], None],
        *,
        pause: Pause = pause,
    ) -> None:
        self._client = client
        self._take = take
        self._pause = pause
        self._wanted = asyncio.Event()
        self._is_decided = asyncio.Event()

    def want(self, is_wanted: bool) -> None:
        """Start or stop listing; idempotent."""
        self._is_decided.set()
        if is_wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    async def run(self) -> None:
        denials = 0
        # An earlier run's addresses are valid until the first plan shows whether they are needed.
        await self._is_decided.wait()
        while True:
            if not self._wanted.is_set():
                self._take(None)
                await self._wanted.wait()
            try:
                self._take(await self._list())
                denials = 0
            except (TransportError, FieldError) as exc:
                _log.warning(
                    "cannot list Nodes, so their addresses may be missing or outdated: %(cause)s",
                    extra={"cause": str(exc)},
                )
                denials = denials + 1 if isinstance(exc, _Forbidden) else 0
                if denials >= _DENIALS:
                    self._take(None)
                await self._pause(_RETRY_S)
            else:
                await self._pause(EVERY_S)

    async def _list(self) -> frozenset[str]:
        addresses: set[str] = set()

        def take(items: Sequence[bytes]) -> None:
            for item in items:
                with contextlib.suppress(FieldError):
                    addresses.update(read_node(decode(item, WireNode)).addresses)

        refusal = await read_whole(self._client, "/api/v1/nodes", {"limit": str(_PAGE)}, take)
        if refusal is None:
            return frozenset(addresses)
        cause = read_status(refusal.body).message or "no reason given"
        kind = _Forbidden if refusal.code == 403 else TransportError
        raise kind(f"HTTP {refusal.code}: {cause}")


async def describe_missing(client: ApiClient, name: str) -> Node:
    """Return a Node marked as missing, with similar names of the first 500 Nodes, if permitted."""
    names: list[str] = []

    def take(items: Sequence[bytes]) -> None:
        names.extend(decode(item, WireHead).metadata.name or "" for item in items)

    with contextlib.suppress(TransportError, FieldError):
        # The limit keeps the response below about 8 MiB: with a wrong node name in a DaemonSet, all
        # its pods send this request.
        await read_page(client, "/api/v1/nodes", {"limit": "500"}, take)
    return Node(name, is_missing=True, similar=similar_hosts(name, names))
