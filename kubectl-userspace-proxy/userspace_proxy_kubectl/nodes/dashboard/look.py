"""Defines the data from which pages are made, and the URLs of pages.

Rule 1: a URL's path and query determine the page, so it can be shared.
Rule 2: names are quoted, because agents may send any name.
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
    """Return the URL of the page about a Service, ``namespace/name``."""
    namespace, name = ServiceKey.read(service)
    return f"/services/{_quoted(namespace)}/{_quoted(name)}"


def node_link(node: str) -> str:
    """Return the URL of the page about a node."""
    return f"/nodes/{_quoted(node)}"


def incident_link(id_: str) -> str:
    """Return the URL of the page about an incident."""
    return f"/incidents/{_quoted(id_)}"


def _quoted(name: str) -> str:
    # Escape a path segment that consists of dots, because a browser would resolve it.
    text = quote(name, safe="", errors="replace")
    return text.replace(".", "%2E") if not text.strip(".") else text


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """The data of all nodes at one moment, from which pages are made."""

    all_nodes: AllNodes
    merged: Merged
    now: float
    """Unix time of this machine."""
    cluster: str = ""
    """The kubeconfig context, which names the cluster for the user."""
    lately: Lately = field(default_factory=Lately)


def has_words(q: str, texts: Iterable[str]) -> bool:
    """Return whether the texts contain all words of a search."""
    text = "\n".join(texts).lower()
    return all(word in text for word in q.lower().split())
