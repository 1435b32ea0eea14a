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
from .connection import Connection
from .credentials import Credentials
from .responses import ConnectionTrouble, refusal, unreachable
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
    connection = Connection(Credentials(kubeconfig=kubeconfig, master=master))
    try:
        async with asyncio.timeout(within_s):
            await connection.open()
            return await _ask(connection, node_name)
    except SourceError as exc:
        return ServerAnswers(connection.url, (str(exc),))
    except ConnectionTrouble as exc:
        return ServerAnswers(connection.url, (unreachable(connection.url, exc).words,))
    except TimeoutError:
        silence = ConnectionTrouble(f"no answer within {within_s:g} s")
        return ServerAnswers(connection.url, (unreachable(connection.url, silence).words,))
    finally:
        await connection.close()


async def _ask(connection: Connection, node_name: str) -> ServerAnswers:
    problems = []
    service_ips: tuple[str, ...] = ()
    kinds = [SERVICES, SLICES, *([node_kind(node_name)] if node_name else [])]
    for kind in kinds:
        answer = await connection.get(kind.path, {**kind.query, "limit": "1"})
        if answer.code != 200:
            problems.append(
                refusal(
                    connection.url,
                    f"list {kind.resource}",
                    answer,
                    credentials=connection.credentials.words,
                ).words
            )
        elif kind is SERVICES:
            service_ips = _service_ips(answer.body)
    version = await connection.get("/version", {})
    return ServerAnswers(connection.url, tuple(problems), _version(version.body), service_ips)


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
