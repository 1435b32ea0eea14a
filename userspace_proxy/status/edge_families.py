"""The metric of which client calls which Service: the one whose labels are clients.

Rule 1: it has as many series as the table of clients, which is bounded (``facts.edges``), and one
more for all others.
"""

from __future__ import annotations

from collections import Counter

from ..facts.edges import EDGES_MAX, EdgesFacts
from .exposition import Family, counter, labels_text
from .node_families import PREFIX

_LABELS = ("namespace", "service", "port", "client")
OTHER = "other"


def edge_family(edges: EdgesFacts) -> Family:
    """Return a series for each client of each Service port; families and sides are added up."""
    counts: Counter[str] = Counter()
    for edge in edges.edges:
        namespace, _, rest = edge.service.partition(" ")[0].partition("/")
        service, _, port = rest.partition(":")
        client = edge.client_pod or edge.client
        counts[labels_text(_LABELS, (namespace, service, port, client))] += edge.connections
    counts[labels_text(("client",), (OTHER,))] = edges.others
    text = (
        "Connections (UDP: flows) by client, a pod of a Service or an address, refused ones "
        f"included; at most {EDGES_MAX} series, and one for all other clients"
    )
    return counter(f"{PREFIX}client_connections", text, counts.items())
