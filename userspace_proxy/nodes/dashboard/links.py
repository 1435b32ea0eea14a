"""The addresses of pages, by what they are about.

Rule 1: an address has what a page shows in its path and query, so it can be passed on.
Rule 2: names are quoted, as agents may claim any.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from ...model import ServiceKey


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


def with_query(path: str, query: Mapping[str, object]) -> str:
    """Return an address with those values of a query that aren't empty."""
    given = {name: str(value) for name, value in query.items() if value}
    return f"{path}?{urlencode(given, safe=',:/', errors='replace')}" if given else path


def _quoted(name: str) -> str:
    # A segment of dots alone would be taken for a folder.
    text = quote(name, safe="", errors="replace")
    return text.replace(".", "%2E") if not text.strip(".") else text
