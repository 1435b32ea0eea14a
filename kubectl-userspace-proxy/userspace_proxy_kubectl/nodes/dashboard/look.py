"""What a request asks for, what its page is made of, and the addresses of pages.

Rule 1: an address has what a page shows in its path and query, so it can be passed on.
Rule 2: names are quoted, as agents may claim any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from userspace_proxy.model import ServiceKey

from ..agent_answer import AllNodes
from ..merged import Merged
from .lately import Lately


def service_link(service: str) -> str:
    """Return the address of the page about a Service, ``namespace/name``."""
    namespace, name = ServiceKey.read(service)
    return f"/services/{_quoted(namespace)}/{_quoted(name)}"


def node_link(node: str) -> str:
    """Return the address of the page about a node."""
    return f"/nodes/{_quoted(node)}"


def incident_link(id_: str) -> str:
    """Return the address of the page about an incident."""
    return f"/incidents/{_quoted(id_)}"


def _quoted(name: str) -> str:
    # A segment of dots alone would be taken for a folder.
    text = quote(name, safe="", errors="replace")
    return text.replace(".", "%2E") if not text.strip(".") else text


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """All nodes at one moment, as pages show them."""

    all_nodes: AllNodes
    merged: Merged
    now: float
    """Unix time of this machine."""
    cluster: str = ""
    """The cluster, as its user calls it."""
    lately: Lately = field(default_factory=Lately)


def has_words(q: str, texts: Iterable[str]) -> bool:
    """Return whether all words of a search are in some texts."""
    text = "\n".join(texts).lower()
    return all(word in text for word in q.lower().split())
