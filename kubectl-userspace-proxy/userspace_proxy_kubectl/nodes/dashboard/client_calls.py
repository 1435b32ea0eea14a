"""Aggregates over all nodes which clients call which Services.

    Edges of each node ──▶ calls, a row for each client and Service port, the busiest first

Rule 1: a client is identified by its pod if a node knows the pod, otherwise by its address; the
counts of several nodes are added to one row.
Rule 2: nodes bound their tables, so this table is bounded, too; calls omitted by nodes are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts

from .look import has_words


@dataclass(frozen=True, slots=True)
class ClientCalls:
    """The calls of one client to one Service port."""

    client: str
    """``namespace/pod``, or an IP address."""
    addresses: tuple[str, ...]
    port: str
    """The Service port, as in ``EdgeFacts.service``."""
    connections: int
    """The connections since the proxies' start, including refused connections."""
    failed: int
    """The number of these connections without an answer, or reset by the endpoint."""
    last_at: float
    """Unix time of the last connection."""
    nodes: tuple[str, ...]
    service: str
    """``namespace/name``."""

    @property
    def is_pod(self) -> bool:
        return self.client not in self.addresses


@dataclass(frozen=True, slots=True)
class AllCalls:
    """The calls of all clients."""

    calls: tuple[ClientCalls, ...] = ()
    """The calls, the most frequent first."""
    others: int = 0
    """The connections of clients that didn't fit into the nodes' tables."""
    nodes: int = 0

    def matching(self, text: str) -> tuple[ClientCalls, ...]:
        """Return the calls whose client, Service port or nodes contain all words of a search."""
        return tuple(call for call in self.calls if has_words(text, _texts_of(call)))

    def of_service(self, service: str) -> tuple[ClientCalls, ...]:
        return tuple(call for call in self.calls if call.service == service)


def add_up(edges: Mapping[str, EdgesFacts]) -> AllCalls:
    """Return the calls, summed over all nodes.

    Args:
        edges: The edges of each node, by its name.
    """
    rows: dict[tuple[str, str], list[tuple[str, EdgeFacts]]] = {}
    for node, answer in edges.items():
        for edge in answer.edges:
            key = edge.client_pod or edge.client, edge.service
            rows.setdefault(key, []).append((node, edge))
    calls = [_together(*key, found) for key, found in rows.items()]
    calls.sort(key=lambda call: (-call.connections, call.port, call.client))
    return AllCalls(tuple(calls), sum(answer.others for answer in edges.values()), len(edges))


def _together(client: str, port: str, found: Iterable[tuple[str, EdgeFacts]]) -> ClientCalls:
    nodes, edges = zip(*found, strict=True)
    return ClientCalls(
        client,
        tuple(sorted({edge.client for edge in edges})),
        port,
        sum(edge.connections for edge in edges),
        sum(edge.failed for edge in edges),
        max(edge.last_at for edge in edges),
        tuple(sorted(set(nodes))),
        f"{edges[0].namespace}/{edges[0].name}",
    )


def _texts_of(call: ClientCalls) -> Iterable[str]:
    return call.client, *call.addresses, call.port, *call.nodes
