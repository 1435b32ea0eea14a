"""Asks an API server once whether it answers and permits what a source reads.

Rule 1: one object a kind is asked for, so that it costs the server nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from ...cluster import Store
from ...errors import SourceError
from ...model.wire import DecodeError, WirePage, decode
from .client import ApiClient
from .credentials import Credentials
from .responses import TransportError, rejected, unreachable
from .table import SERVICES, SLICES, Table, node_kind


@dataclass(frozen=True, slots=True)
class ServerAnswers:
    """What came of asking."""

    url: str
    problems: tuple[str, ...] = ()
    """One line each, with the way out; empty where all is well."""
    version: str = ""
    service_ips: tuple[str, ...] = ()
    """The addresses of one Service; empty where there is none."""


async def ask_server(
    *, kubeconfig: str, master: str, node_name: str, within_s: float
) -> ServerAnswers:
    """Ask for one Service, one EndpointSlice and this node's object.

    Args:
        kubeconfig: As for the source.
        master: Likewise.
        node_name: Likewise.
        within_s: Seconds that all of it may take.
    """
    client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
    try:
        async with asyncio.timeout(within_s):
            await client.open()
            return await _ask(client, node_name)
    except SourceError as exc:
        return ServerAnswers(client.url, (str(exc),))
    except TransportError as exc:
        return ServerAnswers(client.url, (unreachable(client.url, exc).text,))
    except TimeoutError:
        silence = TransportError(f"no response within {within_s:g} s")
        return ServerAnswers(client.url, (unreachable(client.url, silence).text,))
    finally:
        await client.close()


async def _ask(client: ApiClient, node_name: str) -> ServerAnswers:
    problems = []
    service_ips: tuple[str, ...] = ()
    kinds = [SERVICES, SLICES, *([node_kind(node_name)] if node_name else [])]
    for kind in kinds:
        response = await client.get(kind.path, {**kind.query, "limit": "1"})
        if response.code != 200:
            problems.append(
                rejected(
                    client.url,
                    f"list {kind.resource}",
                    response,
                    credentials=client.credentials.description,
                ).text
            )
        elif kind is SERVICES:
            service_ips = _service_ips(response.body)
    version = await client.get("/version", {})
    return ServerAnswers(client.url, tuple(problems), _version(version.body), service_ips)


def _service_ips(body: bytes) -> tuple[str, ...]:
    """Return the addresses of the Services in a page; none where it can't be read."""
    store = Store()
    with contextlib.suppress(DecodeError):
        Table(SERVICES, store).list_items(decode(body, WirePage).items or [])
    states = store.snapshot().services.values()
    return tuple(ip for state in states for ip in state.service.cluster_ips)


def _version(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("gitVersion") or "") if isinstance(said, dict) else ""
